"""How much JSON a body is, told from its bytes: parsing costs by the value, not by the byte."""

from __future__ import annotations

from forebay.errors import TooLarge

MAX_VALUES = 32_768
"""Values in one body. A long text is one value; what is inside texts does not count."""

_QUOTE, _MARKS = b'"', (b",", b"[", b"{")


def sparse(raw: bytes) -> bytes:
    """Return the body unchanged if it holds no more values than one request can mean.

    Raises:
        TooLarge: it holds more; to parse them would keep all other requests waiting.
    """
    if _marks(raw) > MAX_VALUES:
        bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
        names_and_texts = bare.count(_QUOTE) // 2
        if (
            names_and_texts > 2 * MAX_VALUES
            or _marks(b"".join(bare.split(_QUOTE)[::2])) > MAX_VALUES
        ):
            raise TooLarge(f"the body holds more than {MAX_VALUES} JSON values")
    return raw


def _marks(raw: bytes) -> int:
    """Return how many values there are at most: each stands behind a mark or at the start."""
    return sum(raw.count(mark) for mark in _MARKS)
