"""Run venv and pip quietly: a line a stage, a sign of life, the log's tail where one fails."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from pip_failure import explain

STARTED, SIGN_OF_LIFE_S = time.monotonic(), 10.0
LOG = Path(__file__).resolve().parent.parent / ".forebay" / "setup.log"


def run(stage: str, command: list[str]) -> None:
    """Run one stage; exit 1 with the log's tail, what happened and what mends it."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as sink:
        nothing = subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=nothing, stdout=sink, stderr=sink)  # noqa: S603
    line, code = stage, None
    while code is None:
        print(f"[{time.monotonic() - STARTED:4.0f} s] {line}", flush=True)
        line = "  still at it"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(SIGN_OF_LIFE_S)
    if code:
        what, remedy = explain(text := LOG.read_text(errors="replace"))
        tail = "\n".join(line for line in text.splitlines()[-6:] if line)
        sys.exit(f"{tail}\n\n{what}\n  Mend it: {remedy}\n  The whole log: {LOG}")
