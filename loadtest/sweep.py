"""The real runs: capacity first, then every load under every policy, interleaved and repeated.

A point gets a fresh stack (no cache and no queue is carried over, only what the router keeps of
its learning over any restart), a probe of the bare engine, the run, and the probe again. A point
whose probe moved, whose generator fell behind or whose Triton restarted is run again, and both are
listed. Each point is a line of `rows.jsonl`; what is there already is not run again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from loadtest import plan as plans
from loadtest.outcome import to_json
from loadtest.pages import write
from loadtest.probe import ProbeError, moved, probe
from loadtest.report import report
from loadtest.run import fill, run
from loadtest.stacks import LEARNS, LEARNT, StackError, copied, running
from loadtest.sweep_pages import write_sweep
from loadtest.sweep_plan import promises, version
from loadtest.sweep_state import State, SweepError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from loadtest.plan import Plan
    from loadtest.probe import Probed
    from loadtest.report import Report
    from loadtest.stacks import Running
    from loadtest.sweep_plan import Point, Sweep

    Drive = Callable[[Coroutine[Any, Any, Any]], Any]
    Row = dict[str, Any]

SETTLE_S = 3.0
"""Between the probe and the run: the engine's metrics are to say that it is idle."""
POOL_RPS = 50.0
"""Capacity draws from so many requests for each second, so that none comes twice."""

WARM_UP = "warmup.jsonl"
"""Beside a point's outcomes those that are not judged: their requests were in the engine, too."""

SERVED = frozenset({"served", "hung_up"})

LOST_MOST = 0.02
"""Of the closed loop's requests no greater share may fail, or what is left measures nothing."""

FILLING = 1 / 6
"""The part of the closed loop's time that is not counted."""


def sweep(
    said: Sweep,
    folder: Path,
    drive: Drive,
    tell: Callable[[str], None],
    repetition: int | None = None,
) -> str:
    """Run every point that is not done yet, or those of one repetition; return the table.

    Raises:
        SweepError: a stack did not start, or the bare engine did not answer.
        PlanError: a policy or the plan is wrong.
    """
    points = [one for one in said.points() if repetition in (None, one.repetition)]
    if not points:
        raise SweepError(f"sweep {said.name} has {said.repetitions} repetitions")
    folder.mkdir(parents=True, exist_ok=True)
    _pin(said)
    versions = _versions(said)
    state, work = State(folder, versions), _Work(said, folder, drive)
    for at, point in enumerate(points, 1):
        while (tries := state.tries(point)) <= said.probe.reruns and not state.done(point):
            if point.repetition not in state.capacity_rps:
                capacity = _settled(work, tell)
                _unchanged(said, versions)
                state.keep_capacity(point.repetition, capacity)
            capacity_rps = state.capacity_rps[point.repetition]
            tell(f"[{at}/{len(points)}] {point.key} of {capacity_rps:.3f}/s, try {tries + 1}")
            try:
                row = _point(work, point, capacity_rps, tries)
            except (StackError, ProbeError) as error:
                raise SweepError(
                    f"{point.key}: {error}\nRun the same command again to go on"
                ) from error
            _unchanged(said, versions)
            state.keep(row)
            if not row["void"]:
                work.learns(point.policy, work.place(point, tries))
            tell(_told(row))
    return write_sweep(said, state.capacities, state.rows, folder)


def without_a_sound_try(said: Sweep, folder: Path, repetition: int | None) -> list[str]:
    """Return the points asked for that no try of was sound."""
    state = State(folder, _versions(said))
    asked = (one for one in said.points() if repetition in (None, one.repetition))
    return [one.key for one in asked if not state.done(one)]


def _versions(said: Sweep) -> dict[str, str]:
    return {one.name: version(said, one) for one in said.policies}


def _unchanged(said: Sweep, versions: Mapping[str, str]) -> None:
    """Raise SweepError where what was just measured may not be what the sweep began with."""
    changed = [name for name, of in _versions(said).items() if of != versions[name]]
    if changed:
        raise SweepError(
            f"the plan, the engine, the code or the policy of {', '.join(changed)} was changed "
            "while it was measured, so that does not count; put it back and run this again"
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """What every point needs: the sweep, where files go, and what drives coroutines."""

    said: Sweep
    folder: Path
    drive: Drive

    def base(self, capacity_rps: float) -> Plan:
        """Return the plan with the SLOs of an engine of that capacity."""
        plan = plans.load(plans.ROOT / self.said.plan)
        wanted = self.said.slo_rps
        return plan if wanted is None else plan.stretched(wanted / capacity_rps)

    def place(self, point: Point, tries: int) -> Path:
        """Return where the files of a try lie."""
        return self.folder / point.key / f"try-{tries + 1}"

    def knows(self, policy: str, place: Path) -> None:
        """Let the router of a stack begin with what was learnt under its policy.

        At first that is the engine's speed, as it was seen while capacity was measured.
        """
        kept = self.folder / f"learnt-{policy}.json"
        copied(kept if kept.exists() else self.folder / LEARNT, place / LEARNT)

    def learns(self, policy: str | None, place: Path) -> None:
        """Keep what the router of a stack has learnt, for the next under its policy, or for all.

        Only a sound point teaches: a second try would else meet requests that it knows.
        """
        kept = self.folder / (LEARNT if policy is None else f"learnt-{policy}.json")
        copied(place / LEARNS, kept)

    def plan(self, base: Plan, stack: Running, **changed: object) -> Plan:
        """Return a plan against a stack, with the cloud's prices and the sweep's durations."""
        usual = {
            "grpc": stack.grpc,
            "http": stack.http,
            "duration_s": self.said.point_s,
            "warmup_s": self.said.warmup_s,
            "prices": {**base.prices, **self.said.cloud.prices},
        }
        return base.changed(**{**usual, **changed})


@dataclass(frozen=True, slots=True)
class _Around:
    """What was seen of the engine before and after a point."""

    before: Probed
    after: Probed
    same_triton: bool


def _pin(said: Sweep) -> None:
    """Put this process, which generates the load, on the core of the router and the stub."""
    wanted = {said.cores.engine, said.cores.rest}
    missing = wanted - os.sched_getaffinity(0)
    if missing:
        raise SweepError(
            f"this machine gives us no CPU {min(missing)}; set cores: to two of "
            f"{sorted(os.sched_getaffinity(0))}"
        )
    os.sched_setaffinity(0, {said.cores.rest})


def _settled(work: _Work, tell: Callable[[str], None]) -> Row:
    """Return the capacity: the first whose probe held still, else the one that moved least."""
    found: list[Row] = []
    for _ in range(work.said.probe.reruns + 1):
        found.append(_capacity(work, tell))
        change = found[-1].get("probe_moved", 0.0)
        if change <= work.said.probe.may_move:
            return found[-1]
        tell(f"  the probe moved {change:.0%}")
    return min(found, key=lambda one: one["probe_moved"])


def _capacity(work: _Work, tell: Callable[[str], None]) -> Row:
    """Measure 1x: requests/s of a saturated closed loop under the capacity's policy."""
    said, drive = work.said, work.drive
    asked = said.capacity
    if asked.requests_per_s is not None:
        return {"policy": asked.policy, "requests_per_s": asked.requests_per_s, "given": True}
    tell(f"measuring capacity: {asked.clients} clients for {asked.for_s:g} s under {asked.policy}")
    one = said.by_name[asked.policy]
    try:
        base = work.base(said.slo_rps or 1.0)
        place = work.folder / "capacity"
        place.mkdir(parents=True, exist_ok=True)
        copied(work.folder / LEARNT, place / LEARNT)
        with running(said, one, promises(base), place) as stack:
            before = drive(probe(stack.triton, said.probe, 0))
            plan = work.plan(base, stack, name="capacity", duration_s=asked.for_s, warmup_s=0.0)
            plan = plans_at(plan, POOL_RPS)
            ran = drive(fill(plan, clients=asked.clients, duration_s=asked.for_s))
            after = drive(probe(stack.triton, said.probe, 1))
            if not stack.same_triton():
                raise SweepError("capacity: Triton restarted meanwhile; run the same command again")
    except (StackError, ProbeError) as error:
        raise SweepError(f"capacity: {error}") from error
    work.learns(None, place)
    # The first part fills the batch; what ends after the time ends in a batch that empties.
    from_s = asked.for_s * FILLING
    within = [o for o in ran.outcomes if from_s <= o.scheduled_s + o.e2e_ms / 1000 < asked.for_s]
    served = [o for o in within if o.ended in SERVED]
    if not served:
        raise SweepError(f"capacity: nothing was answered in time; the first: {ran.outcomes[:1]}")
    lost = [o for o in within if o.ended not in SERVED]
    if len(lost) > LOST_MOST * len(within):
        raise SweepError(
            f"capacity: {len(lost)} of {len(within)} requests were not served, so this is no "
            f"engine's capacity; the first: {lost[0].code} {lost[0].reason}".rstrip()
        )
    return {
        "policy": one.name,
        "requests_per_s": len(served) / (asked.for_s - from_s),
        "tokens_per_s": sum(o.completion_tokens for o in served) / (asked.for_s - from_s),
        "clients": asked.clients,
        "not_served": sum(o.ended not in SERVED for o in ran.outcomes),
        "probe_before": asdict(before),
        "probe_after": asdict(after),
        "probe_moved": round(moved(before, after), 3),
    }


def _point(work: _Work, point: Point, capacity_rps: float, tries: int) -> Row:
    """Run one point and return its row."""
    said, drive = work.said, work.drive
    place, base = work.place(point, tries), work.base(capacity_rps)
    one = said.by_name[point.policy]
    place.mkdir(parents=True, exist_ok=True)
    work.knows(one.name, place)
    with running(said, one, promises(base), place, point.luck) as stack:
        # The same seed for all policies of a repetition: they are offered the same requests.
        plan = work.plan(base, stack, name=point.key, seed=point.repetition)
        plan = plans_at(plan, point.load * capacity_rps)
        before = drive(probe(stack.triton, said.probe, _seed(point, 0)))
        time.sleep(SETTLE_S)
        ran = drive(run(plan))
        after = drive(probe(stack.triton, said.probe, _seed(point, 1)))
        around = _Around(before, after, stack.same_triton())
    made = report(plan, ran.outcomes, loop_late_ms=ran.loop_late_ms, busy=ran.busy)
    write(made, place)
    warm_up = [o for o in ran.outcomes if o.scheduled_s < plan.warmup_s]
    lines = "".join(json.dumps(to_json(o)) + "\n" for o in warm_up)
    (place / WARM_UP).write_text(lines, encoding="utf-8")
    return {**_row(point, made), "try": tries + 1, **_soundness(said, made, around)}


def plans_at(plan: Plan, rate_rps: float) -> Plan:
    """Return the plan with its arrivals scaled so that their mean rate is as given."""
    shape = plans.shape_of(plan)
    if shape is not None:
        return plan.times(rate_rps / (shape.requests / shape.duration_s))
    said = plan.model_dump()["arrivals"]
    return plan.changed(arrivals={**said, "speed": None, "rate_rps": rate_rps})


def _seed(point: Point, which: int) -> int:
    return sum(map(ord, point.key)) * 1000 + point.repetition * 10 + which


def _soundness(said: Sweep, made: Report, around: _Around) -> Row:
    """Return the probes, and why the point does not count, where it does not."""
    change = moved(around.before, around.after)
    generator = made.body["generator"]
    reasons = {
        f"the probe moved {change:.0%}": change > said.probe.may_move,
        "the generator fell behind": not generator["kept_up"],
        "Triton restarted": not around.same_triton,
        "nothing was offered": not made.body["offered"],
    }
    return {
        "void": [why for why, holds in reasons.items() if holds],
        "send_lag_p99_ms": generator["send_lag_ms"]["p99"],
        "probe_before": asdict(around.before),
        "probe_after": asdict(around.after),
        "probe_moved": round(change, 3),
    }


def _row(point: Point, made: Report) -> Row:
    """Return what a point gave."""
    body = made.body
    ended = body["ended"]
    return {
        "point": point.key,
        "policy": point.policy,
        "load": point.load,
        "repetition": point.repetition,
        "offered": body["offered"],
        "offered_rps": round(body["offered_rps"], 4),
        "attainment": body["attainment"],
        "attainment_by_class": {n: one["attainment"] for n, one in body["classes"].items()},
        "attainment_by_mode": {n: one["attainment"] for n, one in body["modes"].items()},
        "goodput_rps": round(body["goodput_rps"], 4),
        "spilled": body["spilled"],
        "spill_usd": round(body["usd"], 6),
        "refused": ended.get("refused", 0),
        "failed": ended.get("failed", 0) + ended.get("unfinished", 0),
        "ttft_ms": body["ttft_ms"],
        "tpot_ms": body["tpot_ms"],
        "e2e_ms": body["e2e_ms"],
        "prediction": body["prediction"],
    }


def _told(row: Row) -> str:
    attainment = "-" if row["attainment"] is None else f"{row['attainment']:.2%}"
    void = f"; VOID: {', '.join(row['void'])}" if row["void"] else ""
    return (
        f"  {row['offered']} offered, attainment {attainment}, goodput "
        f"{row['goodput_rps']:.2f}/s, spilled {row['spilled']}, refused {row['refused']}{void}"
    )
