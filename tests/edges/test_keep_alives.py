"""Comments in a stream that is silent: they keep its connection and commit nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import openai
import pytest
from doors import HTTP, http_door, until
from streams import REFUSED, End, asked
from told import Judge, Told

from forebay.edges.http_door.stream import EventStream
from forebay.errors import EngineFailed, EngineUnavailable, Overloaded
from forebay.testing import FakeEngine
from forebay.values import Release

SOON = replace(HTTP, silence_s=0.02)
ROUTE = {"verify": ["grounding"]}
KEPT = ": keep-alive"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "Say hello"}]}


def soon(*engines, **changed):
    return asked("http", *engines, **{"settings": SOON, **changed})


async def commented(stream, times=1):
    """Wait until a client has that many comments more than now."""
    before = stream.raw.count(b": keep-alive\n\n")
    await until(lambda: stream.raw.count(b": keep-alive\n\n") >= before + times, 20)


async def test_an_answer_that_waits_for_its_verdict_comes_behind_comments():
    engine = Told()
    async with soon(engine, route=ROUTE, judge=Judge(Release.FINAL)) as (back, stream):
        await engine.say("Otters ", "hold hands.")
        await commented(stream, 3)
        assert set(stream.events()) == {KEPT}
        assert stream.status == 200
        engine.end()
        assert await stream.ended() == End("Otters hold hands.", whole=True, reason="")
    opening, *_ = stream.told()
    assert opening["forebay"]["target"] == "local"
    assert stream.raw.count(b"HTTP/1.1") == 1
    assert back.ledger.records[0].id.encode() in stream.raw.partition(b"\r\n\r\n")[0]


async def test_after_a_comment_an_answer_that_fails_still_gives_way_to_the_next_targets():
    first, second, judge = Told(), Told(), Judge(Release.FINAL, "failed")
    async with soon(first, second, route=ROUTE, judge=judge) as (back, stream):
        await first.say("Otters hold hands.")
        await commented(stream)
        first.end()
        await second.say("Seals do not.")
        await commented(stream)
        judge.outcome = "passed"
        second.end()
        assert await stream.ended() == End("Seals do not.", whole=True, reason="")
    assert b"Otters" not in stream.raw
    opening, *_ = stream.told()
    assert (opening["forebay"]["target"], opening["forebay"]["move"]) == ("other", "escalate")
    (record,) = back.ledger.records
    assert [one.outcome for one in record.attempts] == ["refused", "answered"]
    assert record.status == "ok"


@pytest.mark.parametrize("broken", [EngineUnavailable("it left"), EngineFailed("it broke")])
async def test_after_a_comment_an_engine_that_breaks_still_fails_over(broken):
    first, second = Told(), Told()
    async with soon(first, second, route={"verify": ["pii_redaction"]}) as (back, stream):
        await first.say("bob")
        await commented(stream)
        assert stream.text() == "", "it may be an address"
        first.fail(broken)
        await second.say("Seals.")
        second.end()
        assert await stream.ended() == End("Seals.", whole=True, reason="")
    assert b"bob" not in stream.raw
    assert [one.move for one in back.ledger.records[0].attempts] == ["first", "failover"]


async def test_a_request_in_the_queue_gets_comments():
    engine, promised = Told(), {"slo": {"ttft_ms": 60_000}}
    async with soon(engine, route=promised, limits={"max_inflight": 1}) as (back, stream):
        await engine.say("Otters.")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{back.port}") as client:
            second = asyncio.create_task(_first_lines(client, 2))
            assert await second == [KEPT, ""]
        assert len(engine.calls) == 1
        engine.end()
        assert (await stream.ended()).whole


async def _first_lines(client, count):
    lines: list[str] = []
    body = {**CHAT, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            lines.append(line)
            if len(lines) == count:
                break
    return lines


async def test_behind_a_comment_a_failure_is_an_event():
    engine = Told()
    async with soon(engine, route=ROUTE, judge=Judge(Release.FINAL, "failed")) as (_, stream):
        await engine.say("Otters.")
        await commented(stream)
        engine.end()
        assert await stream.ended() == REFUSED
    assert stream.status == 200
    assert b"[DONE]" not in stream.raw
    assert b"finish_reason" not in stream.raw


async def test_behind_a_comment_a_refusal_still_tells_when_to_come_back():
    engine = Told()
    async with soon(engine) as (_, stream):
        await commented(stream)
        engine.fail(Overloaded("it is full", 2.5))
        assert (await stream.ended()).reason == "overloaded"
    (told,) = stream.told()
    assert told["error"]["retry_after_s"] == 2.5


async def test_what_fails_before_a_silence_was_long_has_its_status():
    engine = Told()
    async with asked("http", engine) as (_, stream):
        engine.fail(Overloaded("it is full", 2.5))
        assert (await stream.ended()).reason == "overloaded"
    head, _, body = bytes(stream.raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 3" in head
    assert b'"retry_after_s":2.5' in body


async def test_a_silence_between_two_texts_is_filled_too():
    engine = Told()
    async with soon(engine) as (_, stream):
        await engine.say("Otters ")
        await commented(stream)
        await engine.say("hold.")
        engine.end()
        assert await stream.ended() == End("Otters hold.", whole=True, reason="")
    texts = [event for event in stream.events() if "Otters" in event or "hold" in event]
    between = stream.events()[stream.events().index(texts[0]) + 1]
    assert between == KEPT


async def test_openais_sdk_passes_over_comments():
    engine = Told()
    async with http_door(engine, SOON) as back:
        sdk = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{back.port}/v1", api_key="none")
        async with sdk as client:
            answer = await client.chat.completions.create(**CHAT, stream=True)
            assert not back.ledger.records, "a comment was enough to open it"
            await engine.say("Otters.")
            engine.end()
            chunks = [chunk async for chunk in answer]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Otters."
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_an_answer_that_is_no_stream_gets_none():
    engine = FakeEngine(gap_s=0.03)
    async with soon(engine) as (back, stream):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{back.port}") as client:
            answer = await client.post("/v1/chat/completions", json=CHAT)
        await stream.ended()
    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world."
    assert KEPT not in answer.text


async def test_a_client_that_leaves_after_a_comment_cancels_the_engine_at_once():
    engine = Told()
    async with soon(engine, route=ROUTE, judge=Judge(Release.FINAL)) as (back, stream):
        await engine.say("Otters.")
        await commented(stream)
        stream.leave()
        await back.cancelled()
        assert back.held == 0
        assert back.ledger.records[0].status == "cancelled"


async def test_a_router_that_stops_tells_those_whom_it_has_sent_comments():
    engine = Told()
    async with soon(engine, route=ROUTE, judge=Judge(Release.FINAL)) as (back, stream):
        await engine.say("Otters.")
        await commented(stream)
        await back.door.stop()
        assert await stream.ended() == End("", whole=False, reason="engine_unavailable")


# ---- the stream itself --------------------------------------------------------------------


class Sent:
    """ASGI's `send`, which waits where a client does not read."""

    def __init__(self):
        self.read = asyncio.Event()
        self.messages = []

    async def __call__(self, message):
        self.messages.append(message)
        await self.read.wait()

    @property
    def bodies(self):
        return [message["body"] for message in self.messages if "body" in message]


HEAD = {"type": "http.response.start", "status": 200, "headers": []}


async def test_behind_the_last_frame_nothing_is_sent():
    send = Sent()
    async with EventStream(send, HEAD, 0.001) as stream:
        writing = asyncio.create_task(stream.write(b"last", last=True))
        await asyncio.sleep(0.02)
        send.read.set()
        await writing
        await asyncio.sleep(0.02)
    assert send.bodies == [b"last"]


async def test_a_comment_and_a_frame_never_mix():
    send = Sent()
    async with EventStream(send, HEAD, 0.001) as stream:
        await until(lambda: bool(send.messages), 5)
        writing = asyncio.create_task(stream.write(b"last", last=True))
        await asyncio.sleep(0.02)
        assert send.messages == [HEAD], "the comment's head is on its way"
        send.read.set()
        await writing
    assert send.messages[1:] == [
        {"type": "http.response.body", "body": b": keep-alive\n\n", "more_body": True},
        {"type": "http.response.body", "body": b"last", "more_body": False},
    ]


async def test_a_stream_that_ends_by_an_error_gets_no_more_comments():
    send = Sent()
    send.read.set()
    stream = EventStream(send, HEAD, 0.001)
    with pytest.raises(KeyError):
        async with stream:
            raise KeyError
    await asyncio.sleep(0.02)
    assert send.messages == []
    assert not stream.begun
