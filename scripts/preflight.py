"""Check the machine, pick its Python, then hand over to environment.py under that Python.

Plain stdlib, any python3 from 3.6 on: it must be able to say that the interpreter is too old.
Usage: preflight.py [LOCK ...], the interpreter wanted in $PYTHON.
"""

import os
import sys
from pathlib import Path

import distribution
import interpreter
import machine

SCRIPTS = Path(__file__).resolve().parent
FRESH_GIB, WARM_GIB = 3.0, 0.5


def stop(what: "str", remedy: "str") -> "None":
    """Say what is wrong and what mends it, and exit."""
    sys.exit(what + "\n  Mend it: " + remedy)


def main() -> "None":
    """Exit 1 with one sentence and the command that mends it, or become environment.py."""
    fresh = not (SCRIPTS.parent / ".venv-triton" / "forebay-stamp.json").exists()
    what, remedy = machine.fault(SCRIPTS.parent, FRESH_GIB if fresh else WARM_GIB)
    if what:
        stop(what, remedy)
    python, what = interpreter.choose(os.environ.get("PYTHON", ""))
    if what:
        stop(
            "Python 3.11 or 3.12 with venv and libpython is needed; " + what + ".",
            distribution.python_remedy(),
        )
    os.execv(python, [python, str(SCRIPTS / "environment.py"), *sys.argv[1:]])  # noqa: S606


main()
