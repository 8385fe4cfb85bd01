"""`pii_redaction`: names what is personal by type, and lets nothing of it through.

It holds back only what may still become an entity, mostly the last word; never more than
`HELD_MAX` characters. Cut a stream anywhere: what leaves is the same.

An escape of JSON counts as the one character it stands for, and leaves or goes as a whole: an
answer in JSON hides nothing in its strings, and they are strings still when it was redacted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING

from forebay.policy.verifiers.entities import ANY, KINDS, REACH, UNDECIDED, Kind, Tail
from forebay.policy.verifiers.escapes import LENGTH_MAX, pieces
from forebay.policy.verifiers.fold import OPAQUE, fold, fold_character
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "pii_redaction"

_INVISIBLE_MAX = 4
"""Invisible characters kept in a row after one that an entity could hold; more are dropped,
or any number of them would have to be held, and an entity could be hidden between them."""

HELD_MAX = REACH * (1 + _INVISIBLE_MAX) + LENGTH_MAX
"""The most characters held back; without escapes and invisible ones it is `REACH`."""

_BEFORE = 2
"""Bytes before a place that may decide whether an entity starts there."""


class Redactor:
    """Redacts one answer, fed in pieces of any size.

    `_escapes` are the held characters that were written as escapes; `_dropped` and `_longer` are
    places, in kept characters, before which the text as fed was longer by one each.
    """

    name = NAME
    release = Release.WINDOW

    def __init__(self) -> None:
        self._begun = ""
        self._held = ""
        self._escapes: dict[int, str] = {}
        self._before = b""
        self._base = 0
        self._open: Tail | None = None
        self._found: list[tuple[str, int, int]] = []
        self._dropped: list[int] = []
        self._longer: list[int] = []
        self._invisible: int | None = None

    @property
    def held(self) -> int:
        """How many characters wait."""
        return len(self._held) + len(self._begun)

    def feed(self, text: str) -> str:
        """Return what may leave, entities replaced by their type in brackets."""
        self._read(text, final=False)
        return self._advance(final=False)

    def finish(self) -> tuple[str, Verdict]:
        """Return the rest, and the verdict with counts by type and spans of the text as fed."""
        self._read("", final=True)
        rest = self._advance(final=True)
        if not self._found:
            return rest, Verdict(NAME, "passed")
        counts = Counter(name for name, _, _ in self._found)
        reason = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        spans = tuple(self._fed(start, end) for _, start, end in self._found)
        return rest, Verdict(NAME, "redacted", reason, spans)

    def _fed(self, start: int, end: int) -> tuple[int, int]:
        """Return where kept characters stood in the text as it was fed."""
        first = start + bisect_right(self._dropped, start) + bisect_right(self._longer, start)
        last = end + bisect_right(self._dropped, end - 1) + bisect_right(self._longer, end)
        return first, last

    def _read(self, text: str, *, final: bool) -> None:
        """Add text to what is held, an escape as the one character that it stands for."""
        text = self._begun + text
        if "\\" not in text:
            self._held += self._thinned(text)
            return
        read, self._begun = pieces(text, final=final)
        for meant, written in read:
            kept = self._thinned(meant)
            if len(written) > len(meant):
                at = self._base + len(self._held)
                more = len(written) - len(meant)
                if kept:
                    self._escapes[at] = written
                    self._longer += [at + 1] * more
                else:
                    self._dropped += [at] * more
            self._held += kept

    def _thinned(self, text: str) -> str:
        """Return the text without the invisible characters that are too many in a row."""
        if text.isascii():
            self._invisible = 0 if text else self._invisible
            return text
        kept: list[str] = []
        for character in text:
            seen = fold_character(character)
            if seen:
                self._invisible = None if seen == OPAQUE else 0
            elif self._invisible is not None:
                self._invisible += 1
                if self._invisible > _INVISIBLE_MAX:
                    self._dropped.append(self._base + len(self._held) + len(kept))
                    continue
            kept.append(character)
        return "".join(kept)

    def _advance(self, *, final: bool) -> str:
        """Return what is decided of the held text, and keep the rest."""
        look = _Look(self._held, self._written, self._before)
        while self._run_on(look, final=final) and self._redact(look, final=final):
            pass
        self._before = look.view[max(0, look.at - _BEFORE) : look.at]
        self._held = self._held[look.done :]
        self._base += look.done
        self._escapes = {at: said for at, said in self._escapes.items() if at >= self._base}
        return "".join(look.out)

    def _written(self, first: int, last: int) -> str:
        """Return held characters as they were written."""
        if not self._escapes:
            return self._held[first:last]
        places = range(first, last)
        return "".join(self._escapes.get(self._base + at, self._held[at]) for at in places)

    def _run_on(self, look: _Look, *, final: bool) -> bool:
        """Swallow the rest of an entity that is open; return False if it may go on after here."""
        if self._open is None:
            return True
        end, closed = self._open.run(look.view, look.at, final=final)
        if end > look.at:
            look.skip(end)
            name, start, _ = self._found[-1]
            self._found[-1] = name, start, self._base + look.done
        if closed:
            self._open = None
        return closed

    def _redact(self, look: _Look, *, final: bool) -> bool:
        """Release the text up to the next entity and redact that; return False if none is here."""
        stop = len(look.view) if final else look.undecided()
        found = look.nearest(stop)
        if found is None:
            look.release(stop)
            return False
        kind, start, end = found
        look.release(start)
        first = self._base + look.done
        look.skip(end)
        look.out.append(f"[{kind.name}]")
        self._found.append((kind.name, first, self._base + look.done))
        self._open = kind.tail
        return True


class _Look:
    """One look through the held text: `at` in the view, `done` in the text, `out` for release."""

    def __init__(self, text: str, written: Callable[[int, int], str], before: bytes) -> None:
        self._written = written
        self._folded = fold(text)
        self._first = len(before)
        self.view = before + self._folded.view
        self.at = self._first
        self.done = 0
        self.out: list[str] = []
        self._kinds = [KINDS[rank] for rank in ANY.matching(self.view)]
        self._next: dict[Kind, tuple[int, int]] = {}

    def release(self, upto: int) -> None:
        """Let the text go that lies before a place of the view."""
        index = self._folded.index(upto - self._first)
        self.out.append(self._written(self.done, index))
        self.at, self.done = upto, max(self.done, index)

    def skip(self, end: int) -> None:
        """Leave out the text up to a place of the view, whole characters of it."""
        after = self._folded.after(end - self._first)
        self.at = self._first + after
        self.done = self._folded.index(after - 1) + 1

    def undecided(self) -> int:
        """Return the first place that more text could still make part of an entity."""
        found = UNDECIDED.find(self.view, max(self.at, len(self.view) - REACH))
        if found is None:
            return len(self.view)
        return max(self.at, self._first + self._folded.start(found[0] - self._first))

    def nearest(self, stop: int) -> tuple[Kind, int, int] | None:
        """Return the first entity that starts before `stop`, as its kind, start and end."""
        best: tuple[Kind, int, int] | None = None
        for kind in self._kinds:
            start, end = self._next.get(kind, (-1, 0))
            if start < self.at or (not end and start < stop):
                start, end = kind.following(self.view, self.at, stop)
                self._next[kind] = start, end
            if end and start < stop and (best is None or start < best[1]):
                best = kind, start, end
        return best
