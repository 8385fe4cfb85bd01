"""Text in and out of an engine: templates, tools, streams of ids, stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from forebay.edges.triton.answer import AnswerText
from forebay.edges.triton.prompt import ChatTemplate
from forebay.edges.triton.tensors import words_list
from forebay.errors import InvalidRequest
from forebay.testing import request
from forebay.values import Chat, Message, Text, Tool, ToolCall

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
"""Every byte is a token: the hardest case, where each character spans several."""


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.BPE({token: n for n, token in enumerate(BYTES)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def pieces_of(answer, ids, sizes):
    said, rest = [], list(ids)
    while rest:
        size = sizes.pop() if sizes else 1
        said.append(answer.feed(rest[:size]))
        rest = rest[size:]
    return [*said, answer.finish()]


chunkings = st.lists(st.integers(1, 4), max_size=20)


@given(text=st.text(max_size=60), sizes=chunkings)
@settings(max_examples=300)
def test_pieces_add_up_to_the_whole(tokenizer, text, sizes):
    ids = tokenizer.encode(text).ids
    assert "".join(pieces_of(AnswerText(tokenizer), ids, sizes)) == text


@given(ids=st.lists(st.integers(0, 255), max_size=60), sizes=chunkings)
@settings(max_examples=300)
def test_ids_that_are_no_text_decode_as_they_do_whole(tokenizer, ids, sizes):
    said = "".join(pieces_of(AnswerText(tokenizer), ids, sizes))
    assert said == tokenizer.decode(ids)


@given(
    text=st.text("abX ", max_size=40),
    stop=st.lists(st.text("abX", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=chunkings,
)
@settings(max_examples=300)
def test_text_ends_before_the_stop_string_that_is_complete_first(tokenizer, text, stop, sizes):
    answer = AnswerText(tokenizer, tuple(stop))
    said = "".join(pieces_of(answer, tokenizer.encode(text).ids, sizes))
    found = [(at + len(word), at) for word in stop if (at := text.find(word)) >= 0]
    assert said == (text[: min(found)[1]] if found else text)
    assert answer.stopped is bool(found)


SIMPLE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
WEATHER = Tool("weather", "tells it", {"type": "object"})


def chat(*messages):
    return request(prompt=Chat(tuple(Message(*m) for m in messages)))


def test_a_chat_goes_through_the_template():
    assert ChatTemplate(SIMPLE).text(chat(("user", "Hi"))) == "<user>Hi<assistant>"


def test_text_is_sent_as_it_is():
    assert ChatTemplate(SIMPLE).text(request(prompt=Text(" as is "))) == " as is "


def test_tools_are_told_where_the_template_cannot():
    from dataclasses import replace

    asked = replace(chat(("user", "Hi")), tools=(WEATHER,))
    assert '"name": "weather"' in ChatTemplate(SIMPLE).text(asked)
    assert "weather" not in ChatTemplate(SIMPLE).text(replace(asked, tool_choice="none"))
    knows = ChatTemplate("{% for t in tools %}{{ t.function.name }}{% endfor %}")
    assert knows.text(asked) == "weather"


def test_calls_that_were_made_are_part_of_the_chat():
    made = Message("assistant", "", (ToolCall("1", "weather", '{"city": "Oslo"}'),))
    asked = request(prompt=Chat((made, Message("tool", "rain", tool_call_id="1"))))
    assert ChatTemplate(SIMPLE).text(asked) == (
        '<assistant>{"name": "weather", "arguments": {"city": "Oslo"}}<tool>rain<assistant>'
    )


def test_a_template_may_refuse():
    strict = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        strict.text(chat(("user", "Hi")))


def test_a_template_cannot_reach_out():
    with pytest.raises(InvalidRequest):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}").text(
            chat(("user", "x"))
        )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([[1]], [[1], [1]]),
        ([[1, 2], [3]], [[1, 2, 3], [2, 3, -1]]),
        ([[1, 2, 3]], [[1, 2, 3], [3, -1, -1]]),
    ],
)
def test_words_are_written_as_tensorrt_llm_reads_them(words, expected):
    assert words_list(words).tolist() == expected
