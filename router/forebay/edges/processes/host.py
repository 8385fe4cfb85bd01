"""The host's side: processes started, watched and counted, and their logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from pathlib import Path

    from forebay.edges.processes.program import Start

LOG_MOST_BYTES = 20 * 2**20
LOG_TAIL_LINES = 15

# PR_SET_PDEATHSIG is 1. The parent may have died before it was set: then nobody is left to tell.
_TIE_TO_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
os.getppid() == int(sys.argv[2]) or sys.exit("the supervisor is gone")
os.execvp(sys.argv[3], sys.argv[3:])
"""


def rotate(log: Path) -> int:
    """Make room in a log before a start and return its size in bytes: where that start begins.

    Past its bound the log becomes `.1`; the former `.1` goes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_MOST_BYTES:
        return size
    log.replace(log.with_name(log.name + ".1"))
    return 0


def bound(log: Path) -> None:
    """Keep a log that is being written within its bound: its content moves to `.1`.

    The writer holds the file open for appending, so it is emptied and not replaced; a line
    written in that moment may be lost. On a full disk the content goes, and that is what helps.
    A log that cannot be emptied stays as it is: no reason to stop watching its writer.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size <= LOG_MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)


def log_tail(log: Path, begin: int = 0) -> str:
    """Return a log's last lines from a byte on, for a person who must see why a start failed."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


async def spawn(start: Start, log: Path) -> Process:
    """Start a program in its own session, tied to this process: it gets SIGTERM when we die."""
    tie = (start.python, "-I", "-S", "-c", _TIE_TO_PARENT)
    with log.open("ab") as sink:
        return await asyncio.create_subprocess_exec(
            *tie,
            str(int(signal.SIGTERM)),
            str(os.getpid()),
            *start.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=dict(start.environment),
            start_new_session=True,
        )


async def ended(pid: int) -> None:
    """Return when the process is gone, a zombie included; it need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def workers(pid: int) -> set[int]:
    """Return the living child processes of a program."""
    try:
        children = psutil.Process(pid).children()
        return {one.pid for one in children if one.status() != psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return set()


def group(leader: int) -> list[int]:
    """Return the processes of a group; it outlives its leader until the last one is gone."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == leader:
                members.append(pid)
    return members
