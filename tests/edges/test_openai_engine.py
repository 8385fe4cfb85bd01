"""What the OpenAI engine makes of answers, and of clients that leave, over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from edges.provider import (
    CHUNKED,
    DONE,
    HEAD,
    STOP,
    USAGE,
    call,
    chunked,
    chunks,
    delta,
    error,
    openai,
    said,
    says,
    sse,
    tool,
)

from forebay.corridor import Corridor
from forebay.edges import cloud
from forebay.errors import (
    EngineUnavailable,
    Overloaded,
    SettingsError,
)
from forebay.policy.rules import Target
from forebay.testing import FakeEngine, LoopClock, house, request
from forebay.values import (
    Decided,
    Done,
    Sampling,
    Text,
    Token,
    ToolCall,
    Usage,
)


@pytest.mark.parametrize(
    ("why", "stream", "text", "finish"),
    [
        ("pieces", sse(says("He"), says("llo"), STOP, DONE), "Hello", "stop"),
        (
            "role first",
            sse(delta(role="assistant", content=""), says("a"), STOP, DONE),
            "a",
            "stop",
        ),
        ("the last words with the end", sse(delta("length", content="a"), DONE), "a", "length"),
        ("no [DONE]", sse(says("a"), STOP), "a", "stop"),
        ("no last empty line", sse(says("a"), STOP).rstrip(), "a", "stop"),
        ("CRLF", sse(says("a"), STOP, DONE).replace(b"\n", b"\r\n"), "a", "stop"),
        ("comments", b": wait\n\n" + sse(says("a"), b": on\n\n", STOP, DONE), "a", "stop"),
        ("ids and retries", b"id: 1\nretry: 5\n" + sse(says("a"), STOP, DONE), "a", "stop"),
        ("an empty finish", sse(delta("", content="a"), STOP, DONE), "a", "stop"),
        ("no choices at first", sse({"choices": []}, says("a"), STOP, DONE), "a", "stop"),
        (
            "others' choices",
            sse({"choices": [{"index": 1, "delta": {"content": "b"}}]}, STOP),
            "",
            "stop",
        ),
        ("an end of its own", sse(says("a"), delta("end_turn")), "a", "stop"),
        ("nonsense after the end", sse(says("a"), STOP) + b"data: {cut", "a", "stop"),
    ],
)
async def test_answers(why, stream, text, finish):
    async with openai(HEAD, stream) as (engine, _):
        got = await chunks(engine)
    assert "".join(chunk.text for chunk in got) == text, why
    assert [chunk.finish for chunk in got] == [None] * (len(got) - 1) + [finish]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_how_bytes_arrive_makes_no_difference(size):
    stream = sse(says("Grüße, "), says("世界"), USAGE, STOP, DONE)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    async with openai(HEAD, *pieces) as (engine, _):
        got = await chunks(engine)
    assert [chunk.text for chunk in got] == ["Grüße, ", "世界", ""]


async def test_the_providers_own_count_comes_last():
    async with openai(HEAD, sse(says("a"), STOP, USAGE, DONE)) as (engine, _):
        got = await chunks(engine)
    assert [chunk.tokens for chunk in got] == [1, 0]
    assert got[-1].usage == Usage(12, 7, 4)


async def test_a_break_after_the_end_loses_only_the_count():
    cut = (chunked(sse(says("a"))), chunked(sse(STOP)))
    async with openai(CHUNKED, *cut) as (engine, _):
        got = await chunks(engine)
    assert (got[-1].finish, got[-1].usage) == ("stop", None)


async def test_logprobs_count_tokens():
    some = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}
    said = {"choices": [{"index": 0, "delta": {"content": "ab"}, "logprobs": some}]}
    async with openai(HEAD, sse(said, STOP, DONE)) as (engine, _):
        got = await chunks(engine)
    assert (got[0].tokens, got[0].logprobs) == (2, (-0.5, -1.0))


async def test_thinking_is_counted_and_not_shown():
    async with openai(HEAD, sse(delta(reasoning_content="hm"), says("a"), STOP)) as (engine, _):
        got = await chunks(engine)
    assert [(chunk.text, chunk.tokens) for chunk in got] == [("", 1), ("a", 1), ("", 0)]


@pytest.mark.parametrize(
    ("why", "events", "calls"),
    [
        (
            "in pieces, two at once",
            [
                tool(0, id="c0", name="find"),
                tool(1, id="c1", name="sum"),
                tool(0, '{"a"'),
                tool(1, "{}"),
                tool(0, ": 1}"),
                delta("tool_calls"),
            ],
            (ToolCall("c0", "find", '{"a": 1}'), ToolCall("c1", "sum", "{}")),
        ),
        (
            "whole, without index or id, ended by stop",
            [
                delta(tool_calls=[{"function": {"name": "find", "arguments": {"a": 1}}}]),
                delta(tool_calls=[{"function": {"name": "sum", "arguments": ""}}]),
                STOP,
            ],
            (ToolCall("call_r-1_0", "find", '{"a":1}'), ToolCall("call_r-1_1", "sum", "{}")),
        ),
    ],
)
async def test_tool_calls(why, events, calls):
    async with openai(HEAD, sse(*events, DONE)) as (engine, _):
        got = await chunks(engine)
    assert got[-1].tool_calls == calls, why
    assert got[-1].finish == "tool_calls"


async def test_a_call_that_was_cut_short_is_none():
    events = [tool(0, '{"a', id="c0", name="find"), delta("length")]
    async with openai(HEAD, sse(*events, DONE)) as (engine, _):
        got = await chunks(engine)
    assert (got[-1].finish, got[-1].tool_calls) == ("length", ())


@pytest.mark.parametrize(
    ("why", "script"), [("before its headers", (...,)), ("before its first token", (HEAD, ...))]
)
async def test_a_hang_up_while_waiting_reaches_the_provider(why, script):
    async with openai(*script, stall_s=5.0) as (engine, provider):
        waiting = asyncio.create_task(chunks(engine))
        await provider.asked.wait()
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_hang_up_midway_reaches_the_provider():
    async with openai(HEAD + sse(says("a"), says("b")), ..., stall_s=5.0) as (engine, provider):
        async with aclosing(engine.generate(call())) as answer:
            assert (await anext(answer)).text == "a"
        assert engine._sdk._client._transport._pool.connections == []
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_nothing_is_tried_twice():
    async with openai(error("500 Broken", said("x"))) as (engine, provider):
        with pytest.raises(EngineUnavailable):
            await chunks(engine, call(sampling=Sampling(max_tokens=1)))
    assert len(provider.bodies) == 1


POLICY = {
    "models": {
        "local": {"triton": {}, "limits": {"max_inflight": 1}},
        "cloud": {"openai": {"model": "any", "base_url": "http://127.0.0.1:1/v1"}},
    },
    "default": {"model": "local", "spill": {"to": "cloud"}},
}


async def test_a_full_engine_spills_to_it():
    async with openai(HEAD, sse(says("from "), says("afar"), STOP, DONE)) as (engine, _):
        engines = {"local": FakeEngine(error=Overloaded("full", 1.0)), "cloud": engine}
        events = [e async for e in Corridor(house(engines, POLICY)).run(request())]
    assert "".join(event.text for event in events if isinstance(event, Token)) == "from afar"
    assert [e.move for e in events if isinstance(e, Decided)] == ["first", "spill"]
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize(
    ("adapter", "made_by"),
    [
        ("openai", "OpenAIEngine"),
        ("anthropic", "AnthropicEngine"),
        ("google", "GoogleEngine"),
        ("triton", None),
    ],
)
async def test_which_targets_are_clouds(adapter, made_by):
    said = {"model": "any"} if adapter == "triton" else {"model": "any", "key": "env:ABSENT"}
    made = cloud.engine("it", Target.model_validate({adapter: said}), LoopClock(), {})
    assert (None if made is None else type(made).__name__) == made_by
    if made is not None:
        await made.close()


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x", "http://", "http://[x/", ""])
@pytest.mark.parametrize("adapter", ["openai", "anthropic", "google"])
def test_an_address_that_is_none_is_told_at_start(adapter, url):
    rule = Target.model_validate({adapter: {"model": "m", "base_url": url}})
    with pytest.raises(SettingsError, match=rf"models\.it\.{adapter}\.base_url"):
        cloud.engine("it", rule, LoopClock(), {})


@pytest.mark.parametrize("model", ["", "a b", "gemini?alt=json", "../files", "a&b", "a%2fb"])
@pytest.mark.parametrize("adapter", ["openai", "anthropic", "google"])
def test_a_model_that_is_no_name_is_told_at_start(adapter, model):
    rule = Target.model_validate({adapter: {"model": model}})
    with pytest.raises(SettingsError, match=rf"models\.it\.{adapter}\.model"):
        cloud.engine("it", rule, LoopClock(), {})


async def test_a_prompt_too_long_for_a_cloud_climbs_before_it_is_called():
    small = {"openai": {"model": "any", "base_url": "http://127.0.0.1:1/v1"}}
    small["limits"] = {"context_tokens": 120, "max_output_tokens": 50}
    policy = {"models": {"small": small, "local": {"triton": {}}}}
    policy["default"] = {"model": "small", "fallback": "local"}
    engine = cloud.engine("small", Target.model_validate(small), LoopClock(), {})
    engines = {"small": engine, "local": FakeEngine()}
    longer = request(prompt=Text("a" * 480))  # 124
    events = [e async for e in Corridor(house(engines, policy)).run(longer)]
    await engine.close()
    assert [(e.target, e.move) for e in events if isinstance(e, Decided)] == [("local", "escalate")]
    fits = request(prompt=Text("a" * 400))  # 104, which leaves room for a short answer
    assert house(engines, policy).most(fits, "small", await engine.prepare(fits)) == 16
