"""What a target outside the house is told: nothing personal, wherever it stands in a request."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest
from forebay.policy.outgoing import LENGTHY, cleaned, lengthy
from forebay.testing import request
from forebay.values import Chat, Message, Text, Tool, ToolCall

MAIL = "ada@example.com"


def chat(*turns):
    return request(prompt=Chat(turns))


CALLED = Message("assistant", "", (ToolCall("c1", "mail", json.dumps({"to": MAIL})),))


@pytest.mark.parametrize(
    ("why", "asked", "found"),
    [
        ("a text", request(f"Write to {MAIL} now."), "1 EMAIL"),
        ("a user's turn", chat(Message("user", f"I am {MAIL}")), "1 EMAIL"),
        ("the system's", chat(Message("system", f"Serve {MAIL}"), Message("user", "Hi")),
         "1 EMAIL"),
        ("what a tool said", chat(Message("user", "?"), CALLED,
         Message("tool", f"{MAIL} is unknown", tool_call_id="c1")), "2 EMAIL"),
        ("a tool's description", request(prompt=Chat((Message("user", "Hi"),)),
         tools=(Tool("find", f"Ask {MAIL} before use"),)), "1 EMAIL"),
        ("in another script's letters", chat(Message("user", "ada\uff20example.com")), "1 EMAIL"),
        ("across where the text is cut for reading",
         request("x" * 4090 + f" {MAIL} " + "y" * 5000), "1 EMAIL"),
    ],
)  # fmt: skip
def test_what_is_personal_stays(why, asked, found):
    told, verdict = cleaned(asked)
    assert verdict is not None, why
    assert (verdict.outcome, verdict.reason) == (
        "redacted", f"in what the target was told: {found}"
    ), why  # fmt: skip
    assert MAIL not in str(asdict(told)), why


def test_calls_stay_json_and_whom_they_name():
    told, _ = cleaned(chat(Message("user", "?"), CALLED))
    (call,) = told.prompt.messages[1].tool_calls
    assert (call.id, call.name, json.loads(call.arguments)) == ("c1", "mail", {"to": "[EMAIL]"})


def test_arguments_that_are_no_json_without_it_go_nowhere():
    number = Message("assistant", "", (ToolCall("c1", "pay", '{"card": 4111111111111111}'),))
    with pytest.raises(InvalidRequest, match="call c1"):
        cleaned(chat(Message("user", "?"), number))


def test_a_request_without_anything_personal_is_the_same_object():
    asked = chat(Message("user", "What is a forebay?"))
    assert cleaned(asked) == (asked, None)
    assert cleaned(asked)[0] is asked


@given(before=st.text(max_size=60), after=st.text(max_size=60))
def test_it_is_found_whatever_stands_around_it(before, after):
    told, _ = cleaned(request(f"{before} {MAIL} {after}"))
    assert MAIL not in told.prompt.text


@pytest.mark.parametrize(("size", "long"), [(LENGTHY, False), (LENGTHY + 1, True)])
def test_length(size, long):
    assert lengthy(request(prompt=Text("x" * size))) is long
    assert lengthy(chat(Message("user", "x" * size))) is long
