"""Build .venv (lock run or dev) and .venv-triton (lock triton), each only where it is not current.

The stamp is removed before pip starts and written after it: what an interruption left is built
again, from pip's cache.
"""

import sys
from pathlib import Path

import installation
import stamps

ROOT = Path(__file__).resolve().parent.parent
FOLDER = {"run": ".venv", "dev": ".venv", "triton": ".venv-triton"}
COVERS = {"run": ("run",), "dev": ("dev", "run"), "triton": ("triton",)}


def bring_up(lock: str) -> None:
    """Install one lock, and into .venv the project, unless the stamp says it is there."""
    folder = ROOT / FOLDER[lock]
    wanted = stamps.wanted(ROOT, COVERS[lock])
    project = {} if lock == "triton" else {"project": stamps.digest(ROOT / "pyproject.toml")}
    found = stamps.read(ROOT, folder)
    if found.items() >= (wanted | project).items():
        return
    (folder / stamps.NAME).unlink(missing_ok=True)
    if not found.items() >= wanted.items():
        lock_file = ROOT / "requirements" / f"{lock}.txt"
        installation.install_lock(folder, lock_file, keep=bool(found))
    if project:
        installation.install_project(folder, ROOT)
    stamps.write(folder, found | wanted | project)


try:
    for asked in sys.argv[1:]:
        bring_up(asked)
except KeyboardInterrupt:
    sys.exit("interrupted; the same command goes on from what was downloaded")
