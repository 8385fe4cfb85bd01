"""What the Anthropic engine makes of answers, of what breaks, and of clients that leave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from edges.anthropic_wire import (
    PING,
    STOP,
    anthropic,
    block,
    delta,
    end,
    event,
    failed,
    says,
    start,
)
from edges.provider import CHUNKED, HEAD, call, chunked, chunks, error

from forebay.edges.cloud import faults
from forebay.errors import (
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    TooLarge,
)
from forebay.values import ToolCall, Usage

WHOLE = start() + PING + says("Grüße, ", "世界") + end() + STOP


@pytest.mark.parametrize(
    ("why", "stream", "text", "finish"),
    [
        ("pieces", WHOLE, "Grüße, 世界", "stop"),
        ("a stop sequence", start() + says("a") + end("stop_sequence") + STOP, "a", "stop"),
        ("cut by length", start() + says("a") + end("max_tokens") + STOP, "a", "length"),
        ("no room left", start() + says("a") + end("model_context_window_exceeded"), "a", "length"),
        ("text in the block itself", start() + block(0, text="a") + end() + STOP, "a", "stop"),
        ("nothing", start() + end() + STOP, "", "stop"),
        ("two blocks", start() + says("a") + says("b") + end() + STOP, "ab", "stop"),
        (
            "an event of the future",
            start() + event("novelty", x=1) + says("a") + end(),
            "a",
            "stop",
        ),
        ("CRLF", WHOLE.replace(b"\n", b"\r\n"), "Grüße, 世界", "stop"),
        ("no message_stop", start() + says("a") + end(), "a", "stop"),
        ("an error after the end", start() + says("a") + end() + failed("api_error"), "a", "stop"),
        ("nonsense after the end", start() + says("a") + end() + b"data: {cut", "a", "stop"),
    ],
)
async def test_answers(why, stream, text, finish):
    async with anthropic(HEAD, stream) as (engine, _):
        got = await chunks(engine)
    assert "".join(chunk.text for chunk in got) == text, why
    assert [chunk.finish for chunk in got] == [None] * (len(got) - 1) + [finish]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_how_bytes_arrive_makes_no_difference(size):
    pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
    async with anthropic(HEAD, *pieces) as (engine, _):
        got = await chunks(engine)
    assert [chunk.text for chunk in got] == ["Grüße, ", "世界", ""]


@pytest.mark.parametrize(
    ("why", "usage", "expected"),
    [
        ("nothing cached", {"input_tokens": 5}, Usage(5, 7, 0)),
        (
            "read and written",
            {"input_tokens": 5, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 4},
            Usage(99, 7, 90),
        ),
        ("counts that are none", {"input_tokens": "many"}, None),
        ("nothing counted", {"input_tokens": 0}, None),
    ],
)
async def test_the_providers_own_count_comes_last(why, usage, expected):
    async with anthropic(HEAD, start(**usage) + says("a") + end() + STOP) as (engine, _):
        got = await chunks(engine)
    assert got[-1].usage == expected, why


async def test_thinking_is_counted_and_not_shown():
    thought = block(0, "thinking", thinking="") + delta(0, "thinking_delta", thinking="hm " * 8)
    signed = delta(0, "signature_delta", signature="s" * 900)
    async with anthropic(HEAD, start() + thought + signed + says("a") + end()) as (engine, _):
        got = await chunks(engine)
    assert [(chunk.text, chunk.tokens) for chunk in got] == [("", 6), ("a", 1), ("", 0)]


def tool(index, name, *pieces, given=None):
    began = block(index, "tool_use", id=f"toolu_{index}", name=name, input=given or {})
    said = b"".join(delta(index, "input_json_delta", partial_json=piece) for piece in pieces)
    return began + said


@pytest.mark.parametrize(
    ("why", "events", "calls"),
    [
        (
            "in pieces, two at once, after words",
            says("Let me see.") + tool(1, "find", "", '{"a"', ": 1}") + tool(2, "sum"),
            (ToolCall("toolu_1", "find", '{"a": 1}'), ToolCall("toolu_2", "sum", "{}")),
        ),
        (
            "whole in the block",
            tool(0, "find", given={"a": 1}),
            (ToolCall("toolu_0", "find", '{"a":1}'),),
        ),
    ],
)
async def test_tool_calls(why, events, calls):
    async with anthropic(HEAD, start() + events + end("tool_use") + STOP) as (engine, _):
        got = await chunks(engine)
    assert (got[-1].tool_calls, got[-1].finish) == (calls, "tool_calls"), why


async def test_a_call_that_was_cut_short_is_none():
    stream = start() + tool(0, "find", '{"a') + end("max_tokens") + STOP
    async with anthropic(HEAD, stream) as (engine, _):
        got = await chunks(engine)
    assert (got[-1].finish, got[-1].tool_calls) == ("length", ())


def said(kind, message="because"):
    return {"type": "error", "error": {"type": kind, "message": message}}


BEGUN = HEAD + start() + says("a")


@pytest.mark.parametrize(
    ("why", "response", "expected", "match"),
    [
        ("wrong", error("400 Bad", said("invalid_request_error")), InvalidRequest, "bec"),
        ("large", error("413 Large", said("request_too_large")), TooLarge, "bec"),
        ("unpaid", error("400 Bad", said("billing_error")), EngineUnavailable, "nothing left"),
        ("unpaid", error("402 Pay", said("billing_error")), EngineUnavailable, "nothing left"),
        ("no key", error("401 No", said("authentication_error")), EngineUnavailable, "wants a key"),
        ("absent", error("404 No", said("not_found_error")), EngineUnavailable, "404"),
        ("full", error("429 Full", said("rate_limit_error")), Overloaded, "no more now: bec"),
        ("overloaded", error("529 Over", said("overloaded_error")), Overloaded, "no more now"),
        ("broken", error("500 Broken", said("api_error")), EngineUnavailable, r"\(500\): bec"),
        ("a proxy's page", error("502 Bad", b"<html>"), EngineUnavailable, r"failed \(502\)$"),
        ("moved", error("307 Go", None, "location: http://x/"), EngineUnavailable, "redirects"),
        ("JSON", error("200 OK", said("x")), EngineUnavailable, "in place of a stream"),
        ("malformed", HEAD + b"data: {nope\n\n", EngineUnavailable, "no JSON"),
        ("no type", HEAD + b'data: {"a": 1}\n\n', EngineUnavailable, "without a type"),
        ("nothing", b"", EngineUnavailable, "connection broke"),
        ("no events", HEAD, EngineUnavailable, "ended the stream"),
        ("refused", HEAD + start() + end("refusal"), Declined, "model refused$"),
        (
            "refused midway",
            BEGUN + end("refusal", stop_details={"type": "refusal", "category": "bio"}),
            Declined,
            r"refused \(bio\)",
        ),
        ("an odd end", HEAD + start() + end("pause_turn"), EngineUnavailable, "'pause_turn'"),
        ("overloaded at once", HEAD + failed("overloaded_error"), Overloaded, "no more"),
        ("full at once", HEAD + start() + failed("rate_limit_error"), Overloaded, "no more"),
        ("failed at once", HEAD + failed("api_error"), EngineUnavailable, "because"),
        ("overloaded midway", BEGUN + failed("overloaded_error"), EngineFailed, "because"),
        ("ends midway", BEGUN, EngineFailed, "ended the stream"),
        ("message_stop midway", BEGUN + STOP, EngineFailed, "ended the stream"),
        ("cut midway", CHUNKED + chunked(start() + says("a")), EngineFailed, "connection broke"),
        ("nonsense midway", BEGUN + b"data: {\n\n", EngineFailed, "no JSON"),
        (
            "a nameless call",
            HEAD + delta(0, "input_json_delta", partial_json="{}") + end("tool_use"),
            EngineFailed,
            "without a name",
        ),
        ("no place", HEAD + delta(None, "input_json_delta", partial_json="{}"), EngineUnavailable,
         "without a place"),
        ("no text", HEAD + delta(0, text=3), EngineUnavailable, "no text"),
        ("no delta", HEAD + event("content_block_delta", index=0, delta=3), EngineUnavailable,
         "no object"),
    ],
)  # fmt: skip
async def test_faults(why, response, expected, match):
    async with anthropic(response) as (engine, provider):
        with pytest.raises(expected, match=match) as caught:
            await chunks(engine)
    assert type(caught.value) is expected, why
    assert len(provider.bodies) == 1, "tried twice"


@pytest.mark.parametrize(
    ("why", "header", "seconds"),
    [("not said", None, faults.RETRY_S), ("seconds", "retry-after: 7", 7.0)],
)
@pytest.mark.parametrize("status", ["429 Full", "529 Over"])
async def test_when_to_come_back(why, header, seconds, status):
    async with anthropic(error(status, said("x"), *([header] if header else []))) as (engine, _):
        with pytest.raises(Overloaded) as caught:
            await chunks(engine)
    assert caught.value.retry_after_s == seconds, why


@pytest.mark.parametrize(
    ("why", "script"),
    [
        ("before its headers", (...,)),
        ("before its first token", (HEAD + start(), ...)),
        ("after pings", (HEAD + start() + PING * 3, ...)),
    ],
)
async def test_a_hang_up_while_waiting_reaches_the_provider(why, script):
    async with anthropic(*script, stall_s=5.0) as (engine, provider):
        waiting = asyncio.create_task(chunks(engine))
        await provider.asked.wait()
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_hang_up_midway_reaches_the_provider():
    async with anthropic(HEAD + start() + says("a", "b"), ..., stall_s=5.0) as (engine, provider):
        async with aclosing(engine.generate(call())) as answer:
            assert (await anext(answer)).text == "a"
        await asyncio.wait_for(provider.left.wait(), 1)


@pytest.mark.parametrize(
    ("script", "stall_s", "expected"),
    [
        pytest.param((...,), 0.6, EngineUnavailable, id="before its headers"),
        pytest.param((HEAD + start(), ...), 0.6, EngineUnavailable, id="after them"),
        pytest.param((BEGUN, ...), 1.0, EngineFailed, id="midway"),
    ],
)
async def test_silence_is_given_up(script, stall_s, expected):
    async with anthropic(*script, stall_s=stall_s) as (engine, provider):
        with pytest.raises(expected, match=f"silent for {stall_s:g} s"):
            await chunks(engine)
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_deadline_bounds_a_stream_of_pings():
    pings = [step for _ in range(400) for step in (PING, 0.01)]
    async with anthropic(HEAD, *pings, stall_s=5.0) as (engine, _):
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        with pytest.raises(DeadlineExceeded):
            await chunks(engine, call(deadline_s=begun_s + 0.1))
        assert 0.09 < loop.time() - begun_s < 2


@pytest.mark.parametrize(
    ("why", "flood", "match"),
    [
        ("pings for ever", PING * 2_000, "more than an answer can be"),
        ("one line", b"data: " + b"x" * 60_000, "more than an answer can be"),
        (
            "endless arguments",
            tool(0, "t", "x" * 60_000),
            "its tool calls are too long",
        ),
    ],
)
async def test_a_flood_is_cut(why, flood, match):
    async with anthropic(HEAD, *[flood] * 100, ..., stall_s=5.0) as (engine, provider):
        with pytest.raises((EngineUnavailable, EngineFailed), match=match):
            await chunks(engine, call(10 if "ping" in why else 1_000_000))
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_too_many_calls_are_cut():
    flood = b"".join(tool(n, "t") for n in range(200))
    async with anthropic(HEAD, start() + flood + end("tool_use")) as (engine, _):
        with pytest.raises(EngineFailed, match="more than 128 tool calls"):
            await chunks(engine)


async def test_a_whole_answer_does_not_wait_for_a_server_that_stays():
    async with anthropic(HEAD + WHOLE, ..., stall_s=5.0) as (engine, _):
        async with asyncio.timeout(1.5):
            got = await chunks(engine)
    assert got[-1].usage == Usage(5, 7, 0)
