"""Fill an environment with pip."""

import sys
from pathlib import Path

from stage import run

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--no-deps")


def install_lock(folder: Path, lock: Path, *, keep: bool) -> None:
    """Install a lock's packages, hashes checked; into a new environment unless `keep`."""
    if not keep:
        run(f"{folder.name}: new", [sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(folder / "bin" / "python"), *PIP, "--progress-bar", "off", "--retries", "2"]
    count = sum(line[0].isalpha() for line in lock.open())
    run(f"{folder.name}: {count} packages", [*pip, "--require-hashes", "-r", str(lock)])


def install_project(folder: Path, root: Path) -> None:
    """Install the checkout itself, editable."""
    python = str(folder / "bin" / "python")
    run(f"{folder.name}: the project", [python, *PIP, "--no-build-isolation", "-e", str(root)])
