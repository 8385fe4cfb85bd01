"""Putting what was built where Triton looks, so that no reader ever sees half of it."""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AT_FDCWD = -100
RENAME_EXCHANGE = 2
STAGING = ".engine-staging-"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` against other builds of this machine; a killed holder lets go."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of `beside`; remove it, and older ones, after.

    Call it under `alone`: leftovers of killed builds are swept here.
    """
    for leftover in beside.parent.glob(f"{STAGING}*"):
        shutil.rmtree(leftover)
    folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=beside.parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def swap_in(staged: Path, target: Path) -> None:
    """Make `staged` appear at `target` by one rename; what was there is left at `staged`.

    Where the file system cannot exchange two names, the old engine is moved aside first, and
    for that moment `target` is absent; it is never half an engine.
    """
    if not target.exists():
        staged.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(
        AT_FDCWD, os.fsencode(staged), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE
    )
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        raise OSError(code, os.strerror(code), str(target))
    aside = staged.with_name(f"{staged.name}-old")
    target.rename(aside)
    staged.rename(target)
    shutil.rmtree(aside)


def put_text(path: Path, text: str) -> bool:
    """Write `text` at `path` by atomic replace; return False if it was there already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        fresh.chmod(0o644)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return True
