"""What an answer claims: its sentences, the sources each cites, and the words that must hold.

All of it is read from the letters, by rules that are the same for every text: nothing here
knows what a sentence means. Patterns have one repetition each, so that they take time linear in
the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from forebay.policy.verifiers.fold import seen
from forebay.policy.verifiers.vocabulary import (
    ABBREVIATED,
    NEGATIONS,
    NUMBERS,
    STOP,
    SUFFIXES,
    TURNS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

Span = tuple[int, int]

ID_MAX = 160
"""Characters between the brackets of a citation."""

LEAD_WORDS_MAX = 8
"""Words of a heading or of a line that leads in what follows; a longer one is a claim."""

SCOPE = 3
"""Content words after a negation that it is taken to negate, within its clause."""

_ENDS = ".!?\u2026\u3002\uff01\uff1f"
_END = re.compile(f"[{_ENDS}]")
_CLOSERS = "\"')\u201d\u2019\u00bb*_"
_MARK = re.compile(rf"\[([^\[\]\n]{{1,{ID_MAX}}})\]|\(([^()\n]{{1,{ID_MAX}}})\)")
_BULLET = re.compile(r"[ \t]{0,32}(?:[-*+\u2022>]|\d{1,3}[.)])[ \t]+")
_TOKEN = re.compile(
    r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)*|[;:,.!?()\u2013\u2014\u3002\uff0c\uff1b]"
)
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_CLAUSE = frozenset(";:.!?()\u2013\u2014\u3002\uff1b")
_STEM_MIN = 4

_ASIDE = re.compile(
    r"(?i)\W{0,4}(?:"
    r"(?:(?:please )?(?:note )?(?:that )?(?:this|it|the above)\b.{0,60}(?:\bnot|n't)\b|nothing\b)"
    r".{0,40}\badvice\b"
    r"|i(?: am|'m)? (?:do not|don't|cannot|can't|could not|couldn't|not able to|unable to) "
    r"(?:know|find|say|tell|answer|determine|provide|give|verify|confirm|help)\b"
    r"|(?:unfortunately, )?(?:the|these|those|your) (?:given |provided |available |cited )?"
    r"(?:sources?|documents?|search results?|texts?|passages?|context)"
    r" (?:do(?:es)? not|don't|doesn't|cannot|can't) "
    r"(?:say|state|mention|contain|tell|specify|answer|include|provide|cover|address)\b"
    r"|(?:please (?:consult|contact|ask|see)|let me know|i hope (?:this|that|it) helps)\b"
    r")"
)
_ASIDE_WORDS_MAX = 24


@dataclass(frozen=True, slots=True)
class Word:
    """One word that must hold: `stem` as it is compared, `negated` where a negation covers it."""

    stem: str
    negated: bool = False
    number: bool = False
    name: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """What a text says, for each negation in it the words that it covers, and what it counts.

    `counts` are pairs of a number and the content word behind it: `("16", "egg")`.
    """

    said: tuple[Word, ...]
    negations: tuple[tuple[Word, ...], ...] = ()
    counts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A bracket that may cite; `square` where it is written `[...]`."""

    said: str
    span: Span
    square: bool


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, with the brackets in it; `start` and `end` are places in the answer."""

    text: str
    span: Span
    marks: tuple[Mark, ...] = ()


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text; a line ends one, and brackets after its end belong to it."""
    at = 0
    for line in text.split("\n"):
        bullet = _BULLET.match(line)
        start = at + (bullet.end() if bullet else 0)
        yield from _of_line(text, start, at + len(line))
        at += len(line) + 1


def _of_line(text: str, start: int, end: int) -> Iterator[Sentence]:
    at = start
    while found := _END.search(text, at, end):
        at = found.start()
        if after := _ended(text, start, at, end):
            yield _sentence(text, start, after)
            start = at = after
        else:
            at += 1
    if text[start:end].strip():
        yield _sentence(text, start, end)


def _ended(text: str, start: int, at: int, end: int) -> int:
    """Return where a sentence ends whose last mark may stand at `at`; 0 if it goes on."""
    after = at + 1
    while after < end and text[after] in _ENDS + _CLOSERS:
        after += 1
    if after < end and text[at] not in "\u3002\uff01\uff1f":
        if not (text[after].isspace() or text[after] == "["):
            return 0
        if text[at] == "." and _abbreviates(text, start, at):
            return 0
    while found := _MARK.match(text, _blank(text, after, end), end):
        if found.group(1) is None:
            break
        after = found.end()
        if after < end and text[after] in _ENDS:
            after += 1
    rest = _blank(text, after, end)
    if rest < end and text[at] == "." and text[rest].islower():
        return 0
    return after


def _blank(text: str, at: int, end: int) -> int:
    while at < end and text[at].isspace():
        at += 1
    return at


def _abbreviates(text: str, start: int, at: int) -> bool:
    first = at
    while first > max(start, at - 8) and (text[first - 1].isalpha() or text[first - 1] == "."):
        first -= 1
    word = text[first:at].lower()
    return word in ABBREVIATED or (len(word) == 1 and word.isalpha() and word != "i")


def _sentence(text: str, start: int, end: int) -> Sentence:
    first = _blank(text, start, end)
    marks = tuple(
        Mark(
            (found.group(1) or found.group(2)).strip(),
            found.span(),
            square=found.group(1) is not None,
        )
        for found in _MARK.finditer(text, first, end)
        if text[found.end() : found.end() + 1] != "(" or found.group(1) is None
    )
    return Sentence(text[first:end].rstrip(), (first, first + len(text[first:end].rstrip())), marks)


def bears_claim(text: str, read: Words) -> bool:
    """Return whether a sentence, without its citations, states something that may be false.

    Questions, short headings and lead-ins, sentences about the answer or the sources themselves,
    and what has fewer than two content words and no number state nothing.

    Args:
        text: The sentence.
        read: Its words.
    """
    said = read.said
    numbers = any(word.number for word in said)
    if len(said) < 2 and not numbers:  # noqa: PLR2004 - a subject and what is said of it
        return False
    plain = text.strip().rstrip("\"')*_ ")
    if plain.endswith(("?", "\uff1f")):
        return False
    if numbers:
        return True
    short = len(plain.split()) <= LEAD_WORDS_MAX
    heads = plain.startswith(("#", "**")) and plain[-1] not in _ENDS
    if short and (plain.endswith(":") or heads):
        return False
    return not (_ASIDE.match(plain) and len(plain.split()) <= _ASIDE_WORDS_MAX)


def words(text: str) -> Words:
    """Return the content words of a text: stems, numbers and names, and what is negated."""
    said: list[Word] = []
    negations: list[list[Word]] = []
    counts: list[tuple[str, str]] = []
    left, fresh, number = 0, True, ""
    for found in _TOKEN.findall(_plain(text)):
        kind, read = _read(found, fresh)
        if kind == "clause":
            left, fresh, number = 0, fresh or found in ".!?\u3002", ""
        elif kind == "negation":
            left, fresh = SCOPE, False
            negations.append([])
        else:
            for word in read:
                if number and not word.number:
                    counts.append((number, word.stem))
                number = word.stem if word.number and not _is_year(word.stem) else ""
                if left:
                    word = _negated(word)  # noqa: PLW2901 - the same word, in its sense here
                    negations[-1].append(word)
                    left -= 1
                said.append(word)
            number = "" if found == "," else number
            fresh = fresh and found == ","
    covered = tuple([tuple(one) for one in negations if one])
    return Words(tuple(said), covered, tuple(counts))


def _is_year(number: str) -> bool:
    """Return whether a number is more likely a year: what stands behind it is not counted."""
    return len(number) == len("2026") and number.isdecimal() and number[0] in "12"


@lru_cache(maxsize=32_768)
def _read(found: str, fresh: bool) -> tuple[str, tuple[Word, ...]]:  # noqa: FBT001 - hashed
    """Return what a token is, and the words it is compared by; `fresh` where a sentence begins."""
    lower = found.lower()
    if found in _CLAUSE or lower in TURNS:
        return "clause", ()
    if lower in NEGATIONS or lower.endswith("n't"):
        return "negation", ()
    if found[0].isdigit() or lower in NUMBERS:
        return "", (Word(NUMBERS.get(lower) or _number(found), number=True),)
    if _CJK.match(found):
        pairs = (found[at : at + 2] for at in range(max(1, len(found) - 1)))
        return "", tuple([Word(pair) for pair in pairs])
    if lower in STOP or not found[0].isalnum():
        return "", ()
    return "", (Word(stem(lower), name=found[0].isupper() and not fresh and len(found) > 1),)


@lru_cache(maxsize=8192)
def _negated(word: Word) -> Word:
    return replace(word, negated=True)


def _number(written: str) -> str:
    """Return a number as it is compared: without thousands' commas and trailing zeros."""
    thousands = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", written)
    plain = written.replace(",", "") if thousands else written
    if "." in plain and plain.count(".") == 1 and ":" not in plain and "," not in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain.lstrip("0") or "0"


def stem(word: str) -> str:
    """Return what is left of a lower-case word without its commonest English endings."""
    word = word.removesuffix("'s").removesuffix("\u2019s").replace("'", "").replace("\u2019", "")
    if word.endswith(("ian", "ians")):  # Indian, of India
        word = word.removesuffix("s")[:-1]
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _STEM_MIN:
            word = word[: -len(suffix)]
            break
    if len(word) > _STEM_MIN and word[-1] == word[-2]:
        word = word[:-1]
    return word


def _plain(text: str) -> str:
    """Return the text as a reader sees it: no accents, nothing unseen, look-alikes as one letter.

    A word of another script may come out as no word at all; source and answer alike.
    """
    views = seen(text.replace("\u2019", "'"))
    return views[1] if views else text
