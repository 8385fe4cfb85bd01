"""What a person finds of a request that was parked: all of it, whatever it holds."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewing import bodies, call, parked, queue

from forebay.corridor import Corridor
from forebay.edges.review import case
from forebay.testing import FakeEngine, house, request
from forebay.values import (
    Attempt,
    Chat,
    Done,
    Guide,
    Labels,
    Message,
    Prediction,
    Request,
    Sampling,
    Source,
    Text,
    Tool,
    ToolCall,
    Verdict,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review.db"


def nested(levels):
    made = {}
    for _ in range(levels):
        made = {"a": made}
    return made


TURNS = Chat(
    (
        Message("system", "Be brief."),
        Message("user", "Look."),
        Message("assistant", "", (ToolCall("c1", "look", '{"at": "\u00fc"}'),)),
        Message("tool", "nothing", tool_call_id="c1"),
    )
)
KINDS = {
    "a plain text": {},
    "a chat with calls": {"prompt": TURNS, "tools": (Tool("look", "Look.", {"type": "object"}),)},
    "sources": {"sources": (Source("s", "A source."), Source("t", ""))},
    "a schema": {"guide": Guide("json_schema", '{"type": "object"}')},
    "an expression": {"guide": Guide("regex", r"\d+\x00?")},
    "everything said": {
        "labels": Labels("chat", "high", "gold", "de", "fast"),
        "sampling": Sampling(9, 1, 0.5, 0.9, 5, 2**64 - 1, 1.1, 0.1, -0.1, ("a",), ("b",), True, 7),
        "tool_choice": "look",
        "parallel_tool_calls": False,
        "stream": False,
        "explain": True,
        "door": "kserve",
    },
    "tools as deep as a door takes them": {"tools": (Tool("look", "", nested(253)),)},
    "numbers beyond 64 bits": {"tools": (Tool("look", "", {"maximum": 2**70}),)},
    "odd characters": {"prompt": Text("\x00 \u2028 \ufffe \U0001f600 \u202e \r\n\t\\\"'")},
    "half of a surrogate pair": {"prompt": Text("\ud83d"), "sources": (Source("s", "\udc00"),)},
}


def read(kept):
    """Return the request that was kept, but for its moments."""
    prompt = kept["prompt"]
    turns = [
        Message(**{**turn, "tool_calls": tuple(ToolCall(**one) for one in turn["tool_calls"])})
        for turn in prompt.get("messages", ())
    ]
    sampling = kept["sampling"]
    words = {name: tuple(sampling[name]) for name in ("stop", "bad")}
    whole = {
        "prompt": Chat(tuple(turns)) if turns else Text(**prompt),
        "sampling": Sampling(**(sampling | words)),
        "guide": kept["guide"] and Guide(**kept["guide"]),
        "labels": Labels(**kept["labels"]),
        "sources": tuple(Source(**one) for one in kept["sources"]),
        "tools": tuple(Tool(**one) for one in kept["tools"]),
    }
    return Request(**(kept | whole), received_s=0.0)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_request_is_kept_whole(path, kind):
    asked = request(**KINDS[kind], received_s=4321.5, deadline_s=8765.5)
    with queue(path) as made:
        ticket = await parked(made, asked)
    kept = bodies(path)[ticket.id]
    assert read(kept["request"]) == replace(asked, received_s=0.0, deadline_s=None)
    assert set(kept) == {"request", "before", "draft"}


TRIED = Attempt(
    "a",
    "first",
    "route_matched",
    "refused",
    3,
    (Verdict("safety", "referred", "the answer holds hate", ((0, 4),)),),
    "r1",
    0.25,
    Prediction(0.5, 0.01, 1.0),
    0.02,
)


async def test_what_was_tried_and_the_draft_are_kept_and_no_moment_of_the_monotonic_clock(path):
    asked = request(received_s=4321.5, deadline_s=8765.5)
    with queue(path) as made:
        ticket = await parked(made, asked, before=(TRIED,), draft="half \ud83d of it")
    kept = bodies(path)[ticket.id]
    assert kept["before"] == json.loads(json.dumps([asdict(TRIED)]))
    assert kept["draft"] == "half \ud83d of it"
    assert not {"received_s", "deadline_s"} & set(kept["request"])
    assert not re.search("4321|8765", json.dumps(kept))


ANY = st.text(st.characters(), max_size=40)


@settings(max_examples=100)
@given(
    texts=st.lists(ANY, min_size=1, max_size=3),
    draft=ANY,
    parameters=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
        max_leaves=10,
    ),
)
def test_no_text_is_too_odd_to_be_kept(texts, draft, parameters):
    asked = request(
        prompt=Chat(tuple(Message("user", one) for one in texts)),
        tools=(Tool("look", draft, {"any": parameters}),),
    )
    kept = json.loads(json.dumps(case(call(asked, draft=draft))))
    assert read(kept["request"]) == asked
    assert kept["draft"] == draft


async def test_an_answer_that_few_encoders_write_gets_its_ticket(path):
    """A provider's JSON may hold half of a surrogate pair; the request must not be lost to it."""
    document = {
        "models": {"a": {"triton": {}}},
        "default": {
            "model": "a",
            "fallback": "human_review_queue",
            "verify": ["json_schema"],
            "schema": {"type": "object"},
            "stream": "final",
        },
    }
    with queue(path) as made:
        whole = house({"a": FakeEngine(("no \ud83d json",))}, document, person=made)
        events = [event async for event in Corridor(whole).run(request())]
    assert isinstance(events[-1], Done), events[-1]
    (kept,) = bodies(path).values()
    assert kept["draft"] == "no \ud83d json"
    assert [one["outcome"] for one in kept["before"]] == ["refused"]
