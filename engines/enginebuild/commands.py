"""Running a tool of a build: its whole output in a log, its last lines in the error."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from enginebuild.errors import BuildError

# PR_SET_PDEATHSIG is 1 and SIGKILL 9. The parent may have died before it was set.
_TIE_TO_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
os.getppid() == int(sys.argv[1]) or sys.exit("the build is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""
LAST_LINES = 12
TOLD_EVERY_S = 2.0
LINE_SHOWN = 120
LAST_GRACE_S = 10.0


def run(
    words: Sequence[str], log: Path, tell: Callable[[str], None], limit_s: float | None = None
) -> None:
    """Run a command to its end; it dies with this process, however that ends.

    Args:
        words: The program and its arguments.
        log: Appended to: the command line, then everything the program writes.
        tell: Told a line of the output now and then.
        limit_s: When it is stopped, in seconds after its start.

    Raises:
        BuildError: if the program is missing, fails, or is stopped.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {' '.join(words)}\n")
        stream.flush()
        try:
            child = _started(words)
        except OSError as error:
            raise BuildError(f"{words[0]} cannot be run: {error.strerror}") from error
        with child, _stopped_after(child, limit_s) as late:
            _follow(child, stream.write, last, tell)
    if late.is_set():
        raise BuildError(
            f"{Path(words[0]).name} took longer than {limit_s:.0f} s and was stopped; all of it "
            f"in {log}\n" + "\n".join(last)
        )
    if child.returncode:
        raise BuildError(
            f"{Path(words[0]).name} ended with status {child.returncode}; all of it in {log}\n"
            + "\n".join(last)
        )


def environment() -> dict[str, str]:
    """Return this process's environment without PYTHONPATH.

    In the container that variable holds this project's packages, and TensorRT-LLM's tools must
    see the container's own.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _started(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command behind a few lines that tie it to this process and then become it.

    Untied, a killed build leaves a compiler that writes on into a resumed one's folder. A
    `preexec_fn` would do it in one process less, but it forks, and a fork of a process in which
    gRPC runs may abort.
    """
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])
    tie = (sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()))
    return subprocess.Popen(  # noqa: S603 - the plan's own argv, no shell
        [*tie, *words],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


@contextmanager
def _stopped_after(
    child: subprocess.Popen[str], limit_s: float | None
) -> Iterator[threading.Event]:
    """Stop a child that is late, and tell so by the event; politely first, for mpirun's ranks."""
    late = threading.Event()
    timers = [
        threading.Timer(after_s, _signal, (child, number, late))
        for number, after_s in (
            ((signal.SIGTERM, limit_s), (signal.SIGKILL, limit_s + LAST_GRACE_S)) if limit_s else ()
        )
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        for timer in timers:
            timer.cancel()


def _signal(child: subprocess.Popen[str], number: signal.Signals, late: threading.Event) -> None:
    late.set()
    child.send_signal(number)


def _follow(
    child: subprocess.Popen[str],
    write: Callable[[str], int],
    last: deque[str],
    tell: Callable[[str], None],
) -> None:
    assert child.stdout is not None, "opened with a pipe"
    told_s = time.monotonic()
    for line in child.stdout:
        write(line)
        last.append(line.rstrip())
        if time.monotonic() - told_s >= TOLD_EVERY_S:
            told_s = time.monotonic()
            tell(f"  {line.rstrip()[:LINE_SHOWN]}")
