"""Keep a program serving: start it, judge it by its answers, restart it, stop it, leave nothing.

A program is serving when its probe succeeds, not when its process exists. Its life is over when
its process or a child of it is gone, or when several probes in a row failed: then the whole group
is killed, what it left is swept, and it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from forebay.edges.processes.host import bound, ended, group, log_tail, rotate, spawn, workers
from forebay.edges.processes.program import Phase, Program, State
from forebay.errors import SettingsError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Coroutine

BACK_OFF_FIRST_S = 0.5
BACK_OFF_MOST_S = 30.0
STEADY_S = 60.0
"""A life that served this long clears the back-off."""

START_POLL_S = 0.1
WORKER_POLL_S = 1.0
KILL_S = 5.0
"""A kill needs no consent, but the kernel takes its time to give memory back."""

BLAME_S = 0.05
"""Workers die with their server: where both are gone, the server is the one to name."""

PROBE_EVERY_S = 5.0
STRIKES = 3
"""So many probes in a row must fail before a program that runs is taken for broken."""


def back_off_s(failures: int) -> float:
    """Return the wait before the next start after `failures` lives that ended: none at first."""
    if failures <= 1:
        return 0.0
    return min(BACK_OFF_MOST_S, BACK_OFF_FIRST_S * 2.0 ** min(failures - 2, 16))


async def first_reason(*watches: Coroutine[None, None, str]) -> str:
    """Return what the first of the watches to finish says, and cancel the others."""
    tasks = [asyncio.ensure_future(watch) for watch in watches]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Supervisor:
    """Keeps one program serving until `run` is cancelled."""

    def __init__(self, program: Program, on_state: Callable[[State], None]) -> None:
        self._program = program
        self._on_state = on_state
        self._served = False
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Give up the grace: what is still running is killed now."""
        self._hurried.set()

    async def run(self) -> None:
        """Start the program and start it again whenever it ends; when cancelled, stop it.

        Raises:
            SettingsError: the program ended, or ran out of time, before it ever served.
        """
        failures = 0
        while True:
            began_s = time.monotonic()
            why = await self._one_life()
            failures = 1 if time.monotonic() - began_s > STEADY_S else failures + 1
            wait_s = back_off_s(failures)
            self._tell("restarting", f"{why}; again in {wait_s:g} s")
            await asyncio.sleep(wait_s)

    async def _one_life(self) -> str:
        """Return why the program ended; nothing of it is left then."""
        self._program.sweep()
        start = self._program.prepare()
        log_begin = rotate(self._program.log)
        child = await spawn(start, self._program.log)
        self._tell("starting", pid=child.pid)
        stopping = True
        try:
            why = await first_reason(
                self._exited(child), self._served_or_late(), self._worker_lost(child)
            )
            if not why:
                self._served = True
                self._tell("serving", pid=child.pid)
                why = await self._end_of_service(child)
            elif not self._served:
                raise SettingsError(_first_start_failed(self._program, why, log_begin))
            stopping = False
            return why
        finally:
            await self._end(child, gently=stopping)

    async def _exited(self, child: Process) -> str:
        code = await child.wait()
        return f"it ended with {_exit_words(code)}"

    async def _served_or_late(self) -> str:
        """Return "" once a probe succeeds, or why the start took too long."""
        why, until_s = "", time.monotonic() + self._program.start_s
        while time.monotonic() < until_s:
            why = await self._program.ailment()
            if not why:
                return ""
            await asyncio.sleep(START_POLL_S)
        return f"it did not serve within {self._program.start_s:g} s ({why})"

    async def _worker_lost(self, child: Process) -> str:
        """Return which worker died before the program served; one that starts without it hangs."""
        known: set[int] = set()
        while True:
            await asyncio.sleep(WORKER_POLL_S)
            alive = workers(child.pid)
            if lost := known - alive:
                await asyncio.sleep(BLAME_S)
                return f"its worker process {min(lost)} died"
            known = alive

    async def _end_of_service(self, child: Process) -> str:
        """Return what ended the serving program: its exit, a child's, or failing probes."""
        watches = [self._child_gone(pid) for pid in workers(child.pid)]
        return await first_reason(self._exited(child), self._struck_out(), *watches)

    async def _child_gone(self, pid: int) -> str:
        await ended(pid)
        await asyncio.sleep(BLAME_S)
        return f"its worker process {pid} died"

    async def _struck_out(self) -> str:
        strikes, why = 0, ""
        while strikes < STRIKES:
            await asyncio.sleep(PROBE_EVERY_S)
            bound(self._program.log)
            why = await self._program.ailment()
            strikes = strikes + 1 if why else 0
        return f"{strikes} probes in a row failed ({why})"

    async def _end(self, child: Process, *, gently: bool) -> None:
        """Stop what is left of a life, kill its whole group, and sweep after it."""
        if gently and child.returncode is None:
            self._tell("stopping", pid=child.pid)
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await self._grace(child)
        left = group(child.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_S):
                await asyncio.gather(child.wait(), *map(ended, left))
        self._program.sweep()
        if gently:
            self._tell("stopped")

    async def _grace(self, child: Process) -> None:
        waits = {asyncio.ensure_future(child.wait()), asyncio.ensure_future(self._hurried.wait())}
        _, late = await asyncio.wait(
            waits, timeout=self._program.grace_s, return_when=asyncio.FIRST_COMPLETED
        )
        for task in late:
            task.cancel()

    def _tell(self, phase: Phase, detail: str = "", pid: int | None = None) -> None:
        self._on_state(State(self._program.name, phase, detail, pid))


def _exit_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _first_start_failed(program: Program, why: str, log_begin: int) -> str:
    tail = log_tail(program.log, log_begin)
    return f"{program.name} did not start: {why}. The end of {program.log}:\n{tail}"
