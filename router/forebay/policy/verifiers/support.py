"""Whether a text supports a claim, by its words: a measure, no understanding.

A claim is supported by a passage, some consecutive sentences of one source, if the passage has

- every number of the claim, in figures or in words; and what the claim counts with it, the word
  behind it, stands by that number somewhere in the source;
- at least `SHARE` of its content words, compared without their endings;
- no word of the claim in the opposite sense only: negated in one and not in the other; and for
  each negation of the claim a word that the passage negates too.

Names, the capitalised words within a sentence, must stand anywhere in the source.

The sentences that hold a word become the bits of one integer, so that all passages of a source
are tried at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_, or_
from typing import TYPE_CHECKING

from forebay.policy.verifiers.claims import Word, Words, sentences, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from forebay.values import Source

SHARE = 0.6
"""The share of a claim's content words that a passage must have."""

PASSAGE = 5
"""Sentences of a passage."""

BESIDE = 0.2
"""The share of a claim's words that each of several sources cited together must have."""


UNIT = 40
"""The fewest characters that count as a sentence of a source; shorter ones count with the next.
It bounds how many there are."""

BESIDE_NUMBER = 3
"""Content words on either side of a number among which what it counts must stand."""

_CACHED_MAX = 4096

_NAME = "a name in it is not there"
_NUMBER = "a number in it is not there"
_COUNT = "a number in it stands for something else there"
_SENSE = "one of the two negates what the other states"
_TOO_FEW = "too few of its words are there together"


@dataclass(slots=True)
class Text:
    """One source, read: `plus` and `minus` hold for a word the sentences it stands in.

    `counted` holds the words that stand by a number.
    """

    id: str
    plus: dict[str, list[int]] = field(default_factory=dict)
    minus: dict[str, list[int]] = field(default_factory=dict)
    counted: dict[str, set[str]] = field(default_factory=dict)
    length: int = 0
    window: int = PASSAGE
    _passages: dict[tuple[str, bool], int] = field(default_factory=dict)

    def add(self, at: int, said: Sequence[Word]) -> None:
        """Note what the sentence at place `at` says."""
        self.length = at + 1
        for place, word in enumerate(said):
            if word.number:
                near = said[max(0, place - BESIDE_NUMBER) : place + BESIDE_NUMBER + 1]
                self.counted.setdefault(word.stem, set()).update([one.stem for one in near])
            side = self.minus if word.negated else self.plus
            places = side.setdefault(word.stem, [])
            if not places or places[-1] != at:
                places.append(at)

    def has(self, stem: str) -> bool:
        """Return whether a word stands anywhere in it, in any sense."""
        return stem in self.plus or stem in self.minus

    def where(self, stem: str, *, negated: bool) -> int:
        """Return the passages that hold a word in one sense, a bit for each first sentence."""
        places = (self.minus if negated else self.plus).get(stem)
        if places is None:
            return 0
        made = self._passages.get((stem, negated))
        if made is None:
            bits = bytearray((self.length >> 3) + 1)
            for at in places:
                bits[at >> 3] |= 1 << (at & 7)
            held = int.from_bytes(bits, "little")
            made = reduce(or_, (held >> back for back in range(self.window)))
            if len(self._passages) >= _CACHED_MAX:
                self._passages.clear()
            self._passages[stem, negated] = made
        return made

    def with_numbers(self, claim: Words) -> int:
        """Return the passages that have all numbers of a claim."""
        numbers = (word for word in claim.said if word.number)
        held = (self.where(one.stem, negated=one.negated) for one in numbers)
        return reduce(and_, held, (1 << self.length) - 1)

    def in_its_sense(self, claim: Words, among: int) -> int:
        """Return the passages `among` these that hold no word in the opposite sense only."""
        for word in claim.said:
            other = self.where(word.stem, negated=not word.negated)
            among &= ~other | self.where(word.stem, negated=word.negated)
        for covered in claim.negations:
            among &= reduce(or_, (self.where(word.stem, negated=True) for word in covered))
        return among

    def sharing(self, claim: Words, among: int) -> int:
        """Return the passages `among` these that have `SHARE` of a claim's words, in its sense."""
        distinct = _distinct(claim)
        return _counted(
            [self.where(stem, negated=negated) & among for stem, negated in distinct],
            math.ceil(SHARE * len(distinct)),
            among,
        )


def _counted(held: Iterable[int], least: int, among: int) -> int:
    """Return the bits that are set in at least so many of these integers.

    All are counted at once: `planes` hold the binary digits of the counters, lowest first.
    """
    planes: list[int] = []
    for one in held:
        carry = one
        for place, plane in enumerate(planes):
            planes[place], carry = plane ^ carry, plane & carry
        if carry:
            planes.append(carry)
    if least >> len(planes):
        return 0
    more, same = 0, among
    for place in range(len(planes) - 1, -1, -1):
        if least >> place & 1:
            same &= planes[place]
        else:
            more |= same & planes[place]
            same &= ~planes[place]
    return more | same


@dataclass(frozen=True, slots=True)
class Library:
    """The sources of a request by their ids, and which of them hold a word at all."""

    texts: Mapping[str, Text]
    words: Text

    def near(self, claim: Words) -> Iterator[Text]:
        """Yield the sources that have all names and numbers of a claim and enough of its words.

        No other can support it by itself.
        """
        stems = {word.stem for word in claim.said}
        among = (1 << self.words.length) - 1
        for one in {word.stem for word in claim.said if word.number or word.name}:
            among &= self.words.where(one, negated=False)
        held = [self.words.where(one, negated=False) & among for one in stems]
        # A word counts once in each sense, so half as many stems may be enough.
        distinct = len(_distinct(claim))
        least = math.ceil(SHARE * distinct) - (distinct - len(stems))
        found = _counted(held, max(0, least), among)
        texts = tuple(self.texts.values()) if found else ()
        while found:
            lowest = found & -found
            yield texts[lowest.bit_length() - 1]
            found ^= lowest


@lru_cache(maxsize=8)
def library(sources: tuple[Source, ...]) -> Library:
    """Return the sources of a request, read once for all its attempts."""
    texts: dict[str, Text] = {}
    every = Text("", window=1)
    for source in sources:
        if source.id in texts:  # doors refuse a second of one id; here the first stands
            continue
        place, text = len(texts), Text(source.id)
        texts[source.id] = text
        at, begun = 0, 0
        for sentence in sentences(source.text):
            text.add(at, words(sentence.text).said)
            if sentence.span[1] - begun >= UNIT:
                at, begun = at + 1, sentence.span[1]
        for stem in {**text.plus, **text.minus}:
            every.plus.setdefault(stem, []).append(place)
        every.length = place + 1
    return Library(texts, every)


def unsupported(claim: Words, texts: Sequence[Text]) -> str | None:
    """Return why these texts do not support a claim, or None if they do.

    One of them must support it by itself, or all of them together, each with its part.
    """
    whys = [_by_one(claim, text) for text in texts]
    if None in whys or not claim.said:
        return None
    return whys[0] if len(texts) == 1 else _together(claim, texts)


def _by_one(claim: Words, text: Text) -> str | None:
    if any(word.name and not text.has(word.stem) for word in claim.said):
        return _NAME
    if not (held := text.with_numbers(claim)):
        return _NUMBER
    if not all(what in text.counted.get(number, ()) for number, what in claim.counts):
        return _COUNT
    if not (held := text.in_its_sense(claim, held)):
        return _SENSE
    return None if text.sharing(claim, held) else _TOO_FEW


def _together(claim: Words, texts: Sequence[Text]) -> str | None:
    """Return why several sources do not support a claim that none of them supports alone."""
    plus = {stem for text in texts for stem in text.plus}
    minus = {stem for text in texts for stem in text.minus}
    for word in claim.said:
        same, other = (minus, plus) if word.negated else (plus, minus)
        if (word.number or word.name) and word.stem not in same | other:
            return _NUMBER if word.number else _NAME
        if word.stem in other and word.stem not in same:
            return _SENSE
    for number, what in claim.counts:
        if not any(what in text.counted.get(number, ()) for text in texts):
            return _COUNT
    if not all(any(word.stem in minus for word in covered) for covered in claim.negations):
        return _SENSE
    distinct = _distinct(claim)
    shares = [sum(text.has(stem) for stem, _ in distinct) for text in texts]
    found = sum(any(text.has(stem) for text in texts) for stem, _ in distinct)
    if min(shares) < BESIDE * len(distinct) or found < SHARE * len(distinct):
        return _TOO_FEW
    return None


def _distinct(claim: Words) -> set[tuple[str, bool]]:
    return {(word.stem, word.negated) for word in claim.said}
