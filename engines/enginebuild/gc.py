"""What builds left behind that nothing refers to any more."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebuild.install import STAGING
from enginebuild.spec import SPECS, known
from enginebuild.steps import PART


@dataclass(frozen=True, slots=True)
class Leftover:
    """One folder that may go, what it holds in bytes, and why nothing needs it."""

    path: Path
    size: int
    why: str

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path)


def leftovers(repository: Path, scratch: Path, specs: Path = SPECS) -> tuple[Leftover, ...]:
    """Return what may be removed, sorted: never an engine in its place, nor a running build's.

    Folders of finished steps are kept: a build that is called again goes on from them. They go
    with `forget`, or when their build is specified no more.
    """
    found = [*_staged(repository), *_benches(scratch, set(known("builds", specs)))]
    return tuple(sorted(found, key=lambda one: one.path))


def forget(scratch: Path) -> tuple[Leftover, ...]:
    """Return the scratch folders of every build that is not running now."""
    benches = sorted(path for path in scratch.glob("*") if path.is_dir())
    return tuple(
        Leftover(path, _size(path), "scratch of a build that does not run")
        for path in benches
        if not _held(path)
    )


def _staged(repository: Path) -> Iterator[Leftover]:
    for path in repository.glob(f"*/*/{STAGING}*"):
        if path.is_dir() and not _held(path.parent):
            yield Leftover(path, _size(path), "staged by a build that was killed")


def _benches(scratch: Path, builds: set[str]) -> Iterator[Leftover]:
    for bench in scratch.glob("*"):
        if not bench.is_dir() or _held(bench):
            continue
        if bench.name not in builds:
            yield Leftover(bench, _size(bench), f"no build is named {bench.name}")
            continue
        for part in bench.glob(f"*{PART}"):
            yield Leftover(part, _size(part), "half of a step that was killed")


def _held(folder: Path) -> bool:
    """Say whether a build holds that folder now."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
