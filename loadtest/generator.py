"""The open-loop generator: every request is begun at its moment, whatever became of the others.

It runs on asyncio in a process without gevent. Locust patches sockets, threads and time for
greenlets; grpc.aio does not run under that, and gRPC's own gevent mode polls from one thread and
would put its delays into what is measured. So Locust starts this generator as a process of its
own and is fed its lines (`locustfile.py`), and `python -m loadtest run` needs no Locust at all.

A generator that cannot keep up measures itself. So each request's lag behind its moment is kept,
with the lateness of the loop and the share of time that it was busy; a run in which one of them
is over its bound has failed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from loadtest.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from loadtest.outcome import Ended, Outcome
    from loadtest.work import Job

TICK_S = 0.02
MISSED_MOST = 1000
"""A stall counts as so many missed ticks at most: twenty seconds."""
LEAD_S = 0.5
"""From the generator's start to the run's zero: the first request must not be late already."""


BUSY_S, BUSY_LEAST_S = 5.0, 1.0
"""How long the stretches are of which the busiest is told: a spike drowns in a whole run's mean.
The last one counts if it is no shorter than the second."""


class _Load:
    """How busy this process is, stretch by stretch, since now.

    Answers that wait to be read make no request late: only this tells that a generator drowns.
    """

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._begin()

    async def watch(self) -> None:
        """Close a stretch every `BUSY_S`, until cancelled."""
        while True:
            await asyncio.sleep(BUSY_S)
            self._shares.append(self._share())
            self._begin()

    def most(self) -> float:
        """Return the busiest stretch's share."""
        whole = time.monotonic() - self._began[0] >= BUSY_LEAST_S or not self._shares
        return max([*self._shares, *([self._share()] if whole else [])])

    def _begin(self) -> None:
        self._began = time.monotonic(), time.process_time(), time.thread_time()

    def _share(self) -> float:
        """Return the share of the loop's thread, or of all its cores, whichever is more."""
        wall_s, process_s, thread_s = self._began
        took_s = max(time.monotonic() - wall_s, 1e-9)
        cores = len(os.sched_getaffinity(0))
        of_cores = (time.process_time() - process_s) / cores
        return max(of_cores, time.thread_time() - thread_s) / took_s


class Sender(Protocol):
    """Carries one job out through one door and tells what became of it."""

    def send(self, job: Job, clock: RunClock) -> Coroutine[Any, Any, Outcome]:
        """Return the outcome; every failure that a service can cause is one, not an exception.

        So is a cancellation, with what came until then.
        """
        ...


class RunClock:
    """Seconds since the run's zero, by the system's clock: a uvloop's own counts milliseconds."""

    def __init__(self, zero_s: float) -> None:
        self._zero_s = zero_s

    def now_s(self) -> float:
        """Return the seconds since zero."""
        return time.monotonic() - self._zero_s


@dataclass(slots=True)
class Ran:
    """What a run gave: outcomes in the order of their ends, and how late the loop was."""

    outcomes: list[Outcome] = field(default_factory=list)
    loop_late_ms: list[float] = field(default_factory=list)
    busy: float = 0.0
    """The share of its time that this process computed in the busiest five seconds: of its thread,
    or of its cores."""
    stopped_s: float | None = None
    """When somebody stopped it; what was due later was not offered."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a run begins and ends: `drain_s` after `duration_s`, or where `stop` is set.

    `zero_s` is a monotonic moment; None is a little from now.
    """

    duration_s: float
    drain_s: float
    zero_s: float | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)


async def offer(
    jobs: Sequence[Job],
    senders: Mapping[str, Sender],
    span: Span,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> Ran:
    """Offer every job at its moment, wait for the answers, and return all outcomes.

    What is open when the run ends is cut off as `unfinished`. A sender that raises has failed
    that one request.

    Args:
        jobs: In order of their moments.
        senders: One for each door that the jobs name.
        span: When it begins and ends.
        tell: Called with each outcome as it happens; what it raises ends the run.
    """
    clock = RunClock(time.monotonic() + LEAD_S if span.zero_s is None else span.zero_s)
    open_ = _Open(senders, clock, tell, span.stop)
    ran = Ran(open_.outcomes)
    ticking = asyncio.create_task(_tick(ran.loop_late_ms))
    load = _Load()
    watching = asyncio.create_task(load.watch())
    await _unless(span.stop, _arrive(jobs, open_, clock, span.duration_s))
    watching.cancel()
    ran.busy = load.most()
    await _unless(span.stop, open_.drain(span.drain_s))
    ran.stopped_s = max(clock.now_s(), 0.0) if span.stop.is_set() else None
    await open_.cut_off()
    ticking.cancel()
    if open_.broken is not None:
        raise open_.broken
    return ran


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work until it is done or the run is stopped."""
    going, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({going, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        going.cancel()
        stopping.cancel()
    with suppress(asyncio.CancelledError):
        await going


async def _arrive(jobs: Sequence[Job], open_: _Open, clock: RunClock, duration_s: float) -> None:
    for job in jobs:
        await _until(job.at_s, clock)
        open_.begin(job)
    await _until(duration_s, clock)


async def _until(at_s: float, clock: RunClock) -> None:
    """Wait for a moment; a timer may go off a little early, a request never."""
    while (wait_s := at_s - clock.now_s()) > 0:  # noqa: ASYNC110 - no event tells the time
        await asyncio.sleep(wait_s)


class _Open:
    """The requests that are open, and the outcomes of those that were."""

    def __init__(
        self,
        senders: Mapping[str, Sender],
        clock: RunClock,
        tell: Callable[[Outcome], None],
        stop: asyncio.Event,
    ) -> None:
        self._senders = senders
        self._clock = clock
        self._tell = tell
        self._stop = stop
        self._tasks: dict[asyncio.Task[Outcome], Job] = {}
        self.outcomes: list[Outcome] = []
        self.broken: Exception | None = None
        """What `tell` raised: nobody hears any more."""

    def begin(self, job: Job) -> None:
        """Send a request."""
        task = asyncio.create_task(self._senders[job.door].send(job, self._clock))
        self._tasks[task] = job
        task.add_done_callback(self._close)

    async def drain(self, drain_s: float) -> None:
        """Wait for what is open; a slow reader's pauses are its own and do not count."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=drain_s)
        await self.cut_off([task for task, job in self._tasks.items() if not job.pauses_s])
        if self._tasks:
            longest_s = max(job.pauses_s for job in self._tasks.values())
            await asyncio.wait(set(self._tasks), timeout=longest_s)

    async def cut_off(self, tasks: Sequence[asyncio.Task[Outcome]] | None = None) -> None:
        """Cancel these or all; each is an outcome all the same."""
        left = list(self._tasks if tasks is None else tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _close(self, task: asyncio.Task[Outcome]) -> None:
        job = self._tasks.pop(task)
        if task.cancelled():
            outcome = self._lost(job, "unfinished", "UNFINISHED")
        elif (error := task.exception()) is not None:
            outcome = self._lost(job, "failed", type(error).__name__, str(error))
        else:
            outcome = task.result()
        self.outcomes.append(outcome)
        try:
            self._tell(outcome)
        except Exception as error:  # noqa: BLE001 - it is raised at the end of the run, which is now
            self.broken = self.broken or error
            self._stop.set()

    def _lost(self, job: Job, ended: Ended, code: str, reason: str = "") -> Outcome:
        """Return the outcome of a request whose sender told none."""
        return replace(Watch(job, self._clock).outcome(ended, code, reason), sent_s=job.at_s)


async def _tick(late_ms: list[float]) -> None:
    """Note how late the loop wakes a task that asked for every `TICK_S`."""
    due_s = time.monotonic() + TICK_S
    while True:
        await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
        late_ms += ticks_late_ms(time.monotonic() - due_s)
        due_s = time.monotonic() + TICK_S


def ticks_late_ms(late_s: float) -> list[float]:
    """Return how late each tick was, of the one that woke so late and those that it made miss.

    A stall of a second is no single sample: it was there for fifty ticks, later ones less late.
    """
    late_s = max(late_s, 0.0)
    missed = min(int(late_s / TICK_S), MISSED_MOST)
    return [(late_s - n * TICK_S) * 1000 for n in range(missed + 1)]


async def saturate(
    jobs: Sequence[Job], senders: dict[str, Sender], *, clients: int, duration_s: float
) -> Ran:
    """Run a closed loop: each client asks again when answered. It finds capacity, no latency.

    Jobs are taken in order and again from the first when they run out.
    """
    clock = RunClock(time.monotonic())
    ran = Ran()
    supply: Iterator[Job] = itertools.cycle(jobs)

    async def client() -> None:
        while clock.now_s() < duration_s:
            job = replace(next(supply), at_s=clock.now_s())
            ran.outcomes.append(await senders[job.door].send(job, clock))
            if ran.outcomes[-1].ended == "unfinished":
                return  # cancelled, which a sender does not tell otherwise

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return ran
