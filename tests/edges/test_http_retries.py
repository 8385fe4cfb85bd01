"""Clients that try again by themselves: the OpenAI SDK as it comes, with its two retries."""

from __future__ import annotations

import openai
import pytest
from doors import http_door
from test_http_door import HI, TOOL, web

from forebay.errors import (
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    NotBuilt,
    Overloaded,
)
from forebay.testing import FakeEngine

CHECKED = {
    "models": {"local": {"triton": {}}},
    "default": {
        "model": "local",
        "verify": ["json_schema"],
        "schema": {"type": "object"},
        "stream": "final",
    },
}


def sdk(back):
    """Return the SDK with the retries that it has when nobody says how many."""
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{back.port}/v1", api_key="none", timeout=9
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_refused_is_asked_for_once(stream):
    async with (
        http_door(FakeEngine(("no json",)), document=CHECKED) as back,
        sdk(back) as client,
    ):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**HI, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (502, "answer_refused")
    assert [record.status for record in back.ledger.records] == ["answer_refused"]
    assert len(back.engine.calls) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotBuilt("it comes later"), 501),
        (EngineFailed("it broke"), 502),
        (DeadlineExceeded("too late"), 504),
        (Declined("not that"), 422),
        (KeyError("an expectation"), 500),
    ],
)
async def test_what_will_not_change_is_asked_for_once(error, status):
    async with http_door(FakeEngine(error=error)) as back, sdk(back) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**HI)
    assert caught.value.status_code == status
    assert len(back.ledger.records) == 1


async def test_what_the_policy_asks_and_is_not_built_is_asked_for_once():
    document = {
        "models": {"local": {"triton": {}}},
        "default": {"model": "local", "budget": {"usd": 1.0}},
    }
    async with http_door(document=document) as back, sdk(back) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model="auto", prompt="Say")
    assert caught.value.code == "not_built"
    assert len(back.ledger.records) == 1


class Recovering(FakeEngine):
    """Fails the first time it is called, and answers from then on."""

    async def generate(self, call):
        first = not self.calls
        async for chunk in super().generate(call):
            if first:
                raise self.first
            yield chunk


@pytest.mark.parametrize(
    "error", [Overloaded("it is full", 0.2), EngineUnavailable("its process died")]
)
async def test_what_says_when_to_come_back_is_asked_again_by_then(error):
    engine = Recovering()
    engine.first = error
    async with http_door(engine) as back, sdk(back) as client:
        answer = await client.chat.completions.create(**HI)
    assert answer.choices[0].message.content == "Hello, world."
    assert [record.status for record in back.ledger.records] == [
        "overloaded" if isinstance(error, Overloaded) else "engine_unavailable",
        "ok",
    ]
    first, second = back.ledger.records
    assert second.at_wall_s - first.at_wall_s > 0.9, "a second, as Retry-After says"


async def test_what_the_door_itself_refuses_or_lacks_says_so_too():
    async with http_door() as back, web(back) as client:
        asked = [
            await client.post("/v1/chat/completions", json={**HI, "tools": [TOOL, TOOL]}),
            await client.post("/v1/nowhere"),
            await client.get("/v1/chat/completions"),
            await client.get("/v1/tickets/none"),
        ]
        answered = await client.post("/v1/chat/completions", json=HI)
    assert [one.status_code for one in asked] == [400, 404, 405, 404]
    assert [one.headers["x-should-retry"] for one in asked] == ["false"] * 4
    assert asked[2].headers["allow"] == "POST"
    assert "x-should-retry" not in answered.headers
