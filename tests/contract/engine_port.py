"""What every `Engine` keeps, as checks that any engine can be put through."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from forebay.errors import DeadlineExceeded, InvalidRequest
from forebay.testing import request
from forebay.values import Call, Chat, Message, Sampling, Text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from forebay.ports import Clock, Engine

LONG = 200
GREEDY = Sampling(temperature=0)


async def call(engine: Engine, *, max_tokens: int, text="Tell a story.", deadline_s=None) -> Call:
    made = request(text, sampling=GREEDY)
    return Call(made, await engine.prepare(made), max_tokens, deadline_s)


async def a_prompt_has_tokens(engine, clock, running):
    chat = request(prompt=Chat((Message("user", "Hello there"),)))
    assert (await engine.prepare(request("Hello there"))).prompt_tokens > 0
    assert (await engine.prepare(chat)).prompt_tokens > 0


async def an_empty_prompt_is_the_clients_fault(engine, clock, running):
    with pytest.raises(InvalidRequest):
        await engine.prepare(replace(request(), prompt=Text("")))


async def only_the_last_chunk_says_how_it_ended(engine, clock, running):
    chunks = [chunk async for chunk in engine.generate(await call(engine, max_tokens=3))]
    assert chunks[-1].finish in ("stop", "length")
    assert all(chunk.finish is None for chunk in chunks[:-1])


async def an_answer_is_no_longer_than_asked(engine, clock, running):
    chunks = [chunk async for chunk in engine.generate(await call(engine, max_tokens=2))]
    assert sum(chunk.tokens for chunk in chunks) == 2
    assert chunks[-1].finish == "length"


async def closing_it_early_stops_the_work(engine, clock, running):
    async with aclosing(engine.generate(await call(engine, max_tokens=LONG))) as chunks:
        for _ in range(2):
            await anext(chunks)
        assert await running() == 1
    await settled(running)


async def cancelling_it_before_the_first_token_stops_the_work(engine, clock, running):
    async def read():
        async for _ in engine.generate(await call(engine, max_tokens=LONG)):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled(running)


async def a_deadline_ends_it(engine, clock, running):
    late = await call(engine, max_tokens=LONG, deadline_s=clock.now_s() + 0.15)
    with pytest.raises(DeadlineExceeded):
        async for _ in engine.generate(late):
            pass
    await settled(running)


async def several_answers_run_at_once(engine, clock, running):
    async def tokens():
        made = await call(engine, max_tokens=4)
        return sum([chunk.tokens async for chunk in engine.generate(made)])

    assert await asyncio.gather(*(tokens() for _ in range(4))) == [4] * 4


async def settled(running: Callable[[], Awaitable[int]]) -> None:
    """Wait, inside the running loop, until the engine works for nobody."""
    for _ in range(200):
        if await running() == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the engine works on for nobody")


CHECKS: tuple[Callable[[Engine, Clock, Callable[[], Awaitable[int]]], Awaitable[None]], ...] = (
    a_prompt_has_tokens,
    an_empty_prompt_is_the_clients_fault,
    only_the_last_chunk_says_how_it_ended,
    an_answer_is_no_longer_than_asked,
    closing_it_early_stops_the_work,
    cancelling_it_before_the_first_token_stops_the_work,
    a_deadline_ends_it,
    several_answers_run_at_once,
)
