"""The OpenAI-compatible door on a real server: the SDK, every status, hang-ups, hostile clients."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import httpx
import openai
import pytest
import pytest_asyncio
from doors import HTTP, NAMES, behind, http_door
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from forebay.edges.http_door import HttpDoor
from forebay.edges.http_door.bodies import HARMLESS, REFUSED
from forebay.edges.http_door.density import MAX_VALUES, sparse
from forebay.errors import (
    STATUS,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    Overloaded,
    SettingsError,
    TooLarge,
)
from forebay.testing import FakeEngine, LoopClock
from forebay.values import Chunk, ToolCall

MANY = ("word ",) * 400
HI = {"model": "auto", "messages": [{"role": "user", "content": "Say hello"}]}


@asynccontextmanager
async def web(back):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{back.port}", timeout=5) as client:
        yield client


def sdk(back):
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{back.port}/v1", api_key="none", max_retries=0, timeout=5
    )


def frames(raw: str):
    """Return the data of each event of an SSE body."""
    events = [part for part in raw.split("\n\n") if part]
    assert all(event.startswith("data: ") for event in events)
    return [event.removeprefix("data: ") for event in events]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing():
    """One door for the tests that only send."""
    async with http_door() as back:
        yield back


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing():
    """One door whose engine fails as each test says."""
    async with http_door() as back:
        yield back


# ---- answers ----------------------------------------------------------------------------


async def test_a_whole_answer_through_the_sdk():
    async with http_door() as back, sdk(back) as client:
        answer = await client.chat.completions.create(**HI)
    assert answer.choices[0].message.content == "Hello, world."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "local"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4
    assert answer.forebay["route"] == "default"
    assert answer.forebay["request_id"] == back.ledger.records[0].id == answer._request_id
    assert back.ledger.records[0].door == "http"


async def test_a_stream_through_the_sdk_with_usage():
    async with http_door() as back, sdk(back) as client:
        stream = await client.chat.completions.create(
            **HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].forebay["target"] == "local"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Hello, world."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 4)
    assert len({c.id for c in chunks}) == 1


async def test_the_bytes_of_a_stream():
    engine = FakeEngine(script=('say "hi"\n', "\u2603\x00", "\U0001f600"))
    async with http_door(engine) as back, web(back) as client:
        answer = await client.post("/v1/chat/completions", json={**HI, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"] == back.ledger.records[0].id
    told = frames(answer.text)
    assert told[-1] == "[DONE]"
    parsed = [json.loads(frame) for frame in told[:-1]]
    texts = [frame["choices"][0]["delta"].get("content") for frame in parsed]
    assert texts == ["", 'say "hi"\n', "\u2603\x00", "\U0001f600", None]
    assert [frame["choices"][0]["finish_reason"] for frame in parsed] == [None] * 4 + ["stop"]


class Calling(FakeEngine):
    """An engine that ends with a call of a tool."""

    async def generate(self, call):
        self.calls.append(call)
        yield Chunk("", 3)
        yield Chunk(finish="tool_calls", tool_calls=(ToolCall("call_1", "look", '{"at":"x"}'),))


class Where(BaseModel):
    """Where to look."""

    at: str


TOOL = openai.pydantic_function_tool(Where, name="look")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_and_a_schema_through_the_sdk(stream):
    async with http_door(Calling()) as back, sdk(back) as client:
        asked = {
            **HI,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
            },
        }
        if stream:
            events = await client.chat.completions.create(**asked, stream=True)
            chunks = [c async for c in events]
            last = chunks[-1].choices[0]
            call, finish = last.delta.tool_calls[0], last.finish_reason
        else:
            choice = (await client.chat.completions.create(**asked)).choices[0]
            call, finish = choice.message.tool_calls[0], choice.finish_reason
            assert choice.message.content is None
    assert finish == "tool_calls"
    assert (call.id, call.function.name, call.function.arguments) == (
        "call_1",
        "look",
        '{"at":"x"}',
    )
    request = back.engine.calls[0].request
    assert (request.tools[0].name, request.tool_choice) == ("look", "look")
    assert request.tools[0].parameters["properties"]["at"]["type"] == "string"
    form = json.loads(request.guide.source)
    assert form["properties"]["name"] == {"const": "look"}, "a demanded call is the answer's form"


async def test_the_sdks_streaming_helper_parses_a_schema():
    async with (
        http_door(FakeEngine(script=('{"at"', ': "x"}'))) as back,
        sdk(back) as client,
        client.chat.completions.stream(**HI, response_format=Where) as stream,
    ):
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == Where(at="x")


class Sure(FakeEngine):
    """An engine that tells its log-probabilities."""

    async def generate(self, call):
        self.calls.append(call)
        yield Chunk("Hi", 1, logprobs=(-0.5,))
        yield Chunk("!", 1, logprobs=(-0.25,))
        yield Chunk(finish="stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_the_chosen_tokens(stream):
    async with http_door(Sure()) as back, sdk(back) as client:
        made = await client.chat.completions.create(**HI, logprobs=True, stream=stream)
        if stream:
            parts = [c.choices[0].logprobs async for c in made]
            content = [entry for part in parts if part for entry in part.content]
        else:
            content = made.choices[0].logprobs.content
    assert [e.logprob for e in content] == [-0.5, -0.25]
    assert "".join(e.token for e in content) == "Hi!"
    assert [byte for e in content for byte in e.bytes] == [72, 105, 33]
    assert back.engine.calls[0].request.sampling.logprobs


async def test_completions_whole_and_streamed():
    async with http_door(Sure()) as back, sdk(back) as client:
        whole = await client.completions.create(
            model="local", prompt="Say", logprobs=0, max_tokens=9
        )
        stream = await client.completions.create(model="auto", prompt=["Say"], stream=True)
        chunks = [c async for c in stream]
    assert whole.choices[0].text == "Hi!"
    assert whole.choices[0].logprobs.token_logprobs == [-0.5, -0.25]
    assert whole.usage.completion_tokens == 2
    assert "".join(c.choices[0].text for c in chunks) == "Hi!"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert back.engine.calls[0].request.prompt.text == "Say"


async def test_what_a_body_says_reaches_the_corridor():
    body = {
        "model": "local",
        "messages": [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief"}],
            },
            {"role": "user", "content": "Hi", "name": "someone"},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "seen"},
        ],
        "max_completion_tokens": 7,
        "temperature": 1,
        "top_p": 0.5,
        "seed": 3,
        "stop": "END",
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "top_k": 5,
        "response_format": {"type": "json_object"},
        "logit_bias": {},
        "parallel_tool_calls": False,
        "n": 1,
        "user": "u",
        "metadata": {"a": "b"},
        "forebay": {
            "labels": {"task": "chat", "sensitivity": "medium"},
            "tools": [{"name": "look", "parameters": {"type": "object"}}],
            "deadline_ms": 9000,
            "explain": True,
        },
    }
    async with http_door() as back, web(back) as client:
        answer = await client.post(
            "/v1/chat/completions", json=body, headers={"x-forebay-deadline-ms": "4000"}
        )
    assert answer.status_code == 200, answer.text
    request = back.engine.calls[0].request
    turns = request.prompt.messages
    assert [(t.role, t.content) for t in turns[:2]] == [("system", "Be brief"), ("user", "Hi")]
    assert turns[2].tool_calls == (ToolCall("1", "look", "{}"),)
    assert turns[3].tool_call_id == "1"
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 1, 0.5)
    assert (sampling.seed, sampling.stop, sampling.top_k) == (3, ("END",), 5)
    assert (request.guide.kind, request.guide.source) == ("json_schema", '{"type":"object"}')
    assert not request.parallel_tool_calls
    assert request.labels.task == "chat"
    assert request.deadline_s == pytest.approx(request.received_s + 4)
    told = answer.json()["forebay"]
    assert (told["labels"]["task"], told["release"]) == ("chat", "final")
    assert told["timing"]["e2e_ms"] > 0


async def test_sources_are_refused_as_long_as_nothing_reads_them():
    body = {**HI, "forebay": {"sources": [{"id": "s", "text": "t"}]}}
    async with http_door() as back, web(back) as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 501
    assert "sources" in answer.json()["error"]["message"]
    assert back.engine.calls == []


# ---- refusals ---------------------------------------------------------------------------


def deep(levels):
    made = {}
    for _ in range(levels):
        made = {"a": made}
    return made


_ASKED = {
    "n": 2,
    "best_of": 2,
    "logit_bias": {"1": 2},
    "top_logprobs": 2,
    "modalities": ["text", "audio"],
    "echo": True,
    "suffix": "x",
    "min_p": 0.5,
}


PART = {"type": "text", "text": "x"}
CALLED = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
ASSISTANT = {"role": "assistant", "tool_calls": [CALLED] * 100}


@pytest.mark.parametrize(
    ("param", "changed"),
    [
        *((key, {key: _ASKED.get(key, {"x": 1})}) for key in REFUSED),
        ("no_such_key", {"no_such_key": 1}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "x"}),
        ("messages", {"messages": HI["messages"] * 4097}),
        ("messages", {"messages": [ASSISTANT] * 41}),
        ("messages[0].tool_calls", {"messages": [{**ASSISTANT, "tool_calls": [CALLED] * 129}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": [PART] * 1025}]}),
        ("messages[0].role", {"messages": [{"role": "boss", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 1}]}),
        (
            "messages[0].content",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        ),
        ("temperature", {"temperature": 2.5}),
        ("temperature", {"temperature": "hot"}),
        ("top_p", {"top_p": 0}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 1.5}),
        ("max_completion_tokens", {"max_completion_tokens": 0}),
        ("max_tokens", {"max_tokens": 1, "max_completion_tokens": 2}),
        ("seed", {"seed": -1}),
        ("stop", {"stop": ["x"] * 17}),
        ("stop[0]", {"stop": [1]}),
        ("stream", {"stream": "yes"}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("response_format.type", {"response_format": {"type": "grammar"}}),
        ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
        (
            "response_format.json_schema.schema",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": []},
                }
            },
        ),
        (
            "response_format.json_schema.schema",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": deep(400)}}},
        ),
        (
            "tools[0].function.parameters",
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": deep(400)}}]},
        ),
        ("tools[0].type", {"tools": [{"type": "custom", "function": {"name": "x"}}]}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        ("tools", {"tools": [TOOL, TOOL]}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "other"}),
        ("tool_choice", {"tool_choice": 1}),
        ("parallel_tool_calls", {"parallel_tool_calls": "no"}),
        ("forebay.labels.sensitivity", {"forebay": {"labels": {"sensitivity": "odd"}}}),
        ("forebay.label", {"forebay": {"label": {}}}),
        ("forebay.deadline_ms", {"forebay": {"deadline_ms": 0}}),
        ("forebay.explain", {"forebay": {"explain": 1}}),
        ("forebay", {"forebay": "x"}),
        ("model", {"model": "nowhere"}),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_wrong_key_is_named_in_openais_shape(standing, param, changed):
    async with web(standing) as client:
        answer = await client.post("/v1/chat/completions", json={**HI, **changed})
    assert answer.status_code in (400, 404), answer.text
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "code", "param"}
    assert told["type"] == "invalid_request_error"
    if param != "model":
        assert told["param"] == param, told
        assert told["message"].startswith(param)
    assert "pydantic" not in told["message"]
    assert standing.engine.calls == []


async def test_harmless_keys_are_ignored():
    async with http_door() as back, web(back) as client:
        body = {**HI, **dict.fromkeys(HARMLESS, "x"), "tools": None, "logprobs": None}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("why", "raw", "status"),
    [
        ("nothing", b"", 400),
        ("no JSON", b"{", 400),
        ("a list", b"[]", 400),
        ("no text", b"\xff\xfe", 400),
        ("deep", b"[" * 10_000, 400),
        ("many lists", b"[" + b"[]," * 1_300_000 + b"1]", 413),
        ("many keys", json.dumps(dict.fromkeys(map(str, range(200_000)), 1)).encode(), 413),
        ("a lone surrogate", b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400),
        ("large", b" " * (4 * 2**20 + 1), 413),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_body_that_is_no_request(standing, why, raw, status):
    async with web(standing) as client:
        answer = await client.post("/v1/chat/completions", content=raw)
    assert answer.status_code == status, why
    assert answer.json()["error"]["message"]


async def test_a_body_without_a_stated_length_is_bounded_too():
    async def endless():
        for _ in range(6 * 1024):
            yield b" " * 1024

    async with http_door() as back, web(back) as client:
        try:
            answer = await client.post("/v1/chat/completions", content=endless())
        except (httpx.WriteError, httpx.ReadError):
            return
    assert answer.status_code == 413


async def test_a_context_over_its_bound_is_too_large():
    sources = [{"id": str(i), "text": "x" * 1000} for i in range(300)]
    async with http_door() as back, web(back) as client:
        answer = await client.post(
            "/v1/chat/completions", json={**HI, "forebay": {"sources": sources}}
        )
    assert answer.status_code == 413
    assert answer.json()["error"]["param"] == "forebay"


def test_no_bytes_make_it_a_5xx():
    runner = asyncio.Runner()
    door = http_door()
    back = runner.run(door.__aenter__())
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{back.port}", timeout=5)
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    values = st.recursive(
        leaves,
        lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(), s, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(
        [
            "model",
            "messages",
            "tools",
            "stop",
            "seed",
            "forebay",
            "n",
            "tool_choice",
            "response_format",
            "max_tokens",
        ]
    )
    bodies = st.binary(max_size=64) | st.dictionaries(keys, values, max_size=4).map(
        lambda b: json.dumps({**HI, **b}).encode()
    )

    async def send(path, raw):
        answer = await client.post(path, content=raw)
        assert answer.status_code < 500, (raw, answer.text)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(["/v1/chat/completions", "/v1/completions"]), bodies)
    def property_(path, raw):
        runner.run(send(path, raw))

    try:
        property_()
    finally:
        runner.run(client.aclose())
        runner.run(door.__aexit__(None, None, None))
        runner.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", list(STATUS))
async def test_every_error_before_the_first_byte_is_its_status(failing, kind, stream):
    failing.forgive()
    failing.engine.error = kind("a sentence", 2.5) if kind is Overloaded else kind("a sentence")
    async with web(failing) as client:
        answer = await client.post("/v1/chat/completions", json={**HI, "stream": stream})
    status = STATUS[kind]
    assert answer.status_code == status.http
    told = answer.json()["error"]
    assert "a sentence" in told["message"]
    assert told["code"] == status.reason
    assert told["type"] == (
        {403: "permission_error", 429: "rate_limit_error"}.get(status.http)
        or ("server_error" if status.http >= 500 else "invalid_request_error")
    )
    after_s = {Overloaded: "3", EngineUnavailable: "1"}.get(kind)
    assert answer.headers.get("retry-after") == after_s
    assert answer.headers.get("x-should-retry") == (None if after_s else "false")


async def test_a_broken_expectation_tells_nothing_of_itself():
    async with http_door(FakeEngine(error=KeyError("secret"))) as back, web(back) as client:
        answer = await client.post("/v1/chat/completions", json=HI)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text


async def test_an_error_after_the_first_byte_is_an_event_and_no_done():
    engine = FakeEngine(error=EngineFailed("it broke"), error_after=2)
    async with http_door(engine) as back, web(back) as client:
        answer = await client.post("/v1/chat/completions", json={**HI, "stream": True})
    assert answer.status_code == 200
    told = [json.loads(frame) for frame in frames(answer.text)]
    assert told[-1]["error"]["code"] == "engine_failed"
    assert all(f["choices"][0]["finish_reason"] is None for f in told[:-1])
    async with http_door(engine) as back, sdk(back) as client:
        stream = await client.chat.completions.create(**HI, stream=True)
        with pytest.raises(openai.APIError, match="it broke"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/v1/chat/completions", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/models/nowhere", 404),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_paths_that_are_not_there(standing, method, path, status):
    async with web(standing) as client:
        answer = await client.request(method, f"http://127.0.0.1:{standing.port}{path}")
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", "86400001", "012345678901", "9" * 5000])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_deadline_header_is_read_strictly(standing, value):
    async with web(standing) as client:
        answer = await client.post(
            "/v1/chat/completions", json=HI, headers={"x-forebay-deadline-ms": value}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-forebay-deadline-ms"


async def test_a_texts_own_tools_are_refused_by_name():
    said = {"prompt": "Say", "forebay": {"tools": [{"name": "look"}]}}
    async with http_door() as back, web(back) as client:
        answer = await client.post("/v1/completions", json=said)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "forebay.tools"
    assert back.engine.calls == []


async def test_what_the_door_refuses_is_counted_and_what_the_corridor_refuses_is_not():
    path = "/v1/chat/completions"
    async with http_door(settings=replace(HTTP, max_connections=3)) as back, web(back) as client:
        for sent in (b"{", json.dumps({**HI, "n": 2}).encode(), b" " * (4 * 2**20 + 1)):
            await client.post(path, content=sent)
        await client.get("/v1/models/nowhere")
        await client.get("/favicon.ico")
        await client.get(path)
        await client.post(path, json={**HI, "model": "nowhere"})
        back.engine.error = Overloaded("it is full", 1.0)
        for stream in (True, False):
            await client.post(path, json={**HI, "stream": stream})
        for sent in (b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000, b"GET /", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
            writer.write(sent)
            await reader.read()
            writer.close()
        held = [await asyncio.open_connection("127.0.0.1", back.port) for _ in range(3)]
        await held[-1][0].read()
        for _, writer in held:
            writer.close()
    assert back.refusals == [
        ("http", reason)
        for reason in (
            "invalid_request",
            "invalid_request",
            "too_large",
            "unknown_model",
            "not_found",
            "not_found",
            "invalid_request",
            "too_large",
            "invalid_request",
            "overloaded",
        )
    ]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda s: st.lists(s, max_size=5) | st.dictionaries(st.text(), s, max_size=5),
    max_leaves=40,
)


def counted(value):
    """Return how many values a JSON value is, itself included."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(counted(item) for item in inner)


@given(JSON_VALUES, st.booleans())
def test_values_are_counted_as_they_parse(value, ascii_only):
    """A body just over the bound is refused, one that is under it is not: texts do not count."""
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    filler = MAX_VALUES - 2 * counted(value) - 1
    under = b"[%s%s]" % (raw, b",1" * filler)
    assert sparse(under) is under
    with pytest.raises(TooLarge):
        sparse(b"[%s%s]" % (raw, b",1" * (MAX_VALUES + 1)))


@pytest.mark.parametrize(
    "text", ['[{"a":1},' * 200_000, "\\" * 100_000, '"' * 200_000, ',\\"' * 99_999]
)
async def test_a_long_text_is_one_value_whatever_is_in_it(text):
    async with http_door() as back, web(back) as client:
        body = {**HI, "messages": [{"role": "user", "content": text}]}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200


# ---- the rest of the surface ------------------------------------------------------------


async def test_models_health_and_metrics():
    async with http_door() as back, web(back) as client, sdk(back) as openai_client:
        assert [m.id async for m in openai_client.models.list()] == list(NAMES)
        assert (await openai_client.models.retrieve("local")).owned_by == "forebay"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).text == "ready\n"
        metrics = await client.get("/metrics")
        assert (metrics.text, metrics.headers["content-type"]) == (
            "requests_total 1\n",
            "text/plain; version=0.0.4",
        )
        back.why = "Triton does not answer"
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "Triton does not answer\n")
        assert (await client.get("/healthz")).status_code == 200


# ---- clients that leave, stall or attack ------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 5])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_cancels_the_engine_at_once(tokens, stream):
    engine = FakeEngine(script=MANY[:tokens], hang=True)
    async with http_door(engine) as back:
        body = json.dumps({**HI, "stream": stream}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        writer.write(head(len(body)) + body)
        await back.runs()
        read = b""
        while stream and read.count(b"word") < tokens:
            read += await reader.read(65536)
        writer.close()
        await back.cancelled()
        assert back.held == 0
        assert back.ledger.records[0].status == "cancelled"


def head(length, path="/v1/chat/completions"):
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


class Punctual(FakeEngine):
    """An engine that never ends and keeps its call's deadline."""

    async def generate(self, call):
        await asyncio.sleep(call.deadline_s - call.request.received_s)
        raise DeadlineExceeded("the deadline passed")
        yield


async def test_a_deadline_ends_the_request():
    async with http_door(Punctual()) as back, web(back) as client:
        started_s = time.monotonic()
        answer = await client.post(
            "/v1/chat/completions", json=HI, headers={"x-forebay-deadline-ms": "200"}
        )
        assert time.monotonic() - started_s < 3
        assert answer.status_code == 504
        await back.cancelled()


async def test_a_client_that_stops_reading_is_bounded_and_cut():
    word = "x" * 1000
    engine = FakeEngine(script=(word,) * 60_000)
    async with http_door(engine) as back:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", back.port))
        body = json.dumps({**HI, "stream": True, "max_tokens": 60_000}).encode()
        await loop.sock_sendall(sock, head(len(body)) + body)
        await back.runs()
        held = 0
        async with asyncio.timeout(HTTP.stall_s + 2):
            while back.engine.running:
                for connection in back.door._server.server_state.connections:
                    held = max(held, connection.transport.get_write_buffer_size())
                await asyncio.sleep(0.01)
        sock.close()
    assert 0 < held <= 256 * 1024
    assert back.ledger.records[0].status == "cancelled"


async def test_half_open_connections_are_closed_and_others_are_served():
    async with http_door() as back, web(back) as client:
        held = [await asyncio.open_connection("127.0.0.1", back.port) for _ in range(50)]
        for _, writer in held:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        answer = await client.post("/v1/chat/completions", json=HI)
        assert answer.status_code == 200
        async with asyncio.timeout(HTTP.header_s * 3):
            for reader, writer in held:
                rest = await reader.read()
                assert b"408" in rest
                writer.close()


async def test_headers_that_trickle_are_cut_at_the_same_deadline():
    async with http_door() as back:
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        started_s = time.monotonic()

        async def trickle():
            writer.write(b"POST / HTTP/1.1\r\n")
            while True:
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        with suppress(ConnectionResetError):  # a line may come as it closes
            await reader.read()
        assert time.monotonic() - started_s < HTTP.header_s * 5
        trickling.cancel()
        writer.close()


async def test_a_kept_alive_connection_gets_the_deadline_again():
    async with http_door() as back:
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        await asyncio.sleep(HTTP.header_s * 1.5)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        writer.write(b"GET /heal")
        async with asyncio.timeout(HTTP.header_s * 3):
            assert b"408" in await reader.read()
        writer.close()


async def test_a_body_that_trickles_is_cut():
    async with http_door() as back:
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        writer.write(head(1000) + b"{")
        async with asyncio.timeout(HTTP.body_s * 3):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_headers_without_end_are_refused():
    async with http_door() as back:
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        writer.write(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 100_000)
        assert b"431" in await reader.readuntil(b"\r\n")
        writer.close()


async def test_a_large_body_behind_small_headers_is_not_taken_for_headers():
    filler = "x" * 200_000
    async with http_door() as back, web(back) as client:
        body = {**HI, "messages": [{"role": "user", "content": filler}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_connections_over_the_limit_are_told_and_closed():
    async with http_door(settings=replace(HTTP, max_connections=3)) as back:
        held = [await asyncio.open_connection("127.0.0.1", back.port) for _ in range(3)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        assert b"503" in await reader.readuntil(b"\r\n")
        for _, one in (*held, (reader, writer)):
            one.close()


async def test_a_drain_tells_readyz_and_lets_an_answer_end():
    back = behind(FakeEngine(script=MANY[:80], gap_s=0.02))
    door = HttpDoor(
        back.corridor,
        LoopClock(),
        names=lambda: NAMES,
        unready=back.unready,
        metrics=lambda: (b"", "text/plain"),
        settings=replace(HTTP, grace_s=5, lame_duck_s=1.0),
    )
    back.port = await door.start()
    async with web(back) as client:
        answering = asyncio.create_task(
            client.post("/v1/chat/completions", json={**HI, "stream": True})
        )
        await back.runs()
        stopping = asyncio.create_task(door.stop())
        await asyncio.sleep(0.02)
        assert (await client.get("/readyz")).status_code == 503
        answer = await answering
        assert answer.text.endswith("data: [DONE]\n\n")
        await stopping
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthz")


@pytest.mark.parametrize("tokens", [0, 2])
async def test_an_answer_longer_than_the_grace_is_told_so(tokens):
    engine = FakeEngine(script=MANY[:tokens], hang=True)
    async with web_of(engine, replace(HTTP, grace_s=0.1)) as (back, client):
        answering = asyncio.create_task(
            client.post("/v1/chat/completions", json={**HI, "stream": True})
        )
        await back.runs()
        await asyncio.sleep(0.05)
        await back.door.stop()
        answer = await answering
    assert back.engine.running == 0
    told = frames(answer.text)[-1] if tokens else answer.text
    assert "the router stopped" in json.loads(told)["error"]["message"]
    assert answer.status_code == (200 if tokens else 503)


@asynccontextmanager
async def web_of(engine, bounds):
    async with http_door(engine, bounds) as back, web(back) as client:
        yield back, client


async def test_a_taken_port_says_what_to_do():
    async with http_door() as back:
        with pytest.raises(SettingsError, match="FOREBAY_HTTP_PORT"):
            async with http_door(settings=replace(HTTP, port=back.port)):
                pass
