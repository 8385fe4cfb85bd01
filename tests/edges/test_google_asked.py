"""What the Google engine asks for."""

from __future__ import annotations

import json

import pytest
from edges.google_wire import STOP, google
from edges.provider import HEAD, SAMPLED, call, chunks

from forebay.edges.cloud.google import asked
from forebay.errors import InvalidRequest
from forebay.testing import request
from forebay.values import Chat, Guide, Message, Text, Tool, ToolCall

FIND = Tool("find", "finds", {"type": "object", "properties": {}})
TURNS = (
    Message("system", "Be brief."),
    Message("user", "Where?"),
    Message(
        "assistant", "", (ToolCall("c0", "find", '{"a": "x"}'), ToolCall("c1", "find", "nope"))
    ),
    Message("tool", '{"at": 3}', tool_call_id="c0"),
    Message("tool", "here", tool_call_id="c1"),
    Message("system", "Be kind."),
)


async def test_what_is_asked():
    made = call(7, prompt=Chat(TURNS), sampling=SAMPLED, tools=(FIND,), tool_choice="find")
    async with google(HEAD, STOP) as (engine, provider):
        await chunks(engine, made)
    assert provider.paths == ["/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"]
    assert provider.bodies == [
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Where?"}]},
                {
                    "role": "model",
                    "parts": [
                        {
                            "functionCall": {"id": "c0", "name": "find", "args": {"a": "x"}},
                            "thoughtSignature": "skip_thought_signature_validator",
                        },
                        {
                            "functionCall": {
                                "id": "c1",
                                "name": "find",
                                "args": {"arguments": "nope"},
                            }
                        },
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"id": "c0", "name": "find", "response": {"at": 3}}},
                        {
                            "functionResponse": {
                                "id": "c1",
                                "name": "find",
                                "response": {"result": "here"},
                            }
                        },
                    ],
                },
            ],
            "generationConfig": {
                "maxOutputTokens": 7,
                "temperature": 0.5,
                "topP": 0.9,
                "topK": 7,
                "seed": 3,
                "presencePenalty": 0.2,
                "frequencyPenalty": 0.3,
                "stopSequences": ["END"],
            },
            "systemInstruction": {"parts": [{"text": "Be brief.\n\nBe kind."}]},
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": "find",
                            "description": "finds",
                            "parametersJsonSchema": {"type": "object", "properties": {}},
                        }
                    ]
                }
            ],
            "toolConfig": {
                "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["find"]}
            },
        }
    ]


@pytest.mark.parametrize(
    ("model", "signed"),
    [
        ("gemini-2.5-flash", False),
        ("models/gemini-2.0-flash", False),
        ("gemini-1.5-pro", False),
        ("gemini-3-flash", True),
        ("gemini-3.8-flash", True),
        ("gemini-flash-latest", True),
        ("gemini-25-flash", True),
    ],
)
def test_which_models_want_a_signature(model, signed):
    called = asked.contents(request(prompt=Chat(TURNS)), model)[1]["parts"]
    assert ["thoughtSignature" in part for part in called] == [signed, False]


@pytest.mark.parametrize(
    ("why", "turns", "expected"),
    [
        ("a plain text", Text("hi"), [("user", ["hi"])]),
        ("one role twice", [("user", "a"), ("user", "b")], [("user", ["a", "b"])]),
        ("an empty turn", [("user", "a"), ("assistant", ""), ("user", "b")],
         [("user", ["a", "b"])]),
        ("only the system's", [("system", "a")], [("user", ["a"])]),
        ("a developer's", [("developer", "a"), ("user", "b")], [("user", ["b"])]),
    ],
)  # fmt: skip
def test_turns(why, turns, expected):
    prompt = turns
    if isinstance(turns, list):
        prompt = Chat(tuple(Message(role, said) for role, said in turns))
    made = asked.contents(request(prompt=prompt), "gemini")
    assert [(m["role"], [part["text"] for part in m["parts"]]) for m in made] == expected, why


def test_a_result_whose_call_is_unknown():
    turns = Chat((Message("user", "a"), Message("tool", "[1]", tool_call_id="c9")))
    last = asked.contents(request(prompt=turns), "gemini")[-1]["parts"][-1]
    assert last == {"functionResponse": {"id": "c9", "name": "c9", "response": {"result": [1]}}}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ("find", {"mode": "ANY", "allowedFunctionNames": ["find"]}),
        ("none", None),
    ],
)
def test_which_tool(choice, config):
    made = call(tools=(FIND,), tool_choice=choice, prompt=Chat((Message("user", "a"),)))
    said = asked.body(made, "gemini")
    assert said.get("toolConfig") == (config and {"functionCallingConfig": config})
    assert ("tools" in said) == (config is not None)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}}
SCHEMED = Guide("json_schema", json.dumps(SCHEMA))


@pytest.mark.parametrize(
    ("why", "changed", "config", "in_words"),
    [
        ("free", {}, {}, False),
        ("json", {"guide": Guide("json")}, {"responseMimeType": "application/json"}, False),
        (
            "a schema",
            {"guide": SCHEMED},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
            False,
        ),
        (
            "a schema that says nothing",
            {"guide": Guide("json_schema", "true")},
            {"responseMimeType": "application/json"},
            False,
        ),
        ("beside tools", {"guide": SCHEMED, "tools": (FIND,)}, {}, True),
        ("a demanded call", {"guide": SCHEMED, "tools": (FIND,), "tool_choice": "find"}, {}, False),
    ],
)
def test_forms(why, changed, config, in_words):
    said = asked.body(call(7, **changed), "gemini")
    assert said["generationConfig"] == {"maxOutputTokens": 7, **config}, why
    assert ("systemInstruction" in said) == in_words


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
    async with google() as (engine, _):
        with pytest.raises(InvalidRequest):
            await engine.prepare(request(**changed))
