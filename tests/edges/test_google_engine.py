"""What the Google engine makes of answers, of what breaks, and of clients that leave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from edges.google_wire import STOP, asks, failed, google, piece, says, usage
from edges.provider import CHUNKED, HEAD, call, chunked, chunks, error, head, sse

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

WHOLE = says("Grüße, ", "世界") + STOP


@pytest.mark.parametrize(
    ("why", "stream", "text", "finish"),
    [
        ("pieces", WHOLE, "Grüße, 世界", "stop"),
        ("words with the end", piece({"text": "a"}, finish="STOP", said=1), "a", "stop"),
        ("cut by length", says("a") + piece(finish="MAX_TOKENS"), "a", "length"),
        ("two parts", piece({"text": "a"}, {"text": "b"}) + STOP, "ab", "stop"),
        ("nothing", STOP, "", "stop"),
        ("others' candidates", sse({"candidates": [{"index": 1, "finishReason": "OTHER"}]}) + STOP,
         "", "stop"),
        ("counts alone", sse({"usageMetadata": usage(1)}) + says("a") + STOP, "a", "stop"),
        ("CRLF", WHOLE.replace(b"\n", b"\r\n"), "Grüße, 世界", "stop"),
        ("nonsense after the end", WHOLE + b"data: {cut", "Grüße, 世界", "stop"),
        ("an error after the end", WHOLE + sse(failed(500, "INTERNAL")), "Grüße, 世界", "stop"),
    ],
)  # fmt: skip
async def test_answers(why, stream, text, finish):
    async with google(HEAD, stream) as (engine, _):
        got = await chunks(engine)
    assert "".join(chunk.text for chunk in got) == text, why
    assert [chunk.finish for chunk in got] == [None] * (len(got) - 1) + [finish]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_how_bytes_arrive_makes_no_difference(size):
    pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
    async with google(HEAD, *pieces) as (engine, _):
        got = await chunks(engine)
    assert [chunk.text for chunk in got] == ["Grüße, ", "世界", ""]


@pytest.mark.parametrize(
    ("why", "told", "expected"),
    [
        ("nothing cached", {}, Usage(12, 7, 0)),
        ("cached", {"cachedContentTokenCount": 8}, Usage(12, 7, 8)),
        ("with thought", {"thoughtsTokenCount": 30}, Usage(12, 37, 0)),
        ("with tools' use", {"toolUsePromptTokenCount": 5}, Usage(17, 7, 0)),
        ("a count that is none", {"cachedContentTokenCount": "many"}, Usage(12, 7, 0)),
    ],
)
async def test_the_providers_own_count_comes_last(why, told, expected):
    end = piece(finish="STOP", usageMetadata=usage(7, **told))
    async with google(HEAD, says("a") + end) as (engine, _):
        got = await chunks(engine)
    assert got[-1].usage == expected, why


async def test_pieces_count_the_tokens_that_they_hold():
    first, second = piece({"text": "Hello"}, said=2), piece({"text": " there, you"}, said=7)
    async with google(HEAD, first + second + says("x" * 20) + STOP) as (engine, _):
        got = await chunks(engine)
    assert [chunk.tokens for chunk in got] == [2, 5, 5, 0]


async def test_thinking_is_counted_and_not_shown():
    thought = piece({"text": "hm hm hm", "thought": True})
    async with google(HEAD, thought + says("a") + STOP) as (engine, _):
        got = await chunks(engine)
    assert [(chunk.text, chunk.tokens) for chunk in got] == [("", 2), ("a", 1), ("", 0)]


@pytest.mark.parametrize(
    ("why", "stream", "calls"),
    [
        (
            "two, in two pieces, after words",
            says("Let me see.")
            + piece(asks("find", {"a": 1}, id="f1"))
            + piece(asks("sum", id="f2"), finish="STOP"),
            (ToolCall("f1", "find", '{"a":1}'), ToolCall("f2", "sum", "{}")),
        ),
        (
            "two at once, without ids",
            piece(asks("find", {"a": "ü"}), asks("find"), finish="STOP", said=9),
            (
                ToolCall("call_r-1_0", "find", '{"a":"ü"}'),
                ToolCall("call_r-1_1", "find", "{}"),
            ),
        ),
    ],
)
async def test_tool_calls(why, stream, calls):
    async with google(HEAD, stream) as (engine, _):
        got = await chunks(engine)
    assert (got[-1].tool_calls, got[-1].finish) == (calls, "tool_calls"), why


BEGUN = HEAD + says("a")
NO_KEY = {"@type": "x/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("why", "response", "expected", "match"),
    [
        ("wrong", error("400 Bad", failed(400, "INVALID_ARGUMENT")), InvalidRequest, "bec"),
        ("in a list", error("400 Bad", [failed(400, "INVALID_ARGUMENT")]), InvalidRequest, "bec"),
        ("large", error("413 Large"), TooLarge, "too|request"),
        ("another region", error("400 Bad", failed(400, "FAILED_PRECONDITION")),
         EngineUnavailable, "400.*because"),
        ("a wrong key", error("400 Bad", failed(400, "INVALID_ARGUMENT", "key AIza", NO_KEY)),
         EngineUnavailable, "wants a key"),
        ("no right", error("403 No", failed(403, "PERMISSION_DENIED")), EngineUnavailable, "key"),
        ("absent", error("404 No", failed(404, "NOT_FOUND")), EngineUnavailable, "404"),
        ("full", error("429 Full", failed(429, "RESOURCE_EXHAUSTED")), Overloaded, "no more now"),
        ("overloaded", error("503 Over", failed(503, "UNAVAILABLE")), EngineUnavailable, "503"),
        ("broken", error("500 Broken", failed(500, "INTERNAL")), EngineUnavailable, r"\(500\): b"),
        ("a proxy's page", error("502 Bad", b"<html>"), EngineUnavailable, r"failed \(502\)$"),
        ("moved", error("307 Go", None, "location: http://x/"), EngineUnavailable, "redirects"),
        ("JSON", error("200 OK", []), EngineUnavailable, "in place of a stream"),
        ("malformed", HEAD + b"data: {nope\n\n", EngineUnavailable, "no JSON"),
        ("nothing", b"", EngineUnavailable, "connection broke"),
        ("no events", HEAD, EngineUnavailable, "ended the stream"),
        ("compressed", head("200 OK", "text/event-stream", "content-encoding: gzip"),
         EngineUnavailable, "compressed"),
        ("the prompt is blocked", HEAD + sse({"promptFeedback": {"blockReason": "SAFETY"}}),
         Declined, r"prompt \(SAFETY\)"),
        ("blocked", HEAD + piece(finish="SAFETY"), Declined, r"answer \(SAFETY\)"),
        ("blocked midway", BEGUN + piece(finish="PROHIBITED_CONTENT"), Declined, "PROHIBITED"),
        ("recited", BEGUN + piece({"text": "b"}, finish="RECITATION"), Declined, "RECITATION"),
        ("an odd end", HEAD + piece(finish="MALFORMED_FUNCTION_CALL"), EngineUnavailable,
         "'MALFORMED_FUNCTION_CALL'"),
        ("full at once", HEAD + sse(failed(429, "RESOURCE_EXHAUSTED")), Overloaded, "no more"),
        ("failed at once", HEAD + sse(failed(500, "INTERNAL")), EngineUnavailable, "because"),
        ("failed midway", BEGUN + sse(failed(503, "UNAVAILABLE")), EngineFailed, "because"),
        ("ends midway", BEGUN, EngineFailed, "ended the stream"),
        ("cut midway", CHUNKED + chunked(says("a")), EngineFailed, "connection broke"),
        ("nonsense midway", BEGUN + b"data: {\n\n", EngineFailed, "no JSON"),
        ("a nameless call", HEAD + piece(asks(""), finish="STOP"), EngineFailed, "without a name"),
        ("no text", HEAD + piece({"text": 3}), EngineUnavailable, "no text"),
        ("no parts", HEAD + sse({"candidates": [{"content": {"parts": 3}}]}), EngineUnavailable,
         "no list of objects"),
        ("no arguments", HEAD + piece({"functionCall": {"name": "f", "args": 3}}),
         EngineUnavailable, "no text"),
    ],
)  # fmt: skip
async def test_faults(why, response, expected, match):
    async with google(response) as (engine, provider):
        with pytest.raises(expected, match=match) as caught:
            await chunks(engine)
    assert type(caught.value) is expected, why
    assert "AIza" not in str(caught.value)
    assert len(provider.bodies) == 1, "tried twice"


def retry(delay):
    return failed(429, "RESOURCE_EXHAUSTED", "full", {"@type": "RetryInfo", "retryDelay": delay})


@pytest.mark.parametrize(
    ("why", "body", "header", "seconds"),
    [
        ("not said", None, None, faults.RETRY_S),
        ("in the body", retry("34.5s"), None, 34.5),
        ("the header stands over it", retry("34.5s"), "retry-after: 7", 7.0),
        ("nonsense", retry("soons"), None, faults.RETRY_S),
        ("far away", retry("99999s"), None, faults.MOST_RETRY_S),
    ],
)
async def test_when_to_come_back(why, body, header, seconds):
    async with google(error("429 Full", body, *([header] if header else []))) as (engine, _):
        with pytest.raises(Overloaded) as caught:
            await chunks(engine)
    assert caught.value.retry_after_s == seconds, why


@pytest.mark.parametrize(
    ("why", "script"), [("before its headers", (...,)), ("before its first token", (HEAD, ...))]
)
async def test_a_hang_up_while_waiting_reaches_the_provider(why, script):
    async with google(*script, stall_s=5.0) as (engine, provider):
        waiting = asyncio.create_task(chunks(engine))
        await provider.asked.wait()
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_hang_up_midway_reaches_the_provider():
    async with google(HEAD + says("a", "b"), ..., stall_s=5.0) as (engine, provider):
        async with aclosing(engine.generate(call())) as answer:
            assert (await anext(answer)).text == "a"
        await asyncio.wait_for(provider.left.wait(), 1)


@pytest.mark.parametrize(
    ("script", "stall_s", "expected"),
    [
        pytest.param((...,), 0.6, EngineUnavailable, id="before its headers"),
        pytest.param((HEAD, ...), 0.6, EngineUnavailable, id="after them"),
        pytest.param((BEGUN, ...), 1.0, EngineFailed, id="midway"),
    ],
)
async def test_silence_is_given_up(script, stall_s, expected):
    async with google(*script, stall_s=stall_s) as (engine, provider):
        with pytest.raises(expected, match=f"silent for {stall_s:g} s"):
            await chunks(engine)
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_deadline_bounds_a_slow_stream():
    slow = [step for _ in range(400) for step in (says("a"), 0.01)]
    async with google(HEAD, *slow, stall_s=5.0) as (engine, _):
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        with pytest.raises(DeadlineExceeded):
            await chunks(engine, call(deadline_s=begun_s + 0.1))
        assert 0.09 < loop.time() - begun_s < 2


@pytest.mark.parametrize(
    ("why", "flood", "match"),
    [
        ("empty pieces for ever", sse({}) * 8_000, "more than an answer can be"),
        ("one line", b"data: " + b"x" * 60_000, "more than an answer can be"),
        ("endless arguments", piece(asks("t", {"a": "x" * 60_000})), "tool calls are too long"),
        ("endless calls", piece(*[asks("t")] * 99), "more than 128 tool calls"),
    ],
)
async def test_a_flood_is_cut(why, flood, match):
    async with google(HEAD, *[flood] * 100, ..., stall_s=5.0) as (engine, provider):
        with pytest.raises((EngineUnavailable, EngineFailed), match=match):
            await chunks(engine, call(10 if "empty" in why else 1_000_000))
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_a_whole_answer_does_not_wait_for_a_server_that_stays():
    async with google(HEAD + WHOLE, ..., stall_s=5.0) as (engine, _):
        async with asyncio.timeout(1.5):
            got = await chunks(engine)
    assert got[-1].usage == Usage(12, 7, 0)
