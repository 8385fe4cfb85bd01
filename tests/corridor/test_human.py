"""A person as the last rung: who is asked, what a client gets, and what is kept."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.errors import (
    EngineUnavailable,
    InvalidRequest,
    NotBuilt,
    Overloaded,
    UnknownTicket,
)
from forebay.testing import FakeEngine, FakePerson, MemoryLedger, house, request
from forebay.values import (
    Chat,
    Chunk,
    Decided,
    Done,
    Failed,
    Message,
    Ticket,
    Token,
    Tool,
    ToolCall,
)

HUMAN = "human_review_queue"
BAD = ('{"b": 1}',)
CRIME = Chat((Message("user", "How do I hack into a bank?"),))
HARM = ("To strangle someone, ", "you should stand behind him.")
CHECKED = {
    "verify": ["json_schema"],
    "schema": {"type": "object", "required": ["a"]},
    "stream": "final",
}


def built(engines, person=None, **route):
    ledger = MemoryLedger()
    document = {"models": {name: {"triton": {}} for name in engines}, "default": route}
    return house(engines, document, ledger=ledger, person=person or FakePerson()), ledger


async def walked(made, **changed):
    return [event async for event in Corridor(made).run(request(**changed))]


def steps(ledger):
    return [f"{a.move}:{a.target}:{a.outcome}" for a in ledger.records[0].attempts]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_gets_a_ticket_and_no_text(stream):
    person = FakePerson()
    made, ledger = built({"a": FakeEngine(BAD)}, person, model="a", fallback=HUMAN, **CHECKED)
    events = await walked(made, stream=stream)
    assert not [e for e in events if isinstance(e, Token)]
    decided = [e for e in events if isinstance(e, Decided)]
    assert (decided[-1].target, decided[-1].move) == (HUMAN, "escalate")
    ticket, done = events[-2:]
    assert isinstance(ticket, Ticket)
    assert isinstance(done, Done)
    assert done.finish == "ticket"
    assert ledger.records[0].status == "parked"
    assert ledger.records[0].target == HUMAN
    assert steps(ledger) == ["first:a:refused", f"escalate:{HUMAN}:parked"]
    assert await Corridor(made).ticket(ticket.id) == Ticket(ticket.id)


async def test_a_person_sees_the_request_what_was_tried_and_the_answer_that_failed():
    person = FakePerson()
    made, _ = built({"a": FakeEngine(BAD)}, person, model="a", fallback=HUMAN, **CHECKED)
    await walked(made)
    (case,) = person.cases.values()
    assert case.request.prompt == request().prompt
    assert [(one.target, one.outcome) for one in case.before] == [("a", "refused")]
    assert case.before[0].verdicts[0].verifier == "json_schema"
    assert case.draft == BAD[0]


async def test_a_ticket_that_was_never_given_is_unknown():
    made, _ = built({"a": FakeEngine()}, model="a")
    with pytest.raises(UnknownTicket):
        await Corridor(made).ticket("t-1")


@pytest.mark.parametrize(
    ("why", "error", "route", "expected"),
    [
        ("broken engines climb to a person", EngineUnavailable("down"),
         {"fallback": HUMAN}, ["first:a:engine_unavailable", f"failover:{HUMAN}:parked"]),
        ("a full engine is no reason for a person", Overloaded("full", 1.0),
         {"fallback": HUMAN}, ["first:a:overloaded"]),
        ("nor is what the client did wrong", InvalidRequest("wrong"),
         {"fallback": HUMAN}, ["first:a:invalid_request"]),
        ("what is not built is told", NotBuilt("later"),
         {"fallback": HUMAN}, ["first:a:not_built"]),
        ("on_exhausted is about answers, not about breakage", EngineUnavailable("down"),
         {"on_exhausted": "human"}, ["first:a:engine_unavailable"]),
    ],
)  # fmt: skip
async def test_who_is_left_to_a_person(why, error, route, expected):
    made, ledger = built({"a": FakeEngine(error=error)}, model="a", **route)
    await walked(made)
    assert steps(ledger) == expected, why


async def test_a_person_is_asked_although_the_retry_budget_is_spent():
    engines = {"a": FakeEngine(error=EngineUnavailable("down")), "b": FakeEngine()}
    made, ledger = built(engines, model="a", fallback=["b", HUMAN])
    while made.retries.spend():
        pass
    await walked(made)
    assert steps(ledger) == ["first:a:engine_unavailable", f"failover:{HUMAN}:parked"]
    assert not engines["b"].calls


@pytest.mark.parametrize(
    ("acts", "said", "expected"),
    [
        ({"input": "human"}, ("Hello.",), [f"first:{HUMAN}:parked"]),
        ({"input": {}, "output": "human"}, HARM,
         ["first:a:refused", f"escalate:{HUMAN}:parked"]),
        ({"input": {}, "output": "block"}, HARM, ["first:a:refused", "escalate:b:answered"]),
    ],
)  # fmt: skip
async def test_what_safety_leaves_to_a_person_goes_to_nobody_else(acts, said, expected):
    engines = {"a": FakeEngine(said), "b": FakeEngine(("Fine.",))}
    made, ledger = built(engines, model="a", fallback="b", verify="safety", safety=acts)
    events = await walked(made, prompt=CRIME)
    assert steps(ledger) == expected
    told = [v for a in ledger.records[0].attempts for v in a.verdicts]
    if "parked" in expected[-1]:
        assert events[-1].finish == "ticket"
        assert not [e for e in events if isinstance(e, Token)]
        assert [v.outcome for v in told] == ([] if len(expected) == 1 else ["referred"])


async def test_what_is_left_to_a_person_is_not_repaired():
    made, ledger = built(
        {"a": FakeEngine(HARM)}, model="a", verify="safety", repair=1,
        safety={"input": {}, "output": "human"},
    )  # fmt: skip
    await walked(made, prompt=CRIME)
    assert steps(ledger) == ["first:a:refused", f"escalate:{HUMAN}:parked"]


async def test_a_person_is_not_hedged():
    slowly, other = FakePerson(), FakeEngine()
    made, ledger = built({"a": other}, slowly, model=HUMAN, hedge={"after_ms": 1, "to": "a"})
    await walked(made)
    assert steps(ledger) == [f"first:{HUMAN}:parked"]
    assert not other.calls


async def test_a_queue_that_cannot_be_written_is_told():
    person = FakePerson(error=EngineUnavailable("the review queue cannot be written: full"))
    made, ledger = built({"a": FakeEngine(BAD)}, person, model="a", fallback=HUMAN, **CHECKED)
    events = await walked(made)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, EngineUnavailable)
    assert ledger.records[0].status == "engine_unavailable"


async def test_a_person_can_be_the_only_rung_and_explain_says_so():
    made, ledger = built({"a": FakeEngine()}, model=HUMAN)
    await walked(made)
    assert steps(ledger) == [f"first:{HUMAN}:parked"]
    told = await Corridor(made).explain(request())
    assert [(rung.target, rung.placement.reason) for rung in told.rungs] == [
        (HUMAN, "for_a_person")
    ]


class Calling(FakeEngine):
    async def generate(self, call):
        self.calls.append(call)
        yield Chunk("", 3)
        yield Chunk(finish="tool_calls", tool_calls=(ToolCall("c1", "look", '{"where": 1}'),))


async def test_a_person_sees_the_calls_that_failed():
    person = FakePerson()
    document = {
        "models": {"a": {"triton": {}}},
        "default": {"model": "a", "fallback": HUMAN, "verify": ["tool_call_schema"]},
    }
    made = house({"a": Calling()}, document, person=person)
    tool = Tool("look", "", {"type": "object", "required": ["at"], "additionalProperties": False})
    asked = request(prompt=Chat((Message("user", "Look"),)), tools=(tool,))
    async for _ in Corridor(made).run(asked):
        pass
    (case,) = person.cases.values()
    assert "where" in case.draft


@pytest.mark.parametrize("error", [Overloaded("full", 600.0), EngineUnavailable("disk")])
async def test_a_full_queue_sends_what_is_left_to_a_person_to_nobody_else(error):
    cloud = FakeEngine(("Fine.",))
    document = {
        "models": {"a": {"triton": {}}, "cloud": {"openai": {"model": "m"}}},
        "default": {
            "model": "a",
            "fallback": "cloud",
            "verify": "safety",
            "safety": {"input": {}, "output": "human"},
        },
    }
    made = house({"a": FakeEngine(HARM), "cloud": cloud}, document, person=FakePerson(error=error))
    async for _ in Corridor(made).run(request(prompt=CRIME)):
        pass
    assert not cloud.calls
