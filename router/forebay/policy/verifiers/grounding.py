"""`grounding`: whether what an answer states stands in the sources that were given.

Each sentence that bears a claim must be supported by one source, or each of its clauses must.
Citations are not asked for; where there are some, they divide a sentence as clauses do. With
no sources there is nothing to compare with, and nothing is judged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forebay.policy.verifiers.citations import PARTS_MAX, parts_of, too_much, verdict_of
from forebay.policy.verifiers.claims import Words, bears_claim, words
from forebay.policy.verifiers.support import unsupported
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from forebay.policy.verifiers.citations import Part
    from forebay.policy.verifiers.support import Library

NAME = "grounding"

NEAR_MAX = 16
"""The most sources that one claim is compared with, of those that have enough of its words."""

_CLAUSE = re.compile(r";|, (?:and|but|while|although|though|whereas|which|who)\b")


class GroundingCheck:
    """Reads an answer whole, and looks for it in the sources."""

    name = NAME

    def __init__(self, library: Library) -> None:
        self._library = library
        self._answer: list[str] = []
        self.release = Release.FINAL if library.texts else Release.TOKEN

    def feed(self, text: str) -> str:
        """Return the text itself."""
        if self._library.texts:
            self._answer.append(text)
        return text

    def called(self, call: object) -> None:
        """Pass over a call: it asks, and claims nothing."""

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict."""
        if not self._library.texts:
            return "", Verdict(NAME, "not_applicable", "the request brings no sources")
        return "", judged("".join(self._answer), self._library)


def judged(answer: str, library: Library) -> Verdict:
    """Return the verdict on a whole answer; its reason repeats nothing that the answer says."""
    if (fault := too_much(answer)) is not None:
        return Verdict(NAME, "failed", fault)
    told: list[str] = []
    spans: list[tuple[int, int]] = []
    claims = 0
    for read, (number, part) in enumerate(parts_of(answer, library.texts)):
        if read == PARTS_MAX:
            told.append(f"it has more than {PARTS_MAX} statements, and they are not all looked up")
            break
        if not bears_claim(part.text, part.said):
            continue
        claims += 1
        if not _grounded(part, library):
            told.append(f"sentence {number}: no source has its names, numbers and words together")
            spans.append(part.span)
    return verdict_of(NAME, told, spans, claims=claims)


def _grounded(part: Part, library: Library) -> bool:
    """Return whether some source supports a statement, or one for each of its clauses."""
    if _supported(part.said, library):
        return True
    clauses = [one for one in map(words, _CLAUSE.split(part.text)) if one.said]
    return len(clauses) > 1 and all(_supported(one, library) for one in clauses)


def _supported(said: Words, library: Library) -> bool:
    near = zip(range(NEAR_MAX), library.near(said), strict=False)
    return any(unsupported(said, [text]) is None for _, text in near)
