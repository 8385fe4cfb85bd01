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
import gc
import itertools
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from loadtest.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadtest.work import Job

TICK_S = 0.02
LEAD_S = 0.5
"""From the generator's start to the run's zero: the first request must not be late already."""


class _Load:
    """How busy this process is since now.

    Answers that wait to be read make no request late: only this tells that a generator drowns.
    """

    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time(), time.thread_time()

    def share(self) -> float:
        """Return the share of the loop's thread, or of all its cores, whichever is more."""
        wall_s, process_s, thread_s = self._began
        took_s = max(time.monotonic() - wall_s, 1e-9)
        cores = len(os.sched_getaffinity(0))
        of_cores = (time.process_time() - process_s) / cores
        return max(of_cores, time.thread_time() - thread_s) / took_s


class Sender(Protocol):
    """Carries one job out through one door and tells what became of it."""

    async def send(self, job: Job, clock: RunClock) -> Outcome:
        """Return the outcome; every failure that a service can cause is one, not an exception."""
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
    elapsed_s: float = 0.0
    busy: float = 0.0
    """The share of the run's time that this process computed: of its thread, or of its cores."""


async def offer(
    jobs: Sequence[Job],
    senders: dict[str, Sender],
    *,
    duration_s: float,
    drain_s: float,
    tell: Callable[[Outcome], None] = lambda _: None,
) -> Ran:
    """Offer every job at its moment, wait for the answers, and return all outcomes.

    Args:
        jobs: In order of their moments.
        senders: One for each door that the jobs name.
        duration_s: The run's length; afterwards answers are waited for.
        drain_s: How long, before the rest is cut off as `unfinished`.
        tell: Called with each outcome as it happens.
    """
    clock = RunClock(time.monotonic() + LEAD_S)
    ran = Ran()
    open_: dict[asyncio.Task[None], Job] = {}
    broken: list[BaseException] = []
    gc.collect()
    gc.freeze()  # thousands of prompts are not looked through again while times are taken
    ticking = asyncio.create_task(_tick(ran.loop_late_ms))
    load = _Load()

    async def one(job: Job) -> None:
        outcome = await senders[job.door].send(job, clock)
        ran.outcomes.append(outcome)
        tell(outcome)

    def close(task: asyncio.Task[None]) -> None:
        open_.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            broken.append(error)

    for job in jobs:
        await _until(job.at_s, clock)
        task = asyncio.create_task(one(job))
        open_[task] = job
        task.add_done_callback(close)
    await asyncio.sleep(max(duration_s - clock.now_s(), 0.0))
    ran.busy = load.share()
    if open_:
        await asyncio.wait(set(open_), timeout=drain_s)
    for outcome in await _cut_off(open_, clock):
        ran.outcomes.append(outcome)
        tell(outcome)
    ticking.cancel()
    gc.unfreeze()
    ran.elapsed_s = clock.now_s()
    if broken:
        raise broken[0]
    return ran


async def _until(at_s: float, clock: RunClock) -> None:
    """Wait for a moment; a timer may go off a little early, a request never."""
    while (wait_s := at_s - clock.now_s()) > 0:  # noqa: ASYNC110 - no event tells the time
        await asyncio.sleep(wait_s)


async def _cut_off(open_: dict[asyncio.Task[None], Job], clock: RunClock) -> list[Outcome]:
    """Cancel what is still open; each is an outcome all the same."""
    left = dict(open_)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    now_s = clock.now_s()
    return [
        ended(job, sent_s=job.at_s, e2e_ms=(now_s - job.at_s) * 1000)
        for (task, job) in left.items()
        if task.cancelled()
    ]


def ended(job: Job, *, sent_s: float, e2e_ms: float) -> Outcome:
    """Return the outcome of a job that the run's end cut off."""
    return Outcome(
        job.number,
        job.klass,
        job.door,
        job.at_s,
        sent_s,
        "unfinished",
        mode=job.labels.get("mode", ""),
        tier=job.labels.get("tier", ""),
        code="UNFINISHED",
        e2e_ms=e2e_ms,
        slow=job.gap_s > 0,
    )


async def _tick(late_ms: list[float]) -> None:
    """Note how late the loop wakes a task that asked for every `TICK_S`."""
    while True:
        due_s = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        late_ms.append(max(time.monotonic() - due_s, 0.0) * 1000)


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

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    ran.elapsed_s = clock.now_s()
    return ran
