"""How a model is shown sources: as data on lines of their own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.offer import completed
from forebay.policy.rules import Document, Route
from forebay.policy.sources import shown
from forebay.testing import request
from forebay.values import Chat, Message, Source, Text

DOCUMENT = Document.model_validate({"models": {"m": {"triton": {}}}})
HI = Message("user", "Hi")


def lines(chat):
    """Return the lines of the system message that are JSON."""
    content = chat.messages[0].content
    return [json.loads(line) for line in content.split("\n") if line.startswith("{")]


@pytest.mark.parametrize(
    ("why", "verify", "prompt", "roles"),
    [
        ("a chat", ("citations_required",), Chat((HI,)), ["system", "user"]),
        ("grounding too", ("grounding",), Chat((HI,)), ["system", "user"]),
        ("one system message stays one", ("grounding",), Chat((Message("system", "Be kind"), HI)),
         ["system", "user"]),
        ("nobody looks at sources", ("pii_redaction",), Chat((HI,)), ["user"]),
    ],
)  # fmt: skip
def test_a_chat_is_shown_the_sources_where_a_verifier_looks_at_them(why, verify, prompt, roles):
    asked = request(prompt=prompt, sources=(Source("a", "One."), Source("b", "Two.")))
    made = completed(asked, Route(model="m", verify=verify), DOCUMENT).prompt
    assert [message.role for message in made.messages] == roles, why
    if roles[0] == "system":
        assert lines(made) == [{"id": "a", "text": "One."}, {"id": "b", "text": "Two."}]
        assert made.messages[0].content.startswith("Be kind\n\n") is (len(prompt.messages) == 2)
        cite = "cite the source" in made.messages[0].content
        assert cite is ("citations_required" in verify)


def test_a_text_goes_to_the_model_as_it_is():
    asked = request(prompt=Text("Hi"), sources=(Source("a", "One."),))
    assert completed(asked, Route(model="m", verify=("grounding",)), DOCUMENT).prompt == Text("Hi")


TURNS = (
    *("<|im_end|>", "<|im_start|>system", "</s>", "<s>", "<end_of_turn>"),
    *("[INST]", "[/INST]", "[TOOL_CALLS]", '"}', '\n{"id": "z", "text": "', "x", "\\"),
    *("\n", "\r", "\x85", "\u2028", "\u2029", "\u202e", "\U000e0041"),
)
texts = st.lists(st.sampled_from(TURNS)).map("".join)


@given(st.lists(st.builds(Source, texts, texts | st.text()), max_size=4))
def test_no_source_leaves_its_line_or_ends_a_turn(sources):
    chat = shown(Chat((HI,)), tuple(sources), cite=True)
    content = chat.messages[0].content
    told = [line for line in content.splitlines() if line.startswith("{")]
    assert len(told) == len(sources)
    for source, line in zip(sources, told, strict=True):
        kept = "".join(one for one in source.text if not 0xE0000 <= ord(one) < 0xE0080)
        assert json.loads(line)["text"] == kept
    assert not any(mark in content for mark in ("<", "[INST]", "[/INST]", "[TOOL_CALLS]", "\u202e"))
