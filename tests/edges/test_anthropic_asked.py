"""What the Anthropic engine asks for."""

from __future__ import annotations

import json

import pytest
from edges.anthropic_wire import anthropic, end, start
from edges.provider import HEAD, SAMPLED, call, chunks

from forebay.edges.cloud.anthropic import asked
from forebay.errors import InvalidRequest
from forebay.testing import request
from forebay.values import Chat, Guide, Message, Sampling, Text, Tool, ToolCall

FIND = Tool("find", "finds", {"properties": {"a": {"type": "string"}}})
TURNS = (
    Message("system", "Be brief."),
    Message("user", "Where?"),
    Message("assistant", "Let me see.", (ToolCall("c.0", "find", '{"a": "x"}'),) * 2),
    Message("tool", "here", tool_call_id="c.0"),
    Message("tool", "", tool_call_id="c1"),
    Message("user", "Thanks"),
    Message("system", "Be kind."),
)
USE = {"type": "tool_use", "id": "c_0", "name": "find", "input": {"a": "x"}}


def text(said):
    return {"type": "text", "text": said}


async def test_what_is_asked():
    made = call(7, prompt=Chat(TURNS), sampling=SAMPLED, tools=(FIND,), tool_choice="find")
    async with anthropic(HEAD, start() + end()) as (engine, provider):
        await chunks(engine, made)
    assert provider.paths == ["/v1/messages"]
    assert provider.bodies == [
        {
            "model": "any",
            "max_tokens": 7,
            "stream": True,
            "system": "Be brief.\n\nBe kind.",
            "messages": [
                {"role": "user", "content": [text("Where?")]},
                {"role": "assistant", "content": [text("Let me see."), USE, USE]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "c_0", "content": [text("here")]},
                        {"type": "tool_result", "tool_use_id": "c1"},
                        text("Thanks"),
                    ],
                },
            ],
            "stop_sequences": ["END"],
            "tools": [
                {
                    "name": "find",
                    "description": "finds",
                    "input_schema": {
                        "type": "object",
                        "properties": {"a": {"type": "string"}},
                    },
                }
            ],
            "tool_choice": {"type": "tool", "name": "find"},
        }
    ]


@pytest.mark.parametrize(
    ("why", "turns", "expected"),
    [
        ("a plain text", Text("hi"), [("user", ["hi"])]),
        ("the model's turn first", [("assistant", "hi"), ("user", "a")],
         [("user", ["Begin."]), ("assistant", ["hi"]), ("user", ["a"])]),
        ("one role twice", [("user", "a"), ("user", "b")], [("user", ["a", "b"])]),
        ("an empty turn", [("user", "a"), ("assistant", " "), ("user", "b")],
         [("user", ["a", "b"])]),
        ("only the system's", [("system", "a")], [("user", ["a"])]),
        ("a developer's", [("developer", "a"), ("user", "b")], [("user", ["b"])]),
    ],
)  # fmt: skip
def test_turns(why, turns, expected):
    prompt = turns
    if isinstance(turns, list):
        prompt = Chat(tuple(Message(role, said) for role, said in turns))
    made = asked.messages(request(prompt=prompt))
    assert [(m["role"], [part["text"] for part in m["content"]]) for m in made] == expected, why


@pytest.mark.parametrize(
    ("why", "written", "told"),
    [
        ("an object", '{"a": 1}', {"a": 1}),
        ("nothing", "", {}),
        ("no JSON", '{"a": ', {"arguments": '{"a": '}),
        ("no object", "[1]", {"arguments": [1]}),
    ],
)
def test_arguments_of_earlier_calls(why, written, told):
    turn = Message("assistant", "", (ToolCall("c0", "find", written),))
    made = asked.messages(request(prompt=Chat((Message("user", "a"), turn))))
    assert made[1]["content"] == [{"type": "tool_use", "id": "c0", "name": "find", "input": told}]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ("find", {"type": "tool", "name": "find"}),
    ],
)
def test_which_tool(choice, told):
    made = call(tools=(FIND,), tool_choice=choice, prompt=Chat((Message("user", "a"),)))
    said = asked.params(made, "claude")
    assert said["tool_choice"] == told
    assert [tool["name"] for tool in said["tools"]] == ["find"]


@pytest.mark.parametrize("choice", ["auto", "required", "find", "none"])
def test_one_call_at_a_time(choice):
    made = call(tools=(FIND,), tool_choice=choice, parallel_tool_calls=False)
    told = asked.params(made, "claude")["tool_choice"]
    assert told.get("disable_parallel_tool_use", False) is (choice != "none")


def test_earlier_calls_bring_their_tools():
    said = asked.params(call(prompt=Chat(TURNS)), "claude")
    assert said["tools"] == [{"name": "find", "input_schema": {"type": "object"}}]
    assert said["tool_choice"] == {"type": "none"}


CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("why", "schema", "held"),
    [
        ("closed, one property optional", CLOSED, True),
        ("open", {**CLOSED, "additionalProperties": True}, False),
        ("a word it does not know", {**CLOSED, "minProperties": 1}, False),
        ("bounds inside", {**CLOSED, "properties": {"a": {"type": "string", "minLength": 2}}},
         False),
        ("requires what is not there", {**CLOSED, "required": ["c"]}, False),
        ("a list", {"type": "array", "items": CLOSED}, False),
    ],
)  # fmt: skip
def test_schemas(why, schema, held):
    guide = Guide("json_schema", json.dumps(schema))
    said = asked.params(call(guide=guide), "claude")
    told = {"format": {"type": "json_schema", "schema": schema}}
    assert said.get("output_config") == (told if held else None), why
    assert ("JSON Schema is: " + guide.source in said.get("system", "")) != held


def test_json_is_asked_for_in_words():
    turns = Chat((Message("system", "Be brief."), Message("user", "hi")))
    said = asked.params(call(guide=Guide("json"), prompt=turns), "claude")
    assert said["system"] == "Be brief.\n\nAnswer with JSON only."
    assert "output_config" not in said


def test_a_demanded_call_has_no_other_form():
    guide = Guide("json_schema", json.dumps(CLOSED))
    said = asked.params(call(guide=guide, tools=(FIND,), tool_choice="required"), "claude")
    assert "output_config" not in said
    assert "system" not in said


def test_how_tokens_are_drawn_is_not_said():
    said = asked.params(
        call(sampling=Sampling(temperature=0, top_p=0.5, top_k=3, seed=1)), "claude"
    )
    assert set(said) == {"model", "max_tokens", "stream", "messages"}


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("a regular expression", {"guide": Guide("regex", "a+")}),
        ("a schema that is no JSON", {"guide": Guide("json_schema", "{")}),
        ("nothing", {"prompt": Text("")}),
        ("half a pair", {"prompt": Text("\ud83d")}),
    ],
)
async def test_what_cannot_be_asked(why, changed):
    async with anthropic() as (engine, _):
        with pytest.raises(InvalidRequest):
            await engine.prepare(request(**changed))
