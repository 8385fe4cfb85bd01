"""Answers that cite, made by rule from real texts: right ones, and ones with a known fault.

A case is made from the statements of one text, which becomes one of five sources. Nothing is
drawn at random and no case is chosen by hand.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forebay.values import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = Path(__file__).parent.parent / "data/prompts"
TEXTS = 60
"""Texts taken of each corpus, where it has so many."""

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|has|have|had|will|can|could|would|should|must|does|did)\b(?! not\b)"
)
_NEGATED = re.compile(
    r"(?i)\b(?:not|no|never|none|cannot|without|n't|nothing|neither)\b|n['\u2019]t\b"
)
_FIGURES = re.compile(r"(?<![\w.,$/])\d{1,2}(?![\w.,%/])")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen twenty"
)
_COUNT = _WORDS.split()


@dataclass(frozen=True)
class Case:
    """One answer; `right` says whether it should pass, `cites` that only its citations are bad."""

    corpus: str
    kind: str
    answer: str
    sources: tuple[Source, ...]
    right: bool
    cites: bool = True


@dataclass(frozen=True)
class Told:
    """A text and what it states, sentence by sentence."""

    text: str
    states: tuple[str, ...]


def cases() -> Iterator[Case]:
    """Yield every case."""
    yield from _alce()
    yield from _corpus("gsm8k", _gsm8k(), "{}", "[{}]")
    yield from _corpus("MT-bench", _mtbench(), "kb-{}", "({})")


def _gsm8k() -> list[str]:
    lines = (PROMPTS / "gsm8k_even.jsonl").read_text().splitlines()
    return [json.loads(line)["question"] for line in lines]


def _mtbench() -> list[str]:
    lines = (PROMPTS / "mtbench_questions.jsonl").read_text().splitlines()
    return [turn for line in lines for turn in json.loads(line)["turns"]]


def _told(text: str) -> Told:
    """Return what a text states: sentences of six words or more that ask and demand nothing."""
    found = [one.strip() for line in text.split("\n") for one in _SENTENCE.split(line)]
    states = tuple(
        one
        for one in found
        if one.endswith(".") and len(one.split()) >= 6 and re.match(r"[A-Z]", one)
        and not re.match(r"(?:If|Given|Please|Suppose|Return|Output|Let|Use|List)\b", one)
        and not re.search(r"[\[\]()]", one)
    )  # fmt: skip
    return Told(text, states)


def _corpus(corpus: str, texts: list[str], form: str, mark: str) -> Iterator[Case]:
    told = [one for one in map(_told, texts) if len(one.states) > 1]
    step = max(1, len(told) // TEXTS)
    for place in range(0, min(len(told), TEXTS * step), step):
        near = [told[(place + back) % len(told)] for back in range(6)]
        right = place % 5
        order = [*near[1 : right + 1], near[0], *near[right + 1 : 5]]
        ids = [form.format(n) for n in range(1, 6)]
        sources = tuple(Source(i, one.text) for i, one in zip(ids, order, strict=True))
        cite = [mark.format(i) for i in ids]
        for kind, answer, good, cites in _answers(near, cite[right], cite[(right + 1) % 5], mark):
            yield Case(corpus, kind, answer, sources, good, cites)


def _answers(
    near: list[Told], cite: str, other: str, mark: str
) -> Iterator[tuple[str, str, bool, bool]]:
    """Yield answers from the first of some texts: kind, text, whether right, by citations alone."""
    one, two = near[0].states[:2]
    both = f"{_cited(one, cite)} {{}}"
    yield "as it stands", both.format(_cited(two, cite)), True, False
    yield "reworded", both.format(_cited(_reworded(two), cite)), True, False
    yield "joined", _cited(f"{one[:-1]}, and {_lower(two)}", cite), True, False
    yield "citation dropped", both.format(two), False, True
    yield "citation swapped", both.format(_cited(two, other)), False, True
    yield "citation invented", both.format(_cited(two, mark.format("kb-77"))), False, True
    yield "of another text", both.format(_cited(near[5].states[0], cite)), False, False
    if not _NEGATED.search(two):
        yield "negated", both.format(_cited(negated(two), cite)), False, False
    if (changed := _other_number(two, near[0].text)) is not None:
        yield "number changed", both.format(_cited(changed, cite)), False, False
    if (changed := _number_elsewhere(two, near[0].text)) is not None:
        yield "number of another statement", both.format(_cited(changed, cite)), False, False
    if (changed := _other_name(two, near)) is not None:
        yield "name changed", both.format(_cited(changed, cite)), False, False


def _cited(sentence: str, cite: str) -> str:
    return f"{sentence[:-1]} {cite}."


def _reworded(sentence: str) -> str:
    """Return a statement told at second hand, its small figures in words and words in figures."""
    told = _FIGURES.sub(lambda m: _COUNT[int(m[0])] if 1 < int(m[0]) <= 20 else m[0], sentence)
    if told == sentence:
        swap = rf"\b(?:{'|'.join(_COUNT[2:])})\b"
        told = re.sub(swap, lambda m: str(_COUNT.index(m[0])), sentence)
    return f"It is reported that {_lower(told)}"


def _lower(sentence: str) -> str:
    """Return a sentence as it stands within another; a name stays one."""
    small = re.match(r"(?:The|An?|He|She|It|They|His|Her|Their|Each|There|In|On|At)\b", sentence)
    return sentence[0].lower() + sentence[1:] if small else sentence


def negated(sentence: str) -> str:
    """Return the opposite of a statement."""
    found = _AUXILIARY.search(sentence)
    if found is None:
        return f"It is not true that {_lower(sentence)}"
    return f"{sentence[: found.end()]} not{sentence[found.end() :]}"


def _other_number(sentence: str, text: str) -> str | None:
    for found in re.finditer(r"(?<![\w.,])\d+(?![\w.,]\d)", sentence):
        other = str(int(found[0]) + 7)
        if not re.search(rf"\b{other}\b", text):
            return sentence[: found.start()] + other + sentence[found.end() :]
    return None


def _number_elsewhere(sentence: str, text: str) -> str | None:
    """Return the statement with a number that the same text has elsewhere, for another thing."""
    own = re.findall(r"\d+", sentence)
    other = next((one for one in re.findall(r"(?<![\d.,])\d+", text) if one not in own), None)
    found = re.search(r"(?<![\w.,])\d+(?![\w.,]\d)", sentence)
    if found is None or other is None:
        return None
    return sentence[: found.start()] + other + sentence[found.end() :]


def _other_name(sentence: str, near: list[Told]) -> str | None:
    found = _NAME.search(sentence)
    others = (m[0] for one in near[1:] for m in _NAME.finditer(one.text))
    other = next((name for name in others if name not in near[0].text), None)
    if found is None or other is None:
        return None
    return sentence[: found.start()] + other + sentence[found.end() :]


# ---- answers that people wrote and cited -----------------------------------------------------


def _alce() -> Iterator[Case]:
    for demo in json.loads((PROMPTS / "alce_asqa_demo.json").read_text())["demos"]:
        documents = [f"{doc['title']}\n{doc['text']}" for doc in demo["docs"]]
        sources = tuple(Source(str(n), text) for n, text in enumerate(documents, 1))
        answer = demo["answer"]
        marks = list(re.finditer(r"\[(\d)\]", answer))
        yield Case("ALCE", "as it stands", answer, sources, right=True, cites=False)
        for kind, changed, cites in _altered(answer, marks):
            yield Case("ALCE", kind, changed, sources, right=False, cites=cites)


def _altered(answer: str, marks: list[re.Match[str]]) -> Iterator[tuple[str, str, bool]]:
    for mark in marks:
        before, after = answer[: mark.start()], answer[mark.end() :]
        yield "citation dropped", before.rstrip() + after, True
        yield "citation invented", f"{before}[77]{after}", True
        for other in "12345".replace(mark[1], ""):
            yield "citation swapped", f"{before}[{other}]{after}", True
    for found in _AUXILIARY.finditer(answer):
        yield "negated", f"{answer[: found.end()]} not{answer[found.end() :]}", False
    for found in re.finditer(r"(?<![\d,.\[])\d{2,}(?![\d,\]])", answer):
        changed = f"{int(found[0]) + 7}"
        yield "number changed", answer[: found.start()] + changed + answer[found.end() :], False


def uncited(case: Case) -> Case:
    """Return a case without the citations in its answer."""
    ids = "|".join(re.escape(source.id) for source in case.sources)
    answer = re.sub(rf" ?(?:\[(?:{ids})\]|\((?:{ids})\))", "", case.answer)
    return replace(case, answer=answer)
