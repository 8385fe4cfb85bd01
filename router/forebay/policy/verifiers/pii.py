r"""`pii_redaction`: names what is personal by type, and lets nothing of it through.

It holds back only what may still become an entity, mostly the last word; never more than
`HELD_MAX` characters. Cut a stream anywhere: what leaves is the same.

An escape counts as one character, and leaves or goes as a whole: an answer in JSON hides nothing
in its strings, and they are strings still when it was redacted. Whether `\n` is a line's end or
the `n` of `CORP\nina` nobody can tell, so such a text is read in every way and what any reading
finds is redacted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from forebay.policy.verifiers.entities import ANY, BEFORE, KINDS, REACH, UNDECIDED, Kind, Tail
from forebay.policy.verifiers.escapes import LENGTH_MAX, pieces
from forebay.policy.verifiers.fold import OPAQUE, Folded, fold, fold_character
from forebay.values import Release, Verdict

NAME = "pii_redaction"

_INVISIBLE_MAX = 4
"""Invisible characters kept in a row after one that an entity could hold; more are dropped,
or any number of them would have to be held, and an entity could be hidden between them."""

HELD_MAX = REACH * (1 + _INVISIBLE_MAX) + LENGTH_MAX
"""The most characters held back; without escapes and invisible ones it is `REACH`."""

_Literal = Callable[[str], bool]
"""Given an escape without its backslashes, return whether a reading takes it as it is written."""

_READINGS: tuple[_Literal, ...] = (
    lambda _: False,
    lambda body: len(body) == 1 and body not in '"/bfnrt',
    lambda body: body in ("b", "f", "n", "r", "t"),
    lambda _: True,
)
"""JSON within Markdown; JSON alone; text with paths and Markdown; text as it is written."""


@dataclass(slots=True)
class _Span:
    """An entity, in places of kept characters; `end` moves while its tail runs on."""

    name: str
    start: int
    end: int


class Redactor:
    """Redacts one answer, fed in pieces of any size.

    `_escapes` are the held characters that were written as escapes; `_dropped` and `_longer` are
    places, in kept characters, before which the text as fed was longer by one each. There is one
    reading until the first escape: all would say the same.
    """

    name = NAME
    release = Release.WINDOW

    def __init__(self) -> None:
        self._begun = ""
        self._held = ""
        self._escapes: dict[int, str] = {}
        self._base = 0
        self._readings = [_Reading(_READINGS[0])]
        self._found: list[_Span] = []
        self._dropped: list[int] = []
        self._longer: list[int] = []
        self._invisible: int | None = None
        self._invisible_as_written: int | None = None

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
        counts = sorted(self.counts().items())
        reason = ", ".join(f"{count} {name}" for name, count in counts)
        spans = tuple(self._fed(span.start, span.end) for span in self._found)
        return rest, Verdict(NAME, "redacted", reason, spans)

    def counts(self) -> Counter[str]:
        """Return how often each type was found so far."""
        return Counter(span.name for span in self._found)

    def _fed(self, start: int, end: int) -> tuple[int, int]:
        """Return where kept characters stood in the text as it was fed."""
        first = start + bisect_right(self._dropped, start) + bisect_right(self._longer, start)
        last = end + bisect_right(self._dropped, end - 1) + bisect_right(self._longer, end)
        return first, last

    def _read(self, text: str, *, final: bool) -> None:
        """Add text to what is held, an escape as the one character that it stands for."""
        text = self._begun + text
        if "\\" not in text:
            self._held += self._thinned(text, escape=False)
            return
        read, self._begun = pieces(text, final=final)
        for meant, written in read:
            escape = len(written) > len(meant)
            kept = self._thinned(meant, escape=escape)
            if escape:
                self._fork()
                at = self._base + len(self._held)
                more = len(written) - len(meant)
                if kept:
                    self._escapes[at] = written
                    self._longer += [at + 1] * more
                else:
                    self._dropped += [at] * more
            self._held += kept

    def _fork(self) -> None:
        """Read in all ways from here on."""
        if len(self._readings) == 1:
            first = self._readings[0]
            self._readings += [first.forked(literal) for literal in _READINGS[1:]]

    def _thinned(self, text: str, *, escape: bool) -> str:
        """Return the text without the invisible characters that are too many in a row.

        They are counted in both readings of an escape: for one that takes it as written, it is
        never invisible.
        """
        if text.isascii():
            if text:
                self._invisible = self._invisible_as_written = 0
            return text
        kept: list[str] = []
        for character in text:
            seen = fold_character(character)
            as_written = self._invisible_as_written
            self._invisible = _run(self._invisible, seen)
            self._invisible_as_written = 0 if escape else _run(as_written, seen)
            run = max(self._invisible or 0, self._invisible_as_written or 0)
            if run > _INVISIBLE_MAX:
                self._invisible_as_written = as_written if escape else self._invisible_as_written
                self._dropped.append(self._base + len(self._held) + len(kept))
            else:
                kept.append(character)
        return "".join(kept)

    def _advance(self, *, final: bool) -> str:
        """Return what every reading has decided of the held text, and keep the rest."""
        for reading in self._readings:
            reading.advance(self._folded(reading), final=final)
        done = min(reading.done for reading in self._readings)
        out = self._merged(done)
        for reading in self._readings:
            reading.forget(done)
        self._held = self._held[done - self._base :]
        self._base = done
        self._escapes = {at: said for at, said in self._escapes.items() if at >= done}
        return out

    def _merged(self, done: int) -> str:
        """Return the text up to `done` with what any reading found redacted, overlaps as one."""
        spans = sorted(
            (span for reading in self._readings for span in reading.spans),
            key=lambda span: span.start,
        )
        out: list[str] = []
        for span in spans:
            last = self._found[-1] if self._found else None
            if last is not None and span.start < last.end:
                last.end = max(last.end, span.end)
            elif span.start < done:
                out += (self._written(self._kept_from(), span.start), f"[{span.name}]")
                self._found.append(replace(span))
        out.append(self._written(self._kept_from(), done))
        return "".join(out)

    def _kept_from(self) -> int:
        """Return the first place held that the last entity does not cover."""
        return max(self._base, self._found[-1].end) if self._found else self._base

    def _written(self, first: int, last: int) -> str:
        """Return held characters as they were written."""
        if not self._escapes:
            return self._held[max(0, first - self._base) : max(0, last - self._base)]
        places = range(first, last)
        return "".join(self._escapes.get(at, self._held[at - self._base]) for at in places)

    def _folded(self, reading: _Reading) -> Folded:
        """Return the view of what a reading has not decided yet."""
        text = self._held[reading.done - self._base :]
        literal = {
            at - reading.done: said
            for at, said in self._escapes.items()
            if at >= reading.done and reading.literal(said.lstrip("\\"))
        }
        if not literal:
            return fold(text)
        parts = [
            literal[at].encode("ascii") if at in literal else fold_character(character)
            for at, character in enumerate(text)
        ]
        origin = [at for at, part in enumerate(parts) for _ in part]
        return Folded(b"".join(parts), origin, len(text))


def _run(invisible: int | None, seen: bytes) -> int | None:
    """Return how many characters in a row are invisible; None after what ends any entity."""
    if seen:
        return None if seen == OPAQUE else 0
    return None if invisible is None else invisible + 1


@dataclass(slots=True)
class _Reading:
    """One way to read the text: `done` kept characters are decided, `spans` may cover more."""

    literal: _Literal
    done: int = 0
    spans: list[_Span] = field(default_factory=list)
    _before: bytes = b""
    _open: Tail | None = None

    def forked(self, literal: _Literal) -> _Reading:
        """Return another reading that goes on from here."""
        return replace(self, literal=literal, spans=[replace(span) for span in self.spans])

    def forget(self, upto: int) -> None:
        """Drop the entities that end before `upto`, unless one may still run on."""
        last = self.spans[-1:] if self._open else []
        self.spans = [span for span in self.spans if span.end > upto or span in last]

    def advance(self, folded: Folded, *, final: bool) -> None:
        """Decide what can be decided of the text from `done` on."""
        look = _Look(folded, self._before)
        base = self.done
        while self._run_on(look, base, final=final) and self._find(look, base, final=final):
            pass
        self._before = look.view[max(0, look.at - BEFORE) : look.at]
        self.done = base + look.done

    def _run_on(self, look: _Look, base: int, *, final: bool) -> bool:
        """Swallow the rest of an entity that is open; return False if it may go on after here."""
        if self._open is None:
            return True
        end, closed = self._open.run(look.view, look.at, final=final)
        if end > look.at:
            look.skip(end)
            self.spans[-1].end = base + look.done
        if closed:
            self._open = None
        return closed

    def _find(self, look: _Look, base: int, *, final: bool) -> bool:
        """Pass over the text up to the next entity and take that; return False if none is here."""
        stop = len(look.view) if final else look.undecided()
        found = look.nearest(stop)
        if found is None:
            look.release(stop)
            return False
        kind, start, end = found
        look.release(start)
        first = base + look.done
        look.skip(end)
        self.spans.append(_Span(kind.name, first, base + look.done))
        self._open = kind.tail
        return True


class _Look:
    """One look through the held text: `at` in the view, `done` in the text."""

    def __init__(self, folded: Folded, before: bytes) -> None:
        self._folded = folded
        self._first = len(before)
        self.view = before + self._folded.view
        self.at = self._first
        self.done = 0
        self._kinds = [KINDS[rank] for rank in ANY.matching(self.view)]
        self._next: dict[Kind, tuple[int, int]] = {}

    def release(self, upto: int) -> None:
        """Pass over the text that lies before a place of the view."""
        self.at, self.done = upto, max(self.done, self._folded.index(upto - self._first))

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
