r"""Escapes as the characters they stand for, so that `ann\u0040x.org` reads as it will.

What a client takes out of an answer is the string behind its escapes; so that is what has to
be looked at. Several backslashes count as one: JSON within a JSON string is escaped twice. Before
punctuation a backslash says nothing, as in Markdown's `ann\_smith@x.org`.
"""

from __future__ import annotations

import re

LENGTH_MAX = 26
"""Characters of the longest escape: two halves of a pair, eight backslashes each."""

_ESCAPE = re.compile(
    r"\\{1,8}(?:u[dD][89abAB][0-9a-fA-F]{2}\\{1,8}u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u[0-9a-fA-F]{4}|[bfnrt!-/:-@\[\]^_`{-~])"
)
_BEGUN = re.compile(
    r"\\{1,8}(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\{1,8}(?:u[0-9a-fA-F]{0,3})?)?))?\Z"
)
_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def pieces(text: str, *, final: bool) -> tuple[list[tuple[str, str]], str]:
    """Return a text as (what is meant, what is written), and the escape its end has begun.

    Args:
        text: Plain text between escapes comes in one piece, each escape in its own.
        final: Nothing follows, so that nothing is left over.
    """
    made: list[tuple[str, str]] = []
    at = 0
    while (slash := text.find("\\", at)) >= 0:
        if slash > at:
            made.append((text[at:slash], text[at:slash]))
        if not final and _BEGUN.match(text, slash):
            return made, text[slash:]
        found = _ESCAPE.match(text, slash)
        written = found.group() if found else "\\"
        made.append((_meant(written) if found else "\\", written))
        at = slash + len(written)
    if at < len(text):
        made.append((text[at:], text[at:]))
    return made, ""


def _meant(escape: str) -> str:
    """Return the one character that an escape stands for."""
    body = escape.lstrip("\\")
    if body[0] != "u":
        return _SHORT.get(body, body)
    code = int(body[1:5], 16)
    if len(body) > 5:  # noqa: PLR2004 - u and four digits: another half follows
        code = 0x10000 + ((code - 0xD800) << 10) + (int(body[-4:], 16) - 0xDC00)
    return chr(code)
