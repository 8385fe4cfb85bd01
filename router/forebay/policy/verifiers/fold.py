"""Text as a matcher should see it: look-alikes made plain, what cannot be seen left out.

The folded view is ASCII bytes, so one byte of it is one step of a pattern. `Folded.origin`
leads back from each byte to the character it came from, because spans and releases are of
the text itself. A character that resembles nothing in ASCII becomes `OPAQUE`: no pattern
contains it, so it ends whatever stood before it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from forebay.policy.regex import without_towers

if TYPE_CHECKING:
    from collections.abc import Callable

OPAQUE = b"\x01"

_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
"""Blank letters; format characters (Cf) and combining marks (Mn, Me) are invisible by kind."""

_ALIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝӏАВЕКМНОРСТУХІЈЅԌ"  # noqa: RUF001 - to tell them apart is their purpose
    "οανρικΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
    "ıɡ⁄∕∶ː。․‚−",  # noqa: RUF001
    "aeopcyxijshdqwlABEKMHOPCTYXIJSGoavpikABEZHIKMNOPTYXig//::..,-",
)
"""Letters and signs of other scripts that a reader takes for ASCII ones (Unicode UTS 39)."""


@dataclass(frozen=True, slots=True)
class Folded:
    """`view` as ASCII; `origin[i]` is the character that byte `i` came from, None if `i` itself."""

    view: bytes
    origin: list[int] | None
    length: int

    def index(self, at: int) -> int:
        """Return the character behind byte `at`; the text's length behind the last byte."""
        if self.origin is None:
            return at
        return self.origin[at] if at < len(self.origin) else self.length

    def start(self, at: int) -> int:
        """Return the first byte of the character that byte `at` belongs to."""
        if self.origin is not None and at < len(self.origin):
            while at and self.origin[at - 1] == self.origin[at]:
                at -= 1
        return at

    def after(self, at: int) -> int:
        """Return the first byte, from `at` on, of another character than that of `at - 1`."""
        if self.origin is not None:
            while 0 < at < len(self.origin) and self.origin[at - 1] == self.origin[at]:
                at += 1
        return at


def fold(text: str) -> Folded:
    """Return the view of a text."""
    if text.isascii():
        return Folded(text.encode("ascii"), None, len(text))
    parts = [fold_character(character) for character in text]
    origin = [at for at, part in enumerate(parts) for _ in part]
    return Folded(b"".join(parts), origin, len(text))


def seen(text: str) -> tuple[str, ...]:
    """Return what a reader sees in a text that is not plain ASCII; nothing where it is.

    Once without what is invisible, and once more with its look-alikes made plain: a word of
    another script is found in the first, one disguised in another script in the second.
    """
    if text.isascii():
        return ()
    visible = unicodedata.normalize("NFC", without_towers(text.translate(_VISIBLE)))
    return visible, text.translate(_PLAIN)


class _Made(dict[int, str]):
    """A table for `str.translate` that makes its entries as they are asked for."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self._make = make

    def __missing__(self, code: int) -> str:
        made = self._make(chr(code))
        if len(self) < _MADE_MAX:
            self[code] = made
        return made


_MADE_MAX = 8192


def _visible(character: str) -> str:
    unseen = unicodedata.category(character) == "Cf" or character in _INVISIBLE
    return "" if unseen else character


def _plain(character: str) -> str:
    alike = fold_character(character)
    return character if alike == OPAQUE else alike.decode("ascii")


_VISIBLE, _PLAIN = _Made(_visible), _Made(_plain)


@lru_cache(maxsize=8192)
def fold_character(character: str) -> bytes:
    """Return what one character looks like: ASCII, nothing, or `OPAQUE`."""
    if character.isascii():
        return character.encode("ascii")
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or character in _INVISIBLE:
        return b""
    if category == "Zs":
        return b" "
    if category == "Pd":
        return b"-"
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return b"%d" % digit
    plain = "".join(
        part
        for part in unicodedata.normalize("NFKD", character).translate(_ALIKE)
        if unicodedata.category(part) not in ("Mn", "Me")
    )
    return plain.encode("ascii") if plain and plain.isascii() else OPAQUE
