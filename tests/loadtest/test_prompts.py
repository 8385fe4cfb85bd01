"""Prompts: real text, cut to length, by the engine's tokens or by the ratio."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadtest.prompts import (
    FOLDER,
    TOKENIZER,
    Corpus,
    EngineTokens,
    PromptsError,
    RatioTokens,
    corpus,
    splitter,
)
from tokenizers import Tokenizer

TEXTS = ("How many eggs are left, 16 - 3?", "Write a poem about a dam.", "Größe: 5 µm, naïve")


@pytest.fixture(scope="module")
def engine():
    if not TOKENIZER.exists():
        pytest.skip("no engine is built here; `make up` builds one")
    return EngineTokens()


@pytest.fixture(scope="module")
def counted(engine):
    return Tokenizer.from_file(str(TOKENIZER))


@given(st.text(max_size=200))
def test_pieces_are_the_text_again_by_ratio(text):
    assert "".join(RatioTokens().pieces(text)) == text


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=80))
def test_pieces_are_the_text_again_by_engine(engine, text):
    assert "".join(engine.pieces(text)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_there_is_one_piece_for_each_token(engine, counted, text):
    assert len(engine.pieces(text)) == len(counted.encode(text).ids)


@given(tokens=st.integers(1, 2000), seed=st.integers(0, 99))
def test_a_prompt_has_the_tokens_that_were_asked(counted, tokens, seed):
    """Counted again from its text; a cut inside a word may join or part tokens at the edges."""
    text = corpus("mtbench_questions").cut(tokens, random.Random(seed))
    assert abs(len(counted.encode(text).ids) - tokens) <= max(3, tokens * 0.03)


@given(st.integers(1, 400), st.integers(0, 99))
def test_a_ring_that_is_too_short_goes_round(tokens, seed):
    text = Corpus(TEXTS, RatioTokens()).cut(tokens, random.Random(seed))
    assert tokens * 4 - 3 * (tokens * 4 // 26 + 3) <= len(text) <= tokens * 4


def test_prompts_seldom_begin_alike():
    text = corpus("mtbench_questions")
    draw = random.Random(1)
    beginnings = {text.cut(64, draw)[:32] for _ in range(300)}
    assert len(beginnings) > 280


@pytest.mark.parametrize("name", ["mtbench_questions", "gsm8k_even", "humaneval_even"])
def test_every_prompt_file_can_be_read(name):
    assert len(corpus(name).cut(5000, random.Random(2))) > 5000


def test_without_an_engine_the_ratio_is_used(tmp_path):
    assert isinstance(splitter(tmp_path / "none.json"), RatioTokens)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"answer": 1}\n', r"odd.jsonl:1: no prompt, question or turns"),
        ('{"prompt": "a b"}\nnot json\n', r"odd.jsonl:2: no prompt, question or turns"),
    ],
)
def test_a_broken_prompt_file_is_told_by_line(tmp_path, content, told):
    (tmp_path / "odd.jsonl").write_text(content)
    with pytest.raises(PromptsError, match=told):
        corpus("odd", tmp_path)


def test_an_unknown_prompt_file_is_told_with_those_there_are():
    with pytest.raises(PromptsError, match=r"no prompts named jokes.*gsm8k_even"):
        corpus("jokes", FOLDER)
