"""The clairvoyant router: knows every length, every latency and the engines, and may try again.

It is a router as ours is one: it binds late, may not preempt, and its engines are the simulated
ones. What it knows is the future: which requests are better sent away at once. That set is found
by local search over whole runs: in each round, windows of the trace change a few of their
requests; a window keeps its change if it and the next one came out cheaper. The cost is the sum
of `Stage.charged_usd`: misses are charged too.

It is an upper bound of the best router's, a local optimum; `lp_bound` bounds it from below.
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush
from math import ceil, inf
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forebay.lab.engine_sim import Job, SimulatedEngine
    from forebay.lab.stage import Stage
    from forebay.values import Scrape

WINDOW_REQUESTS = 120
_LOOK = 6
_GUARD_S = 0.002
_SLOW_TPOT_S = 0.1
_FIRST_S = 1e6


class Hindsight:
    """Sends `away` to the cloud at once; the rest by earliest deadline, to the cloud if it must.

    A request that no engine can begin in time leaves at the last moment at which the cloud, whose
    latency it knows, still keeps the promise.
    """

    def __init__(self, away: Sequence[bool]) -> None:
        self._away = away
        self._queue: list[tuple[float, int, Job]] = []
        self._leaving: list[tuple[float, int, Job]] = []

    def arrived(self, stage: Stage, job: Job) -> None:
        """Send it away, or let it wait for an engine."""
        promise, fits = stage.promises[job.label], stage.engines[0].fits(job)
        if promise.may_spill and (self._away[job.number] or not fits):
            stage.spill(job)
            return
        if not fits:
            stage.refuse(job)
            return
        insort(self._queue, (_due_s(stage, job), job.number, job))
        if promise.may_spill:
            leave_s = max(stage.now_s, _last_moment_s(stage, job))
            heappush(self._leaving, (leave_s, job.number, job))
        self._pump(stage)

    def stepped(self, stage: Stage, replica: int) -> None:  # noqa: ARG002 - the port's own shape
        """Look who fits now."""
        if self._queue:
            self._pump(stage)

    def first_token(self, stage: Stage, job: Job) -> None:
        """Nothing is learnt: all is known."""

    def ended(self, stage: Stage, job: Job) -> None:  # noqa: ARG002 - the port's own shape
        """Look who fits now."""
        if self._queue:
            self._pump(stage)

    def failed(self, stage: Stage, job: Job) -> None:
        """Place it anew."""
        self.arrived(stage, job)

    def died(self, stage: Stage, replica: int) -> None:
        """`SimulatedEngine.alive` says it."""

    def scraped(self, stage: Stage, replica: int, scrape: Scrape) -> None:
        """Nothing is learnt: all is known."""

    def repriced(self, stage: Stage, factor: float) -> None:
        """Nothing is learnt: all is known."""

    def woken(self, stage: Stage) -> None:
        """Send away who cannot wait longer."""
        self._pump(stage)

    def _pump(self, stage: Stage) -> None:
        engines = [engine for engine in stage.engines if engine.alive]
        place = 0
        while place < min(_LOOK, len(self._queue)):
            job = self._queue[place][2]
            idlest = sorted(engines, key=_load)
            if idlest[0].backlog_tokens() >= idlest[0].limits.step_tokens:
                break
            best = next((one for one in idlest if self._takes(stage, one, job)), None)
            if best is not None:
                del self._queue[place]
                stage.submit(job, stage.engines.index(best))
            elif stage.promises[job.label].may_spill:
                place += 1
            else:
                break  # who may not leave is not overtaken
        while self._leaving and self._leaving[0][0] <= stage.now_s:
            job = heappop(self._leaving)[2]
            entry = (_due_s(stage, job), job.number, job)
            if job.where is None and entry in self._queue:
                self._queue.remove(entry)
                stage.spill(job)
        while self._leaving and self._leaving[0][2].where is not None:
            heappop(self._leaving)
        if self._leaving:
            stage.wake(self, self._leaving[0][0])

    def _takes(self, stage: Stage, engine: SimulatedEngine, job: Job) -> bool:
        """Return whether it could join at the engine's next step, and would come in time."""
        if engine.waiting or engine.backlog_tokens() >= engine.limits.step_tokens:
            return False
        return engine.has_room(job) and self._in_time(stage, engine, job)

    def _in_time(self, stage: Stage, engine: SimulatedEngine, job: Job) -> bool:
        """Return whether its first token would come in time; who may not leave goes anyway."""
        promise = stage.promises[job.label]
        if not promise.may_spill or promise.ttft_s == inf:
            return True
        ahead = engine.backlog_tokens() + job.input_tokens
        room = engine.limits.step_tokens - engine.running
        steps = ceil(ahead / room)
        begin_s = engine.step_ends_s(stage.now_s)
        step_s = engine.law.step_s(engine.running, engine.kv_used_tokens(), ahead // steps)
        return begin_s + steps * step_s * engine.factor <= job.arrived_s + promise.ttft_s


def _load(engine: SimulatedEngine) -> tuple[int, int]:
    return engine.backlog_tokens(), engine.running


def _due_s(stage: Stage, job: Job) -> float:
    """Return when its first token is due; who may not leave comes before all others."""
    promise = stage.promises[job.label]
    if not promise.may_spill:
        return job.arrived_s - _FIRST_S
    decode_s = _SLOW_TPOT_S * job.output_tokens
    return job.arrived_s + min(promise.ttft_s, promise.e2e_s - decode_s)


def _last_moment_s(stage: Stage, job: Job) -> float:
    """Return until when the cloud would still keep the promise."""
    promise, cloud = stage.promises[job.label], stage.cloud
    ttft_s = cloud.ttft_s[job.number]
    whole_s = ttft_s + cloud.tpot_s * (job.output_tokens - 1)
    left_s = min(promise.ttft_s - ttft_s, promise.e2e_s - whole_s)
    return job.arrived_s + left_s - _GUARD_S


def cheapest_usd(
    play: Callable[[Sequence[bool]], tuple[Stage, Sequence[Job]]],
    starts: Sequence[Sequence[bool]],
    rounds: int,
    seed: int,
) -> float:
    """Return what the best set found is charged (`Stage.charged_usd`).

    Args:
        play: Plays the row with a set sent away.
        starts: Sets to begin with; the best of them is improved.
        rounds: Rounds of search; each plays the row twice.
        seed: Decides what is tried.
    """
    rng = np.random.default_rng((seed, 104729))
    tried = [(*_charged(*play(start)), list(start)) for start in starts]
    costs, density, away = min(tried, key=lambda one: one[0].sum())
    best = float(costs.sum())
    windows = len(costs)
    for number in range(rounds):
        changed, touched = list(away), [w for w in range(windows) if w % 3 == number % 3]
        for window in touched:
            _change(changed, window, density, rng)
        new_costs, _ = _charged(*play(changed))
        for window in touched:
            upto = min(window + 2, windows)
            if new_costs[window:upto].sum() >= costs[window:upto].sum():
                span = slice(window * WINDOW_REQUESTS, (window + 1) * WINDOW_REQUESTS)
                changed[span] = away[span]
        merged, new_density = _charged(*play(changed))
        if merged.sum() <= best:
            best, costs, density, away = float(merged.sum()), merged, new_density, changed
    return best


def _charged(stage: Stage, jobs: Sequence[Job]) -> tuple[np.ndarray, np.ndarray]:
    """Return each window's cost, and each request's dollars per engine second, signed by side.

    A density is positive where the request went to the cloud and negative where it stayed.
    """
    floor = stage.engines[0].law.floors()[0]
    costs, density = np.zeros(len(jobs)), np.zeros(len(jobs))
    for job in jobs:
        costs[job.number] = stage.charged_usd(job)
        decoded = job.output_tokens - 1
        work_s = job.input_tokens * floor.d_s + decoded * (
            floor.b_s + floor.c_s * (job.input_tokens + decoded / 2)
        )
        if stage.promises[job.label].may_spill and not job.foreign:
            usd_per_s = stage.cloud.usd(job) / max(work_s, 1e-9)
            density[job.number] = usd_per_s if job.where == -1 else -usd_per_s
    starts = np.arange(0, len(jobs), WINDOW_REQUESTS)
    return np.add.reduceat(costs, starts), density


def _change(away: list[bool], window: int, density: np.ndarray, rng: np.random.Generator) -> None:
    """Bring a few of a window's dearest back, and send a few of its cheapest away."""
    first = window * WINDOW_REQUESTS
    span = density[first : first + WINDOW_REQUESTS]
    outside, inside = np.flatnonzero(span > 0), np.flatnonzero(span < 0)
    back, out = rng.integers(0, 4), rng.integers(0, 4)
    for members, count, side in ((outside, back, False), (inside, out, True)):
        if members.size and count:
            weight = np.abs(span[members])
            weight = weight**3 if not side else weight**-3.0
            size = min(int(count), members.size)
            chosen = rng.choice(members, size, replace=False, p=weight / weight.sum())
            for one in chosen:
                away[first + int(one)] = side
