"""A request that a person will answer, as OpenAI's clients are told of it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import apsw
import openai
import pytest
from pydantic import BaseModel
from test_http_door import HI, frames, sdk, web
from ticketing import Away, http_parking

from forebay.edges.review import ReviewQueue
from forebay.errors import Overloaded
from forebay.testing import FakePerson, ManualClock

SAID = "A person will answer this. Ask again at /v1/tickets/t-1"
TOLD = {"id": "t-1", "object": "ticket", "state": "waiting", "created": 0, "url": "/v1/tickets/t-1"}


@asynccontextmanager
async def http(person=None, script=("no json",)):
    """Yield a door, and the OpenAI SDK in front of it."""
    async with http_parking(script, person) as back, sdk(back) as made:
        yield back, made


# ---- OpenAI's endpoints ------------------------------------------------------------------


@pytest.mark.parametrize("explain", [False, True])
async def test_a_whole_chat_is_202_with_a_refusal_that_tells_where_to_ask(explain):
    async with http() as (back, made):
        raw = await made.chat.completions.with_raw_response.create(
            **HI, extra_body={"forebay": {"explain": explain}}
        )
        answer = raw.parse()
    (choice,) = answer.choices
    assert raw.status_code == 202
    assert (choice.message.content, choice.message.refusal) == (None, SAID)
    assert (choice.message.role, choice.finish_reason) == ("assistant", "content_filter")
    assert choice.message.tool_calls is None
    assert answer.model == "human_review_queue"
    assert answer.usage.completion_tokens == 0
    told = answer.forebay
    assert told["ticket"] == TOLD
    assert (told["move"], told["target"]) == ("escalate", "human_review_queue")
    assert told["request_id"] == raw.headers["x-request-id"] == back.ledger.records[0].id
    assert back.ledger.records[0].status == "parked"
    assert "x-should-retry" not in raw.headers


async def test_a_streamed_chat_ends_with_the_refusal_and_the_ticket():
    async with http() as (back, made):
        stream = await made.chat.completions.create(
            **HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    *begun, last, usage = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in begun) == ""
    assert begun[0].forebay["target"] == "human_review_queue"
    assert (last.choices[0].delta.refusal, last.choices[0].delta.content) == (SAID, None)
    assert last.choices[0].finish_reason == "content_filter"
    assert last.forebay["ticket"] == TOLD
    assert (usage.choices, usage.usage.completion_tokens) == ([], 0)
    assert back.ledger.records[0].status == "parked"


async def test_the_frames_of_a_stream_are_whole():
    async with http() as (back, _), web(back) as plain:
        answer = await plain.post("/v1/chat/completions", json={**HI, "stream": True})
    assert answer.status_code == 200, "it had begun before anybody knew"
    *told, end = frames(answer.text)
    assert end == "[DONE]"
    assert [json.loads(one)["choices"][0]["finish_reason"] for one in told] == [
        None,
        "content_filter",
    ]


async def test_completions_have_no_text_and_the_same_ticket():
    async with http() as (_, made):
        raw = await made.completions.with_raw_response.create(model="auto", prompt="Say")
        stream = await made.completions.create(model="auto", prompt="Say", stream=True)
        chunks = [chunk async for chunk in stream]
    whole = raw.parse()
    assert raw.status_code == 202
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("", "content_filter")
    assert whole.forebay["ticket"] == TOLD
    assert "".join(chunk.choices[0].text for chunk in chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert chunks[-1].forebay["ticket"]["id"] == "t-2"


class Answer(BaseModel):
    """What is asked for."""

    city: str


async def test_the_sdks_parsing_helpers_raise_what_they_raise_for_a_filter():
    async with http() as (_, made):
        with pytest.raises(openai.ContentFilterFinishReasonError):
            await made.chat.completions.parse(**HI, response_format=Answer)


async def test_an_answer_that_passes_has_no_ticket():
    async with http(script=("{}",)) as (_, made):
        raw = await made.chat.completions.with_raw_response.create(**HI)
        stream = await made.chat.completions.create(**HI, stream=True)
        chunks = [chunk async for chunk in stream]
    answer = raw.parse()
    assert raw.status_code == 200
    assert (answer.choices[0].message.content, answer.choices[0].message.refusal) == ("{}", None)
    assert "ticket" not in answer.forebay
    assert "ticket" not in chunks[-1].forebay


# ---- GET /v1/tickets/{id} ----------------------------------------------------------------


async def test_a_ticket_is_looked_up_where_its_answer_said_as_often_as_wanted():
    async with http() as (back, made), web(back) as plain:
        ticket = (await made.chat.completions.create(**HI)).forebay["ticket"]
        for _ in range(2):
            found = await plain.get(ticket["url"])
            assert (found.status_code, found.json()) == (200, ticket)
            assert found.headers["content-type"] == "application/json"
    assert len(back.ledger.records) == 1, "who only asks leaves no record"


@pytest.mark.parametrize("path", ["nobody", "t-1%20", "%27%20OR%201%3D1", "%00", "%ED%A0%80", "*"])
async def test_what_is_no_ticket_is_404_and_counted(path):
    async with http() as (back, made), web(back) as plain:
        await made.chat.completions.create(**HI)
        answer = await plain.get(f"/v1/tickets/{path}")
    told = answer.json()["error"]
    assert answer.status_code == 404
    assert (told["code"], told["type"]) == ("unknown_ticket", "invalid_request_error")
    assert back.refusals == [("http", "unknown_ticket")]


@pytest.mark.parametrize("path", ["/v1/tickets", "/v1/tickets/", "/v1/tickets/a/b"])
async def test_there_is_no_list_of_tickets(path):
    async with http() as (back, _), web(back) as plain:
        answer = await plain.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")


async def test_a_queue_that_cannot_be_read_says_when_to_ask_again():
    async with http(Away()) as (back, _), web(back) as plain:
        answer = await plain.get("/v1/tickets/t-1")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


async def test_a_full_queue_is_429_with_its_time():
    person = FakePerson(error=Overloaded("10000 requests wait for a person already", 600.0))
    async with http(person) as (back, _), web(back) as plain:
        answer = await plain.post("/v1/chat/completions", json=HI)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "600"
    assert answer.json()["error"]["message"] == "10000 requests wait for a person already"


async def test_the_queue_on_disk_through_the_door(tmp_path):
    path = tmp_path / "review.db"
    queue = ReviewQueue(path, ManualClock(1_700_000_000.4))
    async with http(queue) as (back, made), web(back) as plain:
        ticket = (await made.chat.completions.create(**HI)).forebay["ticket"]
        assert (ticket["state"], ticket["created"]) == ("waiting", 1_700_000_000)
        desk = apsw.Connection(str(path))
        desk.execute("UPDATE cases SET state = 'answered'")
        desk.close()
        assert (await plain.get(ticket["url"])).json() == {**ticket, "state": "answered"}
    queue.close()
