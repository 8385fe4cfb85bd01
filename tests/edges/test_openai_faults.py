"""What the OpenAI engine makes of providers that break, flood or fall silent, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate

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
    head,
    openai,
    said,
    says,
    sse,
    tool,
)

from forebay.edges.cloud import faults, wire
from forebay.edges.cloud.openai import OpenAIEngine
from forebay.errors import (
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    TooLarge,
)
from forebay.policy.rules import Cloud
from forebay.testing import LoopClock
from forebay.values import (
    Usage,
)

LONG_AGO, SOON = formatdate(1, usegmt=True), "Wed, 21 Oct 2065 07:28:00 GMT"
FULL = said("rate_limit_exceeded")


@pytest.mark.parametrize(
    ("why", "response", "expected", "match"),
    [
        ("wrong", error("400 Bad", said("bad_value")), InvalidRequest, "refuses the request: bec"),
        ("unfit", error("422 Unfit", {"detail": "no"}), InvalidRequest, "refuses the request"),
        ("large", error("413 Large"), TooLarge, "too|request"),
        ("long words", error("400 Bad", said("x", "w" * 5000)), InvalidRequest, r"^.{250,350}$"),
        ("filtered", error("400 Bad", said("content_filter")), Declined, "will not answer"),
        ("absent", error("404 No", said("model_not_found")), EngineUnavailable, "404"),
        ("unpaid", error("402 Pay"), EngineUnavailable, "nothing left"),
        ("spent", error("429 Full", said("insufficient_quota")), EngineUnavailable, "nothing left"),
        ("no key", error("401 No"), EngineUnavailable, "name one as `key`"),
        ("moved", error("307 Go", None, "location: http://x/"), EngineUnavailable, "redirects"),
        ("broken", error("500 Broken", said("oops")), EngineUnavailable, r"failed \(500\): bec"),
        ("a proxy's page", error("502 Bad", b"<html>"), EngineUnavailable, r"failed \(502\)$"),
        ("an endless page", head("503 No") + b"x" * 200_000, EngineUnavailable, "503"),
        ("a page", head("200 OK", "text/html") + b"<html>", EngineUnavailable, "text/html"),
        ("JSON", error("200 OK", said("x")), EngineUnavailable, "in place of a stream"),
        ("no HTTP", b"hello\r\n\r\n", EngineUnavailable, "connection broke"),
        ("nothing", b"", EngineUnavailable, "connection broke"),
        (
            "compressed",
            head("200 OK", "text/event-stream", "content-encoding: gzip"),
            EngineUnavailable,
            "compressed",
        ),
        ("no JSON", HEAD + b"data: {nope\n\n", EngineUnavailable, "no JSON"),
        ("a number", HEAD + sse(b"data: 3\n\n"), EngineUnavailable, "no object"),
        ("no stream", HEAD + b"hello there", EngineUnavailable, "ended the stream"),
        ("only empty choices", HEAD + sse({"choices": []}, DONE), EngineUnavailable, "ended the"),
        ("an odd end", HEAD + sse(delta("error")), EngineUnavailable, "'error'"),
        ("refused", HEAD + sse(delta(refusal="I"), STOP), Declined, "model refused"),
        ("filtered late", HEAD + sse(says("a"), delta("content_filter")), Declined, "filter"),
        ("an error in the stream", HEAD + sse(said(500)), EngineUnavailable, "because"),
        (
            "a named error",
            HEAD + b'event: error\ndata: {"message": "hm"}\n\n',
            EngineUnavailable,
            "hm",
        ),
        ("full in the stream", HEAD + sse(FULL), Overloaded, "no more"),
        ("full by number", HEAD + sse(said(429)), Overloaded, "no more"),
        ("full midway", HEAD + sse(says("a"), FULL), EngineFailed, "because"),
        ("ends midway", HEAD + sse(says("a")), EngineFailed, "ended the stream"),
        ("[DONE] midway", HEAD + sse(says("a"), DONE), EngineFailed, "ended the stream"),
        ("cut midway", CHUNKED + chunked(sse(says("a"))), EngineFailed, "connection broke"),
        ("nonsense midway", HEAD + sse(says("a")) + b"data: {\n\n", EngineFailed, "no JSON"),
        ("a nameless call", HEAD + sse(tool(0, "{}"), delta("tool_calls")), EngineFailed, "name"),
    ],
)
async def test_faults(why, response, expected, match):
    async with openai(response) as (engine, _):
        with pytest.raises(expected, match=match) as caught:
            await chunks(engine)
    assert type(caught.value) is expected, why


@pytest.mark.parametrize(
    ("why", "status", "header", "seconds"),
    [
        ("not said", "429 Full", None, faults.RETRY_S),
        ("seconds", "429 Full", "retry-after: 7", 7.0),
        ("milliseconds", "429 Full", "retry-after-ms: 250", 0.25),
        ("a date gone by", "429 Full", f"retry-after: {LONG_AGO}", 0.0),
        ("a date far away", "429 Full", f"retry-after: {SOON}", faults.MOST_RETRY_S),
        ("nonsense", "429 Full", "retry-after: soon", faults.RETRY_S),
        ("endless", "429 Full", "retry-after: inf", faults.RETRY_S),
        ("too late", "408 Late", "retry-after: 3", 3.0),
    ],
)
async def test_when_to_come_back(why, status, header, seconds):
    async with openai(error(status, FULL, *([header] if header else []))) as (engine, _):
        with pytest.raises(Overloaded) as caught:
            await chunks(engine)
    assert caught.value.retry_after_s == seconds, why


def test_a_date_is_read_against_the_wall_clock():
    assert faults.retry_after_s({"retry-after": formatdate(1030, usegmt=True)}, 1000.0) == 30.0


async def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    engine = OpenAIEngine("cloud", Cloud(model="m", base_url=url), None, LoopClock())
    with pytest.raises(EngineUnavailable, match="it refuses connections"):
        await chunks(engine)
    await engine.close()


async def test_a_server_that_speaks_no_tls():
    async def plain(_, writer):
        writer.write(b"220 hello\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        engine = OpenAIEngine("cloud", Cloud(model="m", base_url=url), None, LoopClock())
        with pytest.raises(EngineUnavailable, match="TLS fails"):
            await chunks(engine)
        await engine.close()


def test_an_unknown_host_is_told_as_such():
    error = RuntimeError("outer")
    error.__cause__ = ExceptionGroup("several", [OSError(), socket.gaierror(-2, "unknown")])
    assert wire.reason(error) == "its host's name is not known"


@pytest.mark.parametrize(
    ("why", "flood", "tokens"),
    [
        ("one line", b"data: " + b"x" * 60_000, 1_000_000),
        ("one event of many lines", b"data: x\n" * 8_000, 1_000_000),
        ("comments for ever", b": on\n\n" * 10_000, 10),
        ("empty chunks for ever", sse({"choices": []}) * 3_000, 10),
    ],
)
async def test_a_flood_is_cut(why, flood, tokens):
    async with openai(HEAD, *[flood] * 100, ..., stall_s=5.0) as (engine, provider):
        with pytest.raises(EngineUnavailable, match="more than an answer can be"):
            await chunks(engine, call(tokens))
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_an_endless_error_is_cut(monkeypatch):
    monkeypatch.setattr(wire, "ERROR_S", 9.0)
    async with openai(head("503 No"), *[b"x" * 50_000] * 100, ..., stall_s=5.0) as (
        engine,
        provider,
    ):
        async with asyncio.timeout(2):
            with pytest.raises(EngineUnavailable, match="503"):
                await chunks(engine)
        await asyncio.wait_for(provider.left.wait(), 1)


async def test_an_error_whose_body_does_not_come_is_told_by_its_status(monkeypatch):
    monkeypatch.setattr(wire, "ERROR_S", 0.05)
    late = head("429 Full", "application/json", "content-length: 99", "retry-after: 4")
    async with openai(late, ..., stall_s=5.0) as (engine, _):
        with pytest.raises(Overloaded) as caught:
            await chunks(engine)
    assert caught.value.retry_after_s == 4.0


async def test_endless_arguments_are_cut():
    flood = sse(tool(0, "x" * 60_000, name="t"))
    async with openai(HEAD, *[flood] * 40, ..., stall_s=5.0) as (engine, _):
        with pytest.raises(EngineFailed, match="its tool calls are too long"):
            await chunks(engine, call(1_000_000))


async def test_too_many_calls_are_cut():
    flood = sse(*(tool(n, "{}", name="t") for n in range(200)), delta("tool_calls"))
    async with openai(HEAD, flood) as (engine, _):
        with pytest.raises(EngineFailed, match="more than 128 tool calls"):
            await chunks(engine)


@pytest.mark.parametrize(
    ("script", "stall_s", "expected"),
    [
        pytest.param((...,), 0.6, EngineUnavailable, id="before its headers"),
        pytest.param((HEAD, ...), 0.6, EngineUnavailable, id="after them"),
        pytest.param((HEAD + sse(says("a")), ...), 1.0, EngineFailed, id="midway"),
    ],
)
async def test_silence_is_given_up(script, stall_s, expected):
    async with openai(*script, stall_s=stall_s) as (engine, provider):
        with pytest.raises(expected, match=f"silent for {stall_s:g} s"):
            await chunks(engine)
        await asyncio.wait_for(provider.left.wait(), 1)


SLOW = [step for _ in range(400) for step in (sse(says("a")), 0.01)]


@pytest.mark.parametrize(
    ("why", "script"),
    [
        ("before its headers", (...,)),
        ("midway", (HEAD + sse(says("a")), ...)),
        ("slow", (HEAD, *SLOW)),
    ],
)
async def test_a_deadline_bounds_it_all(why, script):
    async with openai(*script, stall_s=5.0) as (engine, _):
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        with pytest.raises(DeadlineExceeded):
            await chunks(engine, call(deadline_s=begun_s + 0.1))
        assert 0.09 < loop.time() - begun_s < 2, why


async def test_a_deadline_that_has_passed_calls_nobody():
    async with openai(HEAD) as (engine, provider):
        with pytest.raises(DeadlineExceeded, match="before cloud was called"):
            await chunks(engine, call(deadline_s=LoopClock().now_s()))
    assert provider.bodies == []


@pytest.mark.parametrize(
    ("why", "script"),
    [
        ("all at once", (HEAD + sse(says("a"), STOP, USAGE, DONE), ...)),
        ("one by one", (HEAD, sse(says("a"), STOP), 0.02, sse(USAGE), 0.02, DONE, ...)),
    ],
)
async def test_a_whole_answer_does_not_wait_for_a_server_that_stays(why, script):
    async with openai(*script, stall_s=5.0) as (engine, _):
        async with asyncio.timeout(1.5):
            got = await chunks(engine)
    assert got[-1].usage == Usage(12, 7, 4), why
