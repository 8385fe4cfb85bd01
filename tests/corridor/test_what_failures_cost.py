"""What a failed call takes from the retry budget and from the cost cap: what it used, no more."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.errors import Declined, EngineUnavailable, Overloaded
from forebay.policy.retries import MOST
from forebay.testing import FakeEngine, held, house, request
from forebay.values import Chat, Decided, Done, Message

NAMES = ("alone", "first", "second", "third")
DOCUMENT = {
    "models": {
        name: {"openai": {"model": "m"}, "price": {"input_usd_per_mtok": 10.0}} for name in NAMES
    },
    "routes": [
        {"name": "lonely", "match": {"task": "a"}, "model": "alone"},
        {"name": "laddered", "match": {"task": "b"}, "model": "first", "fallback": "second"},
        {
            "name": "long",
            "match": {"task": "c"},
            "model": "third",
            "fallback": ["first", "second"],
            "spill": "never",
        },
    ],
}


def made():
    engines = {name: FakeEngine() for name in NAMES}
    return engines, house(engines, DOCUMENT)


async def walked(whole, model):
    events = [e async for e in Corridor(whole).run(request(model=model))]
    return [e.target for e in events if isinstance(e, Decided)], events[-1]


async def test_a_class_with_nowhere_to_go_takes_no_retry_from_others():
    """_after() calls retries.spend() before it knows whether there is a next step."""
    engines, whole = made()
    engines["alone"].error = Declined("no")  # opens no circuit
    for _ in range(30):
        await walked(whole, "lonely")
    engines["first"].error = EngineUnavailable("down")
    steps, last = await walked(whole, "laddered")
    assert steps == ["first", "second"]
    assert isinstance(last, Done)


async def test_a_retry_that_nobody_takes_costs_nothing():
    """The next targets' circuits are open: nothing is called again, and yet the bucket empties."""
    engines, whole = made()
    for name in ("first", "second"):
        for _ in range(3):
            whole.admission.controller.state.exits._outside.broke(name, 0.0, 1e9)
    engines["third"].error = Declined("no")
    before = whole.retries._left
    for _ in range(int(MOST)):
        await walked(whole, "long")
    assert len(engines["third"].calls) == MOST
    assert whole.retries._left >= before


@pytest.mark.parametrize("error", [Overloaded("full", 1.0), EngineUnavailable("500")])
async def test_a_call_that_its_provider_refused_costs_nothing(error):
    """No provider bills a 429, a 5xx or a connection it refused; a record does, by its prompt."""
    engines, whole = made()
    engines["first"].error = error
    await walked(whole, "laddered")
    [refused, answered] = whole.ledger.records[0].attempts
    assert answered.usd > 0
    assert refused.usd == 0.0


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        (0, ["engine_unavailable", "refused", "answered"]),
        (1, ["engine_unavailable", "refused", "refused", "answered"]),
    ],
)
async def test_what_follows_a_verdict_is_no_retry_though_a_target_had_failed_before(
    repair, expected
):
    """The second one answered: neither a mended answer nor a stronger model is paid as a retry."""
    engines = {name: FakeEngine() for name in NAMES}
    engines["first"].error = EngineUnavailable("down")
    engines["second"] = Poor(("no json",))
    engines["third"] = FakeEngine(('{"a": 1}',))
    route = {
        "model": "first",
        "fallback": ["second", "third"],
        "verify": ["json_schema"],
        "schema": {"required": ["a"]},
        "stream": "final",
        "repair": repair,
        "spill": "never",
    }
    whole = house(engines, {"models": DOCUMENT["models"], "default": route})
    Poor.retries = whole.retries
    asked = request(prompt=Chat((Message("user", "An a, please."),)))
    events = [e async for e in Corridor(whole).run(asked)]
    assert isinstance(events[-1], Done), events[-1]
    assert [one.outcome for one in whole.ledger.records[0].attempts] == expected
    assert not whole.retries.left()


class Poor(FakeEngine):
    """Spends what is left of the budget while it answers."""

    retries = None

    async def generate(self, call):
        while self.retries.spend():
            pass
        async for chunk in FakeEngine.generate(self, call):
            yield chunk


class Draining(FakeEngine):
    """Others spend the whole budget while a request is prepared for it."""

    retries = None

    async def prepare(self, asked):
        while self.retries.spend():
            pass
        return await FakeEngine.prepare(self, asked)


async def test_a_budget_that_others_spent_meanwhile_makes_no_call():
    engines = {name: FakeEngine() for name in NAMES}
    engines["first"].error = EngineUnavailable("down")
    drained = engines["second"] = type("Drained", (Draining,), {"__slots__": ()})()
    whole = house(engines, DOCUMENT)
    type(drained).retries = whole.retries
    steps, last = await walked(whole, "laddered")
    assert steps == ["first"]
    assert str(last.error) == "down"
    assert not drained.calls
    outcomes = [one.outcome for one in whole.ledger.records[0].attempts]
    assert outcomes == ["engine_unavailable", "retry_budget"]
    assert held(whole) == 0
