"""`window`: nothing personal crosses, wherever a text is cut, and what is held is bounded."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy.personal import DISGUISED, ENTITIES, around, left, letter, said, shown

from forebay.policy.rules import Route
from forebay.policy.verifiers import pii, refusal
from forebay.policy.verifiers.entities import REACH
from forebay.policy.verifiers.escapes import LENGTH_MAX
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import Release

REDACTING = ("pii_redaction",)
BOTH = ("refusal", "pii_redaction")
HELD_MAX = {REDACTING: pii.HELD_MAX, BOTH: pii.HELD_MAX + refusal.HELD_MAX}


def gate(verify=REDACTING):
    made = Gate(verify, subject(Route(model="m", verify=verify), request(), enforced=False))
    assert made.release is Release.WINDOW
    return made


def held_while(parts, pieces, verify=REDACTING):
    """Feed a text in pieces; return the most characters that were held back.

    At each moment what has left is the beginning of what may be seen, and in the end all of it.
    """
    made, expected = gate(verify), shown(parts)
    sent, fed, most = "", 0, 0
    for piece in pieces:
        sent += made.feed(piece)
        fed += len(piece)
        assert expected.startswith(sent), (pieces, sent)
        most = max(most, fed - left(parts, sent))
    rest, verdicts = made.finish()
    assert sent + rest == expected, pieces
    assert not any(verdict.outcome == "failed" for verdict in verdicts)
    return most


def cut(text, *places):
    return [text[first:last] for first, last in pairwise((0, *places, len(text)))]


CASES = [pytest.param(around(*case), id=f"{case[1]}-{n}") for n, case in enumerate(ENTITIES)]
HIDDEN = [pytest.param(around(*case), id=f"{case[1]}-{n}") for n, case in enumerate(DISGUISED)]


@pytest.mark.parametrize("parts", CASES + HIDDEN)
def test_no_entity_crosses_wherever_a_text_is_cut_in_two(parts):
    text = said(parts)
    for place in range(len(text) + 1):
        assert held_while(parts, cut(text, place)) <= len(text)


@pytest.mark.parametrize("parts", CASES + HIDDEN)
def test_no_entity_crosses_wherever_a_text_is_cut_in_three(parts):
    text = said(parts)
    for places in combinations(range(1, len(text)), 2):
        held_while(parts, cut(text, *places))


@pytest.mark.parametrize("verify", [REDACTING, BOTH])
@pytest.mark.parametrize("parts", CASES + HIDDEN)
def test_no_entity_crosses_character_by_character(parts, verify):
    assert held_while(parts, said(parts), verify) <= HELD_MAX[verify]


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(ENTITIES + DISGUISED), max_size=6),
    st.lists(st.integers(0, 250), max_size=9),
    st.sampled_from([REDACTING, BOTH]),
)
def test_no_entity_crosses_among_others(entities, places, verify):
    parts = letter(*entities)
    within = sorted(place for place in places if place < len(said(parts)))
    assert held_while(parts, cut(said(parts), *within), verify) <= HELD_MAX[verify]


# ---- how much is held back ----------------------------------------------------------------

NEVER = "a" * 64 + "@" + "b" * 124 + "! "
"""What may be an address up to its last character, and is none."""

UNSEEN = "\u200b" * pii._INVISIBLE_MAX
ESCAPE = "\\" * 8 + "ud835" + "\\" * 8 + "udc1a"
"""An escape of the greatest length, for one letter: it waits as one."""

UNSEEN_TOO = "".join(character + UNSEEN for character in NEVER)
ESCAPED = NEVER.replace("a", ESCAPE).replace("b", ESCAPE)

HOSTILE = [
    ("words", "hello there " * 40, REACH),
    ("numbers", "4111 1111 1111 1112 " * 20, REACH),
    ("dots", "a." * 200, REACH),
    ("what may be an address", NEVER * 3, REACH),
    ("the same, with what cannot be seen", UNSEEN_TOO * 3, pii.HELD_MAX),
    ("the same, escaped", ESCAPED, pii.HELD_MAX * LENGTH_MAX),
]


@pytest.mark.parametrize(("why", "text", "bound"), HOSTILE, ids=[case[0] for case in HOSTILE])
def test_what_is_held_back_is_bounded(why, text, bound):
    parts = ((text, text),)
    most = max(held_while(parts, cut(text, *range(0, len(text), step))) for step in (1, 7, 500))
    print(f"N = {bound} characters; {why}: at most {most} were held back")
    assert most <= bound


def test_a_refusals_opening_is_bounded_beside_it():
    text = " " * 40 + "so and so " * 60 + NEVER
    most = held_while(((text, text),), text, BOTH)
    print(f"N = {HELD_MAX[BOTH]} characters; an opening and an address: at most {most}")
    assert most <= HELD_MAX[BOTH]


def test_the_documents_state_the_bounds():
    stated = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text()
    for bound in (REACH, pii.HELD_MAX, LENGTH_MAX, refusal.HELD_MAX, HELD_MAX[BOTH]):
        assert f"{bound:,} characters" in stated
