"""`safety`: categories of harm in what is asked and in what is answered.

A deterministic classifier: patterns of acts with their objects, sentence by sentence, less the
settings that make them harmless (`harm`). It reads English, as written and as a reader sees it.
It is no judge of intent: `docs/verifiers.md` has its figures, what it misses and what it refuses
without need. A category is acted on only where a route or a target names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from forebay.policy.harm import ANSWERED, ASKED, CATEGORIES, HARMLESS, INSTRUCTS, STILL
from forebay.policy.regex import Pattern, utf8
from forebay.policy.verifiers.fold import seen
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forebay.policy.rules import Safety
    from forebay.values import Outcome

NAME = "safety"

SENTENCE_MAX = 600
"""Characters around a match that are read for its setting."""

_MATCHES_MAX = 200
"""Matches of one category looked at; beyond, it counts as found."""

_WITHHELD: tuple[tuple[str, Outcome], ...] = (("block", "failed"), ("human", "referred"))
"""What becomes of an answer under each act that withholds it, the strictest first."""

_BOUND = re.compile(rb"[.?!]\s|\n")
_STRAIGHT = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00a0": " "})


@dataclass(frozen=True, slots=True)
class Acts:
    """What a route does about each category: `block`, `flag` or `human`."""

    asked: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, "block"))
    answered: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, "block"))

    @classmethod
    def of(cls, said: Safety) -> Acts:
        """Return what a route says; a side that is not said blocks every category."""
        every = dict.fromkeys(CATEGORIES, "block")
        return cls(
            every if said.input is None else said.input,
            every if said.output is None else said.output,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """One category, and where in the text it was found."""

    category: str
    start: int
    end: int


class SafetyCheck:
    """Watches one answer; holds it back where a category found in it is to be blocked."""

    name = NAME

    def __init__(self, acts: Acts, asked: tuple[str, ...]) -> None:
        self._acts, self._asked = acts, asked
        self._text: list[str] = []
        waits = any(act != "flag" for act in acts.answered.values())
        self.release = Release.FINAL if waits else Release.TOKEN

    def feed(self, text: str) -> str:
        """Return the text itself."""
        if self._acts.answered:
            self._text.append(text)
        return text

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict on answer and request."""
        found = [
            one for one in answered("".join(self._text)) if one.category in self._acts.answered
        ]
        spans = tuple((one.start, one.end) for one in found)
        names = [one.category for one in found]
        for act, outcome in _WITHHELD:
            held = [name for name in names if self._acts.answered[name] == act]
            if held:
                return "", Verdict(NAME, outcome, f"the answer holds {_listed(held)}", spans)
        said = [f"the answer holds {_listed(names)}"] if names else []
        flagged = [name for name in self._asked if self._acts.asked.get(name) == "flag"]
        said = ([f"the request asks for {_listed(flagged)}"] if flagged else []) + said
        if said:
            return "", Verdict(NAME, "flagged", "; ".join(said), spans)
        return "", Verdict(NAME, "passed")


def barred(acts: Acts, asked: tuple[str, ...]) -> Verdict | None:
    """Return why a request may not be answered, or None."""
    blocked = [name for name in asked if acts.asked.get(name) == "block"]
    if not blocked:
        return None
    return Verdict(NAME, "failed", f"the request asks for {_listed(blocked)}")


def asked(text: str) -> tuple[Found, ...]:
    """Return the categories that a request asks for, each once, in the order of `CATEGORIES`."""
    return _found(text, _asked_patterns(), instructs=None)


def answered(text: str) -> tuple[Found, ...]:
    """Return the categories that an answer holds, each once, in the order of `CATEGORIES`."""
    outright = {one.category: one for one in _found(text, _answered_patterns(), instructs=None)}
    led = {one.category: one for one in _found(text, _asked_patterns(), instructs=_instructs())}
    both = {**led, **outright}
    return tuple(both[name] for name in CATEGORIES if name in both)


def _found(
    text: str, patterns: Mapping[str, Pattern], instructs: Pattern | None
) -> tuple[Found, ...]:
    found: dict[str, Found] = {}
    shown = text.translate(_STRAIGHT)
    for number, view in enumerate(dict.fromkeys((shown, *seen(shown)))):
        lowered = view.lower()
        # One byte a character, so that places are those of the text; no pattern needs others.
        read = lowered.encode("latin-1", "replace") if number == 0 else utf8(lowered)
        if number == 0 and len(lowered) != len(text):
            read = utf8(lowered)
        for name, pattern in patterns.items():
            if name not in found and (at := _first(read, pattern, instructs)) is not None:
                place = at if number == 0 and len(read) == len(text) else (0, len(text))
                found[name] = Found(name, *place)
    return tuple(found[name] for name in CATEGORIES if name in found)


def _first(text: bytes, pattern: Pattern, instructs: Pattern | None) -> tuple[int, int] | None:
    """Return the first match whose sentence is about harm."""
    for count, (start, end) in enumerate(_matches(text, pattern)):
        if count == _MATCHES_MAX:
            return start, end
        sentence = _sentence(text, start, end)
        if instructs is not None and instructs.find(sentence) is None:
            continue
        if _harmless().find(sentence) is None or _still().find(sentence) is not None:
            return start, end
    return None


def _matches(text: bytes, pattern: Pattern) -> Iterator[tuple[int, int]]:
    at = 0
    while (found := pattern.find(text, at)) is not None:
        yield found
        at = max(found[0] + 1, found[1])


def _sentence(text: bytes, start: int, end: int) -> bytes:
    """Return the sentence around a match, or as much of it as is read."""
    first = max(0, start - SENTENCE_MAX)
    bounds = [first, *(m.end() for m in _BOUND.finditer(text, first, start))]
    after = _BOUND.search(text, max(start, end - 1), end + SENTENCE_MAX)
    return text[bounds[-1] : after.start() + 1 if after else end + SENTENCE_MAX]


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _joined(patterns: tuple[str, ...]) -> Pattern:
    return Pattern("(?:" + ")|(?:".join(patterns) + ")")


@lru_cache(maxsize=1)
def _asked_patterns() -> Mapping[str, Pattern]:
    return {name: _joined(patterns) for name, patterns in ASKED.items()}


@lru_cache(maxsize=1)
def _answered_patterns() -> Mapping[str, Pattern]:
    return {name: _joined(patterns) for name, patterns in ANSWERED.items()}


@lru_cache(maxsize=1)
def _harmless() -> Pattern:
    return _joined(HARMLESS)


@lru_cache(maxsize=1)
def _still() -> Pattern:
    return _joined(STILL)


@lru_cache(maxsize=1)
def _instructs() -> Pattern:
    return Pattern(INSTRUCTS)
