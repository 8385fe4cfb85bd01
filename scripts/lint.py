"""Run every check, go on after a failure, and exit 1 naming those that failed or are missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("mypy", "scripts"),
    ("lint-imports",),
    ("hadolint", "Dockerfile.triton"),
    ("python", "scripts/proto.py", "--check"),
)


def passes(check: tuple[str, ...]) -> bool:
    """Run one check with the environment's own tool and print what it says."""
    print(f"== {' '.join(check)}", flush=True)
    tool = shutil.which(check[0], path=str(ROOT / ".venv" / "bin"))
    if tool is None:
        print(f"{check[0]} is missing from .venv. Mend it: make venv", file=sys.stderr)
        return False
    modules = {**os.environ, "MYPYPATH": str(ROOT / "scripts")}
    return subprocess.call([tool, *check[1:]], cwd=ROOT, env=modules) == 0  # noqa: S603


failed = [" ".join(check) for check in CHECKS if not passes(check)]
if failed:
    sys.exit(f"make lint: failed: {'; '.join(failed)}")
print("make lint: all passed")
