"""What is wrong with a policy: a value with a path into the document, and a sentence."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `key` says that the path's last step itself is meant.

    `unknown` is the name that was not found, so that its own fault, told elsewhere, can
    silence this one; `suggestion` is what was probably meant; `other` is what it clashes with;
    `within` is a line and a column of the text at that path, counted from one.
    """

    path: Path
    message: str
    suggestion: str | None = None
    key: bool = False
    unknown: str | None = None
    other: Path | None = None
    within: tuple[int, int] | None = None


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, or None."""
    return next(iter(difflib.get_close_matches(name[:128], list(known), n=1)), None)


def unknown(
    path: Path, kind: str, name: str, known: Iterable[str], *, key: bool = False
) -> Finding:
    """Return the finding for a name that does not exist."""
    known = tuple(known)
    suggestion = near(name, known)
    listed = "" if suggestion or not known else f"; known: {', '.join(known)}"
    return Finding(path, f"unknown {kind} {name}{listed}", suggestion, key=key, unknown=name)
