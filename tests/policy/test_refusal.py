"""`refusal`: which openings are refusals, how much is held back, and that pieces do not matter."""

# ruff: noqa: RUF001 - typographic apostrophes are what models write
from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.verifiers.refusal import HELD_MAX, RefusalCheck, opening

LONG = (
    "The answer is long. It has many sentences. " + "Each says a little more than the last. " * 40
)


def through(*pieces):
    """Return what left while it was fed, what was left at the end, and the verdict."""
    check = RefusalCheck()
    sent = [check.feed(piece) for piece in pieces]
    rest, verdict = check.finish()
    return sent, rest, verdict


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "Sorry, I cannot provide that.",
        "As an AI language model, I am not able to give medical advice.",
        "I must decline.",
        "I understand you are upset. However, I won't be able to write this.",
        "That's not something I can help with.",
        "This request violates our content policy.",
        "I cannоt help with that.",
        "I can\u200b't help with that.",
        "\n\n  I can't help with that.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Je suis désolé, je ne peux pas vous aider avec cela.",
        "Lo siento, no puedo ayudar con eso.",
        "Mi dispiace, non posso aiutarti.",
        "Desculpe, não posso ajudar com isso.",
    ],
)
def test_refusals(text):
    for pieces in ([text], list(text)):
        sent, rest, verdict = through(*pieces)
        assert (verdict.outcome, verdict.reason) == ("failed", "the model refuses")
        assert "".join(sent) == ""
        assert rest == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris.",
        "I'm sorry to hear that. Try to restart it.",
        "I can't believe it! The sum is 12.",
        "You cannot divide by zero.",
        '"I can\'t help you," said the wizard.',
        "I can help with that. First, open the lid.",
        "To decline the invitation, write a short note.",
        "As an AI, I find this interesting. It was invented in 1901.",
    ],
)
def test_answers(text):
    sent, rest, verdict = through(*text)
    assert verdict.outcome == "passed"
    assert "".join(sent) + rest == text


def test_only_the_opening_waits():
    check = RefusalCheck()
    left = [check.feed(character) for character in LONG]
    first = next(at for at, out in enumerate(left) if out)
    assert first < 90
    assert all(left[first:])
    assert "".join(left) == LONG
    assert check.finish()[0] == ""


def test_a_refusal_behind_the_opening_is_not_looked_for():
    assert through(LONG + "I can't help with that.")[2].outcome == "passed"


def test_nothing_of_a_refusal_leaves_and_all_of_it_is_kept():
    text = "I can't help with that. Let me explain at length why that is so. " + LONG
    sent, rest, verdict = through(*text)
    assert set(sent) == {""}
    assert rest == text
    assert verdict.spans[0][0] == 0


FRAGMENTS = [
    "I can't help",
    "I",
    " ",
    ".",
    "! ",
    "\n",
    "ok ",
    "a" * 30,
    "é",
    "\u200b",
    '"',
    "…",
    "Sorry, ",
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)


@given(texts, st.data())
def test_pieces_make_no_difference(text, data):
    cut = data.draw(st.integers(0, len(text)))
    whole = through(text)
    for pieces in ([text[:cut], text[cut:]], list(text)):
        sent, rest, verdict = through(*pieces)
        assert "".join(sent) + rest == text
        assert verdict == whole[2]


@given(texts, texts)
def test_an_opening_ends_where_it_ends_whatever_follows(text, more):
    end = opening(text)
    assert end is None or (end == opening(text + more) and end <= HELD_MAX)


@given(st.text())
def test_held_text_is_bounded(text):
    check = RefusalCheck()
    out = 0
    for fed, character in enumerate(text + "x" * (HELD_MAX + 1), start=1):
        out += len(check.feed(character))
        if check._verdict is None or check._verdict.outcome == "passed":
            assert fed - out <= HELD_MAX


@pytest.mark.parametrize(
    "text", ["I " * 500_000, " " * (1 << 20), '"' * (1 << 20), "é" * (1 << 20), "\n" * (1 << 20)]
)
def test_a_large_answer_takes_little_time(text):
    begun = time.perf_counter()
    through(text)
    assert time.perf_counter() - begun < 5
