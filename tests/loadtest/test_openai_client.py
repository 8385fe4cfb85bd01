"""The OpenAI user's reading of a stream, from bytes: what is an answer, what is nonsense."""

import asyncio

import pytest
from edges.doors import until
from loadtest.generator import RunClock
from loadtest.openai_client import _read
from loadtest.watch import Watch, watched
from loadtest.work import schedule
from offers import CHAT, plan

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
OPENING = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}],'
    b'"forebay":{"target":"local","move":"first","reason":"headroom"}}'
)
WORD = b'data: {"choices":[{"delta":{"content":"word"}}]}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":4}}'
DONE = b"data: [DONE]"
HOURLY = {"share": 1.0, "gap_ms": 3.6e6}


def stream(*frames, ended=True):
    reader = asyncio.StreamReader()
    body = b"".join(frame + b"\n\n" for frame in frames)
    reader.feed_data(HEAD + b"%x\r\n%b\r\n" % (len(body), body) + b"0\r\n\r\n" * ended)
    return reader


def watch(**changed):
    jobs = schedule(plan(classes=[{**CHAT, **changed}]))
    return Watch(jobs[0], RunClock(0.0))


async def test_usage_is_what_counts():
    """Two events came, and four tokens were in them."""
    outcome = await _read(stream(OPENING, WORD, WORD, USAGE, DONE), watch())
    assert (outcome.ended, outcome.completion_tokens, outcome.asked_tokens) == ("served", 4, 4)
    assert len(outcome.itl_ms) == 1


async def test_no_length_is_asked_for_where_it_may_end_by_itself():
    outcome = await _read(stream(OPENING, WORD, USAGE, DONE), watch(exact=False))
    assert outcome.asked_tokens == 0


async def test_slow_readers_pause_after_words_alone():
    """With a pause of an hour after the opening, a comment or the usage it would not end."""
    read = _read(stream(OPENING, b": still here", USAGE, DONE), watch(slow=HOURLY))
    async with asyncio.timeout(10):
        assert (await read).ended == "served"


@pytest.mark.parametrize(
    "frame",
    [b"data: {", b"data: []", b'data: {"choices":[{}]}', b'data: {"usage":{}}x', b"what", b""],
)
async def test_an_event_that_nobody_can_read_is_the_end_of_that_request(frame):
    outcome = await _read(stream(OPENING, WORD, frame, DONE), watch())
    assert (outcome.ended, outcome.code) == ("failed", "NONSENSE")
    assert outcome.completion_tokens == 1
    assert outcome.target == "local"


async def test_cancellation_keeps_what_came():
    said = watch()
    reading = asyncio.create_task(watched(said, _read(stream(OPENING, WORD, ended=False), said)))
    await until(lambda: said.events > 0, 10)
    reading.cancel()
    outcome = await reading
    assert (outcome.ended, outcome.code) == ("unfinished", "UNFINISHED")
    assert (outcome.completion_tokens, outcome.target) == (1, "local")
    assert outcome.ttft_ms is not None


async def test_what_ran_out_of_time_elsewhere_is_no_clients_timeout():
    async def refused():
        raise TimeoutError("connect")

    with pytest.raises(TimeoutError, match="connect"):
        await watched(watch(), refused(), 60.0)
