"""How long a provider is waited for, who hears that it is full or silent, what a cut costs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from edges import anthropic_wire, google_wire
from edges.doors import until
from edges.provider import (
    DONE,
    HEAD,
    STOP,
    Provider,
    call,
    chunks,
    delta,
    error,
    said,
    says,
    sse,
)

from forebay.edges.cloud import FIRST_LEAST_S, patience_s
from forebay.edges.cloud.anthropic import AnthropicEngine
from forebay.edges.cloud.engine import IDLE_S, STALL_S
from forebay.edges.cloud.google import GoogleEngine
from forebay.edges.cloud.openai import OpenAIEngine
from forebay.errors import DeadlineExceeded, EngineFailed, EngineUnavailable, Overloaded
from forebay.policy.rules import Cloud, Expect
from forebay.testing import LoopClock, ManualClock
from forebay.values import Usage

FULL = said("rate_limit_exceeded")
PING = b": on\n\n"


@dataclass
class Told:
    """A watch that notes what it is told."""

    full_: list[tuple[str, float]] = field(default_factory=list)
    silent_: list[str] = field(default_factory=list)

    def full(self, target, later_s, sent_s):
        self.full_.append((target, later_s))

    def silent(self, target, sent_s):
        self.silent_.append(target)


@asynccontextmanager
async def calling(*script, adapter=OpenAIEngine, path="/v1", clock=None, **more):
    provider = Provider(script)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
    cloud = Cloud(model="any", base_url=url)
    engine = adapter("cloud", cloud, None, clock or LoopClock(), **more)
    try:
        yield engine, provider
    finally:
        await engine.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("why", "script", "waits", "expected"),
    [
        ("before its headers", (...,), {"first_s": 0.05}, EngineUnavailable),
        ("after them", (HEAD, ...), {"first_s": 0.05}, EngineUnavailable),
        ("midway", (HEAD + sse(says("a")), ...), {"first_s": 9.0, "stall_s": 0.05}, EngineFailed),
    ],
)
async def test_a_first_token_has_a_time_of_its_own(why, script, waits, expected):
    async with calling(*script, **waits) as (engine, _):
        with pytest.raises(expected, match=r"silent for 0\.05 s") as caught:
            await chunks(engine)
    assert type(caught.value) is expected, why


@pytest.mark.parametrize(
    ("why", "before", "awake", "expected"),
    [
        ("comments", (HEAD,), PING, EngineUnavailable),
        ("empty deltas", (HEAD,), sse(delta(content="")), EngineUnavailable),
        ("comments midway", (HEAD + sse(says("a")),), PING, EngineFailed),
    ],
)
async def test_who_is_awake_and_says_nothing_is_given_up(why, before, awake, expected):
    clock, heard = ManualClock(), []
    async with calling(*before, *(awake, 0.01) * 200, clock=clock) as (engine, provider):

        async def read():
            async for chunk in engine.generate(call()):
                heard.append(chunk)  # noqa: PERF401 - one by one, to be counted meanwhile

        asking = asyncio.create_task(read())
        await provider.asked.wait()
        await until(lambda: bool(heard) or expected is EngineUnavailable, 5)
        await asyncio.wait({asking}, timeout=0.05)
        clock.time_s += IDLE_S - 1.0
        await asyncio.wait({asking}, timeout=0.05)
        assert not asking.done(), why
        clock.time_s += 1.0
        with pytest.raises(expected, match=r"added nothing to its answer for 600 s"):
            await asking


async def test_who_goes_on_may_take_long():
    clock = ManualClock()
    words = [step for _ in range(5) for step in (sse(says("a")), 0.02)]
    async with calling(HEAD, *words, sse(STOP, DONE), clock=clock) as (engine, _):
        said = 0
        async for chunk in engine.generate(call()):
            said += chunk.tokens
            clock.time_s += IDLE_S - 1.0
    assert said == 5


@pytest.mark.parametrize(
    ("expect", "seconds"),
    [
        ({}, STALL_S),
        ({"tpot_ms": 20}, STALL_S),
        ({"ttft_ms": 300}, FIRST_LEAST_S),
        ({"ttft_ms": 500}, FIRST_LEAST_S),
        ({"ttft_ms": 800}, 8.0),
        ({"ttft_ms": 30_000}, 300.0),
    ],
)
def test_it_follows_what_is_expected_of_the_target(expect, seconds):
    assert patience_s(Expect.model_validate(expect)) == seconds


@pytest.mark.parametrize(
    ("why", "script", "full"),
    [
        ("full", (error("429 Full", FULL, "retry-after: 7"),), [("cloud", 7.0)]),
        ("full, it does not say how long", (error("429 Full", FULL),), [("cloud", 1.0)]),
        ("full in the stream", (HEAD + sse(FULL),), [("cloud", 1.0)]),
        ("full midway", (HEAD + sse(says("a"), FULL),), []),
        ("broken", (error("500 Broken", FULL),), []),
        ("wrong", (error("400 Wrong"),), []),
        ("whole", (HEAD + sse(says("a"), STOP, DONE),), []),
    ],
)
async def test_a_watch_is_told_of_a_provider_that_is_full(why, script, full):
    told = Told()
    async with calling(*script, watch=told) as (engine, _):
        [ended] = await asyncio.gather(chunks(engine), return_exceptions=True)
    assert (told.full_, told.silent_) == (full, []), why
    assert isinstance(ended, Overloaded) == bool(full)


@pytest.mark.parametrize(
    ("why", "script", "said", "silent"),
    [
        ("before its headers", (...,), 0, ["cloud"]),
        ("after them", (HEAD, ...), 0, ["cloud"]),
        ("awake", (HEAD, *(PING, 0.02) * 100), 0, ["cloud"]),
        ("midway", (HEAD + sse(says("a")), ...), 1, []),
    ],
)
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_watch_is_told_of_a_silence_that_was_cut_short(why, script, said, silent, leaves):
    """The same whether a deadline ends the call or its client."""
    told, heard = Told(), []
    async with calling(*script, watch=told) as (engine, provider):
        deadline_s = None if leaves else LoopClock().now_s() + 1.0

        async def read():
            async for chunk in engine.generate(call(deadline_s=deadline_s)):
                heard.append(chunk)  # noqa: PERF401 - one by one, to be counted meanwhile

        asking = asyncio.create_task(read())
        if leaves:
            await provider.asked.wait()
            await until(lambda: len(heard) == said, 5)
            asking.cancel()
        [ended] = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError if leaves else DeadlineExceeded), why
    assert (told.full_, told.silent_) == ([], silent)


A = anthropic_wire
G = google_wire


@pytest.mark.parametrize(
    ("why", "adapter", "path", "script", "spent"),
    [
        ("nothing is told before the end", OpenAIEngine, "/v1", sse(says("a"), says("b")), None),
        (
            "a server that counts as it goes",
            OpenAIEngine,
            "/v1",
            sse({**says("a"), "usage": {"prompt_tokens": 9, "completion_tokens": 1}}, says("b")),
            Usage(9, 2),
        ),
        (
            "the prompt first, and what of it was cached",
            AnthropicEngine,
            "",
            A.start(input_tokens=5, cache_read_input_tokens=30) + A.says("a", "b"),
            Usage(35, 2, 30),
        ),
        (
            "with every piece",
            GoogleEngine,
            "",
            G.piece({"text": "a"}, said=4) + G.piece({"text": "b"}, said=9),
            Usage(12, 9),
        ),
        (
            "thoughts are paid",
            GoogleEngine,
            "",
            G.piece({"text": "ab"}, usageMetadata=G.usage(2, thoughtsTokenCount=40)),
            Usage(12, 42),
        ),
    ],
)
async def test_a_cut_answer_is_paid_as_far_as_its_provider_has_told(
    why, adapter, path, script, spent
):
    async with (
        calling(HEAD + script, ..., adapter=adapter, path=path) as (engine, _),
        aclosing(engine.generate(call())) as answer,
    ):
        text = ""
        while text != "ab":
            chunk = await anext(answer)
            text += chunk.text
    assert chunk.usage == spent, why


async def test_a_wait_that_is_awake_still_ends_at_the_deadline():
    async with calling(HEAD, *(PING, 0.02) * 50, stall_s=5.0) as (engine, _):
        with pytest.raises(DeadlineExceeded):
            await chunks(engine, call(deadline_s=LoopClock().now_s() + 0.1))
