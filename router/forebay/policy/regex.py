"""Regular expressions by RE2: time linear in the text, whoever wrote the pattern.

Texts are bytes, so that a prompt is encoded once and not once for each pattern.
"""

from __future__ import annotations

import re2  # type: ignore[import-untyped]


def _options(*, longest: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.longest_match = longest
    return options


class Pattern:
    """One compiled pattern; `longest` prefers the longest match over the first alternative."""

    __slots__ = ("_search",)

    def __init__(self, pattern: str, *, longest: bool = False) -> None:
        self._search = re2.compile(pattern, options=_options(longest=longest)).search

    def find(self, text: bytes, start: int = 0) -> tuple[int, int] | None:
        """Return the leftmost match at or after `start`; what stands before it is still seen."""
        found = self._search(text, start)
        if found is None:
            return None
        first, last = found.span()
        return first, last


class PatternSet:
    """Many patterns searched in one pass."""

    __slots__ = ("_match",)

    def __init__(self, patterns: tuple[str, ...]) -> None:
        together = re2.Set.SearchSet(_options(longest=False))
        for pattern in patterns:
            together.Add(pattern)
        together.Compile()
        self._match = together.Match

    def matching(self, text: bytes) -> list[int]:
        """Return the positions of those patterns that match somewhere in the text, in order."""
        return sorted(self._match(text) or ())


def utf8(text: str) -> bytes:
    """Return the text as patterns read it; half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace")


_MARKS = re2.compile(r"(\p{M}{4})\p{M}+")


def without_towers(text: str) -> str:
    """Return the text with no more than four combining marks in a row.

    Nobody writes more, and normalising a run of them takes time quadratic in its length.
    """
    capped: bytes = _MARKS.sub(rb"\1", utf8(text))
    return capped.decode("utf-8")


def any_word(words: tuple[str, ...]) -> str:
    """Return a pattern for any of these words, whole and in any case.

    RE2's own word boundary knows ASCII letters only, and would never find a word like `été`.
    """
    listed = "|".join(re2.escape(word) for word in words)
    return rf"(?i)(?:^|[^\pL\pN_])(?:{listed})(?:$|[^\pL\pN_])"


def fault(pattern: str) -> str | None:
    """Return why RE2 does not take a pattern, or None."""
    try:
        Pattern(pattern)
    except re2.error as error:
        said = error.args[0] if error.args else "it is not understood"
        return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return None
