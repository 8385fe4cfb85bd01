"""Say what an environment holds: its interpreter and the hash of each lock installed in it."""

import hashlib
import json
import platform
import sys
from pathlib import Path

NAME = "forebay-stamp.json"
PYTHON = f"{sys.executable} {platform.python_version()}"
Stamp = dict[str, str]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wanted(root: Path, locks: tuple[str, ...]) -> Stamp:
    """Return what a current environment's stamp says of these locks."""
    return {name: digest(root / "requirements" / f"{name}.txt") for name in locks}


def read(root: Path, folder: Path) -> Stamp:
    """Return an environment's stamp; {} if it was interrupted or any part of it is out of date."""
    if not (folder / NAME).exists():
        return {}
    found: Stamp = json.loads((folder / NAME).read_text())
    locks = tuple(found.keys() & {"run", "dev", "triton"})
    return (
        found if found["python"] == PYTHON and wanted(root, locks).items() <= found.items() else {}
    )


def write(folder: Path, stamp: Stamp) -> None:
    """Write the stamp whole or not at all."""
    (folder / f"{NAME}.new").write_text(json.dumps(stamp | {"python": PYTHON}))
    (folder / f"{NAME}.new").rename(folder / NAME)
