"""`citations_required`: whether every claim cites a source that was given and supports it.

A citation is the id of a source in brackets, `[id]`, several as `[1][2]` or `[1, 2]`, or `(id)`
where that stands within a sentence. It cites for the words before it, back to the citation or
the sentence's beginning before it. Ids are compared exactly, letter for letter: one that only
looks like a given id is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.policy.verifiers.claims import Sentence, Words, bears_claim, sentences, words
from forebay.policy.verifiers.entities import KINDS
from forebay.policy.verifiers.support import unsupported
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forebay.policy.verifiers.support import Library, Text

NAME = "citations_required"

ANSWER_MAX = 32_768
"""The most characters of an answer that is read; a longer one fails."""

PARTS_MAX = 512
"""The most parts of sentences that are looked up; an answer with more fails."""

MARKS_MAX = 1024
"""The most opening brackets of an answer that is read."""

CITED_MAX = 16
"""The most sources that one part of a sentence may cite."""

_TOLD_MAX = 3
_SPANS_MAX = 64

_REDACTED = frozenset(kind.name for kind in KINDS)
_REDACTION = re.compile(rf"\[(?:{'|'.join(sorted(_REDACTED))})\]")
_NO_CITATION = frozenset({"sic", "x", "...", "\u2026", "emphasis added", "emphasis mine"})
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Part:
    """Some words of a sentence and the ids they cite; `unknown` where one was not given."""

    text: str
    said: Words
    span: tuple[int, int]
    cited: tuple[str, ...] = ()
    unknown: bool = False


class CitationCheck:
    """Reads an answer whole, and looks up what it cites."""

    name = NAME
    release = Release.FINAL

    def __init__(self, library: Library) -> None:
        self._texts = library.texts
        self._answer: list[str] = []

    def feed(self, text: str) -> str:
        """Return the text itself."""
        self._answer.append(text)
        return text

    def called(self, call: object) -> None:
        """Pass over a call: it asks, and claims nothing."""

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict."""
        return "", judged("".join(self._answer), self._texts)


def judged(answer: str, texts: Mapping[str, Text]) -> Verdict:
    """Return the verdict on a whole answer; its reason repeats nothing that the answer says."""
    if (fault := too_much(answer)) is not None:
        return Verdict(NAME, "failed", fault)
    told: list[str] = []
    spans: list[tuple[int, int]] = []
    claims = 0
    for read, (number, part) in enumerate(parts_of(answer, texts)):
        if read == PARTS_MAX:
            told.append(f"it has more than {PARTS_MAX} statements, and they are not all looked up")
            break
        fault = _fault(part, texts)
        claims += bool(part.cited) and _says(part.said)
        if fault is not None:
            told.append(f"sentence {number} {fault}")
            spans.append(part.span)
    return verdict_of(NAME, told, spans, claims=claims)


def too_much(answer: str) -> str | None:
    """Return why an answer is not read at all, or None."""
    if len(answer) > ANSWER_MAX:
        return f"the answer is longer than {ANSWER_MAX:,} characters"
    if answer.count("[") + answer.count("(") > MARKS_MAX:
        return f"the answer has more than {MARKS_MAX:,} brackets"
    return None


def verdict_of(name: str, told: list[str], spans: list[tuple[int, int]], *, claims: int) -> Verdict:
    """Return the verdict on an answer with so many claims, of which `told` says what is wrong."""
    if told:
        more = f"; and {len(told) - _TOLD_MAX} more" if len(told) > _TOLD_MAX else ""
        reason = "; ".join(told[:_TOLD_MAX]) + more
        return Verdict(name, "failed", reason, tuple(spans[:_SPANS_MAX]))
    if not claims:
        return Verdict(name, "not_applicable", "the answer claims nothing")
    return Verdict(name, "passed")


def parts_of(answer: str, known: Mapping[str, object]) -> Iterator[tuple[int, Part]]:
    """Yield the parts of an answer, each with its sentence's number, from one."""
    for number, sentence in enumerate(sentences(answer), 1):
        for part in parts(sentence, known):
            yield number, part


def _fault(part: Part, texts: Mapping[str, Text]) -> str | None:
    """Return what is wrong with one part, as the end of a sentence."""
    if part.unknown:
        return "cites a source that was not given"
    if len(part.cited) > CITED_MAX:
        return f"cites more than {CITED_MAX} sources for one claim"
    if not part.cited:
        return "cites no source" if bears_claim(part.text, part.said) else None
    why = unsupported(part.said, [texts[one] for one in part.cited])
    return None if why is None else f"is not supported by what it cites: {why}"


def parts(sentence: Sentence, known: Mapping[str, object]) -> Iterator[Part]:
    """Yield the parts of a sentence, each with the citations that follow it.

    Words that say too little to be cited for go with the next part, what stands behind the last
    citation with the last one.
    """
    made: list[Part] = []
    begun, text = sentence.span[0], ""
    cited: list[str] = []
    unknown = False
    at = begun
    for mark in sentence.marks:
        if mark.said in _REDACTED and mark.said not in known:
            continue
        ids = _ids(mark.said, known, square=mark.square, first=mark.span[0] == begun)
        if ids is None:
            continue
        between = sentence.text[at - sentence.span[0] : mark.span[0] - sentence.span[0]]
        if (cited or unknown) and _says(words(between)) and _says(words(text)):
            made.append(_part(text, (begun, at), cited, unknown=unknown))
            begun, text, cited, unknown = at, "", [], False
        text += between
        cited += (one for one in ids if one in known)
        unknown = unknown or any(one not in known for one in ids)
        at = mark.span[1]
    text += sentence.text[at - sentence.span[0] :]
    made.append(_part(text, (begun, sentence.span[1]), cited, unknown=unknown))
    yield from made


def _part(text: str, span: tuple[int, int], cited: list[str], *, unknown: bool) -> Part:
    """Return a part without what was redacted in it: nobody knows what it said."""
    text = _REDACTION.sub(" ", text)
    return Part(text, words(text), span, tuple(dict.fromkeys(cited)), unknown)


def _says(read: Words) -> bool:
    return len(read.said) > 1 or any(word.number for word in read.said)


def _ids(
    said: str, known: Mapping[str, object], *, square: bool, first: bool
) -> tuple[str, ...] | None:
    """Return the ids that a bracket cites, known or not; None where it is no citation."""
    if said in known:
        return (said,) if square or not first else None
    each = tuple(one.strip() for one in re.split("[,;]", said))
    if all(one in known for one in each):
        return each if square or not first else None
    if not square:
        return each if any(one in known for one in each) or _alike(said, known) else None
    if said in _NO_CITATION or not said:
        return None
    looks = " " not in said or any(one in known for one in each) or _DIGITS.search(said)
    return each if looks else None


def _alike(said: str, known: Mapping[str, object]) -> bool:
    """Return whether a text is written as some id is, but for its figures: `doc-9` as `doc-1`."""
    form = _DIGITS.sub("0", said)
    return form not in ("0", said) and any(_DIGITS.sub("0", one) == form for one in known)
