"""What the OpenAI engine asks for, and with which key."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from edges.provider import HEAD, SAMPLED, STOP, call, chunks, error, openai, sse

from forebay.edges.cloud import Key
from forebay.edges.cloud.openai import asked
from forebay.errors import (
    EngineUnavailable,
    InvalidRequest,
)
from forebay.testing import request
from forebay.values import (
    Chat,
    Guide,
    Message,
    Text,
    Tool,
    ToolCall,
)

SECRET = "sk-proj-0123456789abcdef"


async def test_what_a_compatible_server_is_asked():
    turns = (
        Message("system", "Be brief."),
        Message("user", "Where?"),
        Message("assistant", "", (ToolCall("c0", "find", "{}"),)),
        Message("tool", "here", tool_call_id="c0"),
    )
    one = Tool("find", "finds", {"type": "object", "properties": {}})
    made = call(7, prompt=Chat(turns), sampling=SAMPLED, tools=(one,), tool_choice="find")
    async with openai(HEAD, sse(STOP)) as (engine, provider):
        await chunks(engine, made)
    assert provider.bodies == [
        {
            "model": "any",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Where?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c0",
                            "type": "function",
                            "function": {"name": "find", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "content": "here", "tool_call_id": "c0"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "presence_penalty": 0.2,
            "frequency_penalty": 0.3,
            "stop": ["END"],
            "logprobs": True,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "find",
                        "description": "finds",
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
            "tool_choice": {"type": "function", "function": {"name": "find"}},
            "top_k": 7,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "bad_words": ["no"],
        }
    ]


def test_openai_is_told_only_what_it_knows():
    said = asked.params(call(7, sampling=SAMPLED), "gpt", compatible=False)
    assert said["max_completion_tokens"] == 7
    assert not {"max_tokens", "top_k", "bad_words", "tools", "response_format"} & set(said)


STRICT = {
    "type": "object",
    "properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/b"}]}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"b": {"type": "array", "items": {"type": "string"}}},
}


@pytest.mark.parametrize(
    ("why", "schema", "strict"),
    [
        ("closed all the way", STRICT, True),
        ("an optional property", {**STRICT, "required": []}, False),
        ("open", {k: v for k, v in STRICT.items() if k != "additionalProperties"}, False),
        ("a list at the root", {"type": "array", "items": STRICT}, False),
        ("an unknown word inside", {**STRICT, "$defs": {"b": {"minLength": 1}}}, False),
        ("open inside", {**STRICT, "$defs": {"b": {"type": "object"}}}, False),
        ("no schema", {**STRICT, "$defs": 3}, False),
    ],
)
def test_strict_schemas(why, schema, strict):
    form = asked.response_format(request(guide=Guide("json_schema", json.dumps(schema))))
    assert form["json_schema"] == {"name": "answer", "schema": schema, "strict": strict}, why


def test_json_is_asked_for_in_words_too():
    guide = Guide("json")
    assert asked.response_format(request(guide=guide)) == {"type": "json_object"}
    assert len(asked.messages(request("Say it", guide=guide))) == 2
    assert len(asked.messages(request("Say it in JSON", guide=guide))) == 1


def test_a_demanded_call_is_no_response_format():
    demanded = request(
        tools=(Tool("find"),), tool_choice="required", guide=Guide("json_schema", "{}")
    )
    said = asked.params(replace(call(), request=demanded), "gpt", compatible=False)
    assert said["tool_choice"] == "required"
    assert "response_format" not in said


@pytest.mark.parametrize(
    ("tools", "several", "told"),
    [((Tool("find"),), True, None), ((Tool("find"),), False, False), ((), False, None)],
)
def test_one_call_at_a_time_is_said_where_there_are_tools(tools, several, told):
    asking = call(tools=tools, parallel_tool_calls=several)
    said = asked.params(asking, "gpt", compatible=True)
    assert said.get("parallel_tool_calls") is told


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("a regular expression", {"guide": Guide("regex", "a+")}),
        ("a schema that is no JSON", {"guide": Guide("json_schema", "{")}),
        ("nothing", {"prompt": Text("")}),
        ("no turns", {"prompt": Chat(())}),
        ("half a pair", {"prompt": Text("\ud83d")}),
    ],
)
async def test_what_cannot_be_asked(why, changed):
    async with openai() as (engine, _):
        with pytest.raises(InvalidRequest):
            await engine.prepare(request(**changed))


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [(Text("a" * 400), 104), (Text("世" * 4), 7), (Chat((Message("user", "abcd"),) * 3), 15)],
)
async def test_the_estimate(prompt, tokens):
    async with openai() as (engine, _):
        made = await engine.prepare(request(prompt=prompt))
    assert (made.prompt_tokens, made.ids) == (tokens, ())


async def test_the_key_travels_and_the_environment_does_not(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "ambient")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Ambient: ambient")
    place = tmp_path / "key"
    place.write_text(f"{SECRET}\n")
    async with openai(HEAD, sse(STOP), key=Key(f"file:{place}", {})) as (engine, provider):
        await chunks(engine)
        place.write_text("sk-turned")
        await chunks(engine)
    assert [told["authorization"] for told in provider.headers] == [
        f"bearer {SECRET}",
        "bearer sk-turned",
    ]
    assert "ambient" not in str(provider.headers)
    async with openai(HEAD, sse(STOP)) as (engine, provider):
        await chunks(engine)
    assert "authorization" not in provider.headers[0]
    assert "ambient" not in str(provider.headers)


def quoting(status):
    body = {"error": {"message": f"bad key {SECRET} or sk-pro***cdef", "code": "x"}}
    return error(status, body)


@pytest.mark.parametrize("status", ["401 No", "403 No", "400 Bad", "500 Broken", "429 Full"])
async def test_no_error_shows_a_key(status, caplog):
    key = Key("env:CLOUD_KEY", {"CLOUD_KEY": SECRET})
    async with openai(quoting(status), key=key) as (engine, _):
        with pytest.raises(Exception, match="cloud") as caught:
            await chunks(engine)
    told = f"{caught.value!r} {caught.value.__cause__!r} {key!r} {vars(engine)!r} {caplog.text}"
    assert SECRET[:12] not in told
    assert "sk-pro***" not in told
    if status[:3] in ("401", "403"):
        assert isinstance(caught.value, EngineUnavailable)
        assert "env:CLOUD_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("why", "source", "environ", "match"),
    [
        ("unset", "env:NOPE", {}, "cloud does not answer: the key env:NOPE is not set"),
        ("empty", "env:BLANK", {"BLANK": " \n"}, "env:BLANK is not set"),
        ("two lines", "env:TWO", {"TWO": "a\nb"}, "env:TWO holds what is no key"),
        ("no file", "file:/nowhere/at/all", {}, "cannot be read: No such file"),
    ],
)
async def test_a_key_that_is_not_there(why, source, environ, match):
    async with openai(key=Key(source, environ)) as (engine, provider):
        with pytest.raises(EngineUnavailable, match=match):
            await chunks(engine)
    assert provider.bodies == []
