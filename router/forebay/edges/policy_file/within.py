"""Where in the file a place within a text stands that YAML quotes, folds or writes as a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forebay.edges.policy_file.reader import Mark


def within(file: str, mark: Mark, place: tuple[int, int]) -> Mark:
    """Return the line and column of a place within a scalar, or the scalar's own where unsure.

    Args:
        file: The whole file.
        mark: Where the scalar begins: its first character, its quote or its `|`.
        place: A line and a column of its text, counted from one.
    """
    lines = file.split("\n")
    line, column = mark
    told, wanted = place
    begins = lines[line - 1][column - 1 : column] if line <= len(lines) else ""
    if begins in ("|", ">"):
        # A folded block's lines are one text; only where it begins is sure.
        if begins == ">" or line + told > len(lines):
            return (line + 1, 1) if line < len(lines) else mark
        indent = len(lines[line]) - len(lines[line].lstrip())
        return line + told, indent + wanted
    if told > 1:
        return mark
    if begins in ("'", '"'):
        column = _behind(lines[line - 1], column, wanted - 1, quote=begins)
    else:
        column += wanted - 1
    return (line, column) if column <= len(lines[line - 1]) + 1 else mark


def _behind(line: str, quoted: int, count: int, *, quote: str) -> int:
    """Return the column behind so many characters of a quoted text; an escape counts as one."""
    at = quoted
    for _ in range(count):
        pair = line[at : at + 2]
        at += 2 if pair == "''" or (quote == '"' and pair[:1] == "\\") else 1
    return at + 1
