"""What one admission decision costs in CPU time, and how long the event loop stands still.

    .venv/bin/python bench/decision_cost.py [--decisions 10000] [--no-gc] [--json FILE]

A decision is one placement, or that nobody else can be placed now; the first after an event has
the event itself in it. An event is an arrival, a first token or an end, with all that is decided on
it; the router hands out each decision before it makes the next. Times are the thread's own. So many
requests wait that an event finds room for at most a few, and they wait because the prediction says
so, which is dearer than a full engine: for engines' lines of prompts to get shorter, or, where
prompts cost little and each stream slows the others, for streams to end. Exits 1 where a decision's
p99.9 is above 1 ms anywhere.

Loop stalls are wall time, from a task that wants to wake every millisecond while the largest case
is driven on an event loop; they hold refits and the machine's other work, and no limit is put on
them.
"""

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from forebay.edges.admission import LoopAdmission
from forebay.edges.clock import SystemClock
from forebay.policy.admission import (
    Ask,
    Coefficients,
    Controller,
    Place,
    ReplicaSpec,
    Terms,
    Ticket,
)
from forebay.policy.admission.affinity import BLOCK_TOKENS
from forebay.values import Admit

LIMIT_US = 1000.0
QUEUED = (1, 64, 1000)
REPLICAS = (1, 8, 64)
FAR_S = 1e6
PERIOD_S = 0.25
"""Time between two answers' ends on one engine."""

SPEEDS = {
    "line": Coefficients(0.0133, 0.000063, 3.41e-7, 0.0000686),
    "pace": Coefficients(0.0133, 0.0005, 3.41e-7, 0.0000069),
}
"""What requests wait for, and the engines that make them."""

CLOUD = Place("cloud", input_usd=2e-7, output_usd=8e-7, expect_ttft_s=0.9)
CLASSES = (
    Terms("chat", ttft_s=FAR_S, tpot_s=0.05, spill_to="cloud"),
    Terms("code", ttft_s=FAR_S, tpot_s=0.06, spill_to="cloud"),
    Terms("private", ttft_s=FAR_S, tpot_s=0.05),
)
TIERS = {"gold": 4.0, "free": 1.0}
SHARED = 50
"""Beginnings that prompts share: each is 16 blocks long."""


@dataclass
class Drive:
    """One controller kept at `queued` requests that wait, and what its events cost."""

    replicas: int
    queued: int
    waits_for: str = "line"
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    now_s: float = 0.0
    asked: int = 0
    live: list[Ticket] = field(default_factory=list)
    cost_ns: list[int] = field(default_factory=list)
    event_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.controller = Controller([Place("local", "local"), CLOUD], tiers=TIERS)
        for number in range(self.replicas):
            self.controller.join(
                ReplicaSpec(f"r{number}", "local", 163_008, 256, 2048, SPEEDS[self.waits_for]),
                self.now_s,
            )
        while self.waiting < self.queued:
            self.arrive()

    @property
    def waiting(self) -> int:
        return len(self.controller.state.pools["local"].queue)

    def ask(self) -> Ask:
        self.asked += 1
        dice, first = self.dice, self.dice.randrange(SHARED) * 1000
        return Ask(
            str(self.asked),
            dice.choice(CLASSES),
            "local",
            dice.randrange(16 * BLOCK_TOKENS + 1, 2000),
            500,
            self.now_s,
            tier=dice.choice(["gold", "free", ""]),
            blocks=tuple(range(first, first + 16)),
        )

    def arrive(self) -> None:
        asked = self.ask()
        began = time.thread_time_ns()
        self.controller.ask(asked, self.now_s)
        self._drain(began)

    def end(self) -> None:
        """Let one answer end, whichever; a first token comes before."""
        live, dice = self.live, self.dice
        if not live:
            return
        at = dice.randrange(len(live))
        live[at], live[-1] = live[-1], live[at]
        ticket = live.pop()
        if ticket.first_s is None:
            began = time.thread_time_ns()
            self.controller.tokens(ticket, 1, self.now_s)
            self._drain(began)
        began = time.thread_time_ns()
        self.controller.ended(ticket, "served", self.now_s)
        self._drain(began)

    def steps(self) -> None:
        """Let each engine's clock stream bring a token, about as often as its steps end."""
        for replica in self.controller.state.pools["local"].replicas.values():
            probe = replica.probe
            if probe is not None and self.now_s - probe.last_s > 0.04:
                self.controller.tokens(probe, 1, self.now_s)

    def _drain(self, began: int) -> None:
        first = began
        while True:
            decided = self.controller.next_decision(self.now_s)
            now = time.thread_time_ns()
            self.cost_ns.append(now - began)
            if decided is None:
                break
            began = now
            if isinstance(decided[1], Admit):
                self.live.append(decided[0])
        self.event_ns.append(now - first)

    def measured(self, decisions: int) -> tuple[list[float], list[float]]:
        """Return microseconds of so many decisions, and of their events, each in order of size."""
        self.cost_ns.clear()
        self.event_ns.clear()
        while len(self.cost_ns) < decisions:
            assert self.live, "no engine has anything to do: this measures nothing"
            self.now_s += PERIOD_S / self.replicas
            self.end()
            while self.waiting < self.queued:
                self.arrive()
        return _ordered_us(self.cost_ns[:decisions]), _ordered_us(self.event_ns)


def _ordered_us(cost_ns: list[int]) -> list[float]:
    return sorted(ns / 1e3 for ns in cost_ns)


def row(waits_for: str, replicas: int, queued: int, decisions: int) -> dict[str, float]:
    cost, event = Drive(replicas, queued, waits_for).measured(decisions)
    said = {"replicas": replicas, "queued": queued, "event p99.9": quantiles(event)["p99.9"]}
    return said | quantiles(cost)


def quantiles(ordered: list[float]) -> dict[str, float]:
    last = len(ordered) - 1
    found = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: round(ordered[int(share * last)], 1) for name, share in found.items()}


async def stalls(seconds: float) -> dict[str, float]:
    """Return how late, in microseconds, a task wakes beside the largest case, with refits."""
    clock = SystemClock()
    drive = Drive(max(REPLICAS), max(QUEUED), now_s=clock.now_s())
    admission = LoopAdmission(drive.controller, clock)
    learning = asyncio.create_task(admission.learn())
    late_us: list[float] = []
    loop, until_s = asyncio.get_running_loop(), clock.now_s() + seconds

    async def beat() -> None:
        while True:
            wanted_s = loop.time() + 0.001
            await asyncio.sleep(0.001)
            late_us.append((loop.time() - wanted_s) * 1e6)

    beating = asyncio.create_task(beat())
    while drive.now_s < until_s:
        drive.now_s = clock.now_s()
        drive.steps()
        drive.end()
        while drive.waiting < drive.queued:
            drive.arrive()
            await asyncio.sleep(0)
        await asyncio.sleep(PERIOD_S / drive.replicas)
    for task in (learning, beating):
        task.cancel()
    await asyncio.gather(learning, beating, return_exceptions=True)
    return quantiles(sorted(late_us))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="for loop stalls")
    parser.add_argument("--no-gc", action="store_true", help="without Python's garbage collector")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.no_gc:
        gc.disable()
    rows = []
    print("| waits for | replicas | queued | p50 | p99 | p99.9 | max | event p99.9 |")
    print("|---" * 8 + "|")
    for waits_for, replicas, queued in product(SPEEDS, REPLICAS, QUEUED):
        found = row(waits_for, replicas, queued, asked.decisions)
        rows.append({"waits_for": waits_for, **found})
        print(
            f"| {waits_for} | {replicas} | {queued} | {found['p50']:.0f} | {found['p99']:.0f} "
            f"| {found['p99.9']:.0f} | {found['max']:.0f} | {found['event p99.9']:.0f} |",
            flush=True,
        )
    loop = asyncio.run(stalls(asked.seconds))
    print("loop stalls, us:", json.dumps(loop))
    if asked.json is not None:
        whole = {"unit": "us", "decisions": asked.decisions, "rows": rows, "loop_stalls": loop}
        asked.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    worst = max(float(found["p99.9"]) for found in rows)
    if worst > LIMIT_US:
        sys.exit(f"p99.9 of a decision is {worst:.0f} us; the limit is {LIMIT_US:.0f}")


if __name__ == "__main__":
    main()
