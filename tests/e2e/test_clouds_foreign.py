"""All three cloud adapters against a server that nobody here wrote, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, asynccontextmanager

import aimocks
import psutil
import pytest
from aimocks import NEEDED

from forebay.edges.cloud import engine
from forebay.errors import (
    Declined,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
)
from forebay.policy.rules import Target
from forebay.testing import LoopClock, request
from forebay.values import Call, Chat, Guide, Message, Tool, ToolCall, Usage

SECRET = "sk-for-tests-0123456789"

ADAPTERS = {
    "openai": ("openai", "/v1"),
    "openrouter": ("openai", "/api/v1"),
    "anthropic": ("anthropic", ""),
    "google": ("google", ""),
}
"""Each as the policy names it, and the path of its API; aimock speaks OpenRouter's shape too."""

FIND = Tool("find", "finds an order", {"type": "object", "properties": {"order": {}}})

pytestmark = [
    NEEDED,
    pytest.mark.parametrize("adapter", ADAPTERS),
]


@pytest.fixture(scope="module")
def aimock():
    """Yield the server's process and its port."""
    with aimocks.aimock("fixtures.json", SECRET) as running:
        yield running


@asynccontextmanager
async def calling(adapter, port, secret=SECRET):
    name, path = ADAPTERS[adapter]
    said = {"model": "some-model", "base_url": f"http://127.0.0.1:{port}{path}"}
    rule = Target.model_validate({name: said | {"key": "env:TESTED"}})
    made = engine("cloud", rule, LoopClock(), {"TESTED": secret})
    try:
        yield made
    finally:
        await made.close()


async def asked(made, text="", **changed):
    """Return a call, prepared as the corridor prepares it."""
    prompt = Chat((Message("user", text),)) if text else changed.pop("prompt")
    whole = request(prompt=prompt, **changed)
    return Call(whole, await made.prepare(whole), 100, None)


async def answer(made, *told, **changed):
    return [chunk async for chunk in made.generate(await asked(made, *told, **changed))]


async def test_it_answers(adapter, aimock):
    async with calling(adapter, aimock[1]) as made:
        got = await answer(made, "say hello")
    assert "".join(chunk.text for chunk in got) == "Hello from a server that nobody here wrote."
    assert [chunk.finish for chunk in got] == [None] * (len(got) - 1) + ["stop"]


async def test_it_counts(adapter, aimock):
    async with calling(adapter, aimock[1]) as made:
        got = await answer(made, "count this")
    assert got[-1].usage == Usage(42, 3, 0)


async def test_the_system_is_heard(adapter, aimock):
    turns = Chat((Message("system", "You are a pirate."), Message("user", "which system?")))
    async with calling(adapter, aimock[1]) as made:
        got = await answer(made, prompt=turns)
    assert "".join(chunk.text for chunk in got) == "Arr."


async def test_an_answer_in_a_form(adapter, aimock):
    closed = {"type": "object", "properties": {"order": {"type": "integer"}}}
    closed |= {"required": ["order"], "additionalProperties": False}
    guide = Guide("json_schema", json.dumps(closed))
    async with calling(adapter, aimock[1]) as made:
        got = await answer(made, "in form", guide=guide)
    assert json.loads("".join(chunk.text for chunk in got)) == {"order": 7}


async def test_tools_both_ways(adapter, aimock):
    question = Message("user", "which order is it?")
    async with calling(adapter, aimock[1]) as made:
        first = await answer(made, prompt=Chat((question,)), tools=(FIND,))
        (called,) = first[-1].tool_calls
        assert first[-1].finish == "tool_calls"
        assert (called.name, called.arguments.replace(" ", "")) == ("find", '{"order":7}')
        turns = (
            question,
            Message("assistant", "", (ToolCall(called.id, called.name, called.arguments),)),
            Message("tool", '{"state": "shipped"}', tool_call_id=called.id),
        )
        then = await answer(made, prompt=Chat(turns), tools=(FIND,))
    assert "".join(chunk.text for chunk in then) == "It has shipped."


async def test_an_answer_that_ran_out_of_tokens(adapter, aimock):
    async with calling(adapter, aimock[1]) as made:
        got = await answer(made, "run long")
    assert got[-1].finish == "length"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("too many", Overloaded),
        ("overloaded", Overloaded),
        ("broken", EngineUnavailable),
        ("wrong", InvalidRequest),
        ("malformed", EngineUnavailable),
        ("disconnect", EngineUnavailable),
        ("cut short", EngineFailed),
        ("nothing that it knows", EngineUnavailable),
    ],
)
async def test_faults(adapter, told, expected, aimock):
    async with calling(adapter, aimock[1]) as made:
        with pytest.raises(expected) as caught:
            await answer(made, told)
        assert type(caught.value) is expected
        assert (await answer(made, "say hello"))[-1].finish == "stop", "it is usable afterwards"


async def test_withheld(adapter, aimock):
    told = "refused" if adapter == "anthropic" else "filtered"
    async with calling(adapter, aimock[1]) as made:
        with pytest.raises(Declined):
            await answer(made, told)


async def test_a_wrong_key_is_the_targets_fault(adapter, aimock):
    async with calling(adapter, aimock[1], "sk-another-9876543210") as made:
        with pytest.raises(EngineUnavailable, match="does not accept the key env:TESTED") as caught:
            await answer(made, "say hello")
    assert "sk-another" not in str(caught.value)


def held(server):
    """Return how many connections a server has."""
    return [c for c in server.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED]


async def gone(server, told_s):
    """Return after how long a server has no connection, in seconds."""
    while held(server):
        if time.monotonic() - told_s > 2:
            return float("inf")
        await asyncio.sleep(0.002)
    return time.monotonic() - told_s


async def test_a_hang_up_before_the_first_token_closes_the_connection(adapter, aimock):
    server, port = aimock
    async with calling(adapter, port) as made:
        waiting = asyncio.create_task(answer(made, "slowly"))
        await asyncio.sleep(0.3)
        assert len(held(server)) == 1
        told_s = time.monotonic()
        waiting.cancel()
        assert await gone(server, told_s) < 1
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_hang_up_midway_closes_the_connection(adapter, aimock):
    server, port = aimock
    async with calling(adapter, port) as made:
        async with aclosing(made.generate(await asked(made, "steadily"))) as chunks:
            assert (await anext(chunks)).text
            told_s = time.monotonic()
        assert await gone(server, told_s) < 1
