"""A weaker target that the class steps down to when its own is full."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.errors import EngineUnavailable, Overloaded
from forebay.testing import FakeEngine, MemoryLedger, held, house, request
from forebay.values import Abilities, Decided, Done, Prepared

POLICY = {
    "models": {
        "large": {"triton": {}, "limits": {"max_inflight": 1}},
        "small": {"triton": {}},
    },
    "default": {"model": "large", "downgrade": "small", "fallback": "small"},
}


async def walked(small):
    ledger, large = MemoryLedger(), FakeEngine(("large",))
    made = house({"large": large, "small": small}, POLICY, busy={"large": 1}, ledger=ledger)
    events = [event async for event in Corridor(made).run(request())]
    assert held(made) == 0
    assert not large.calls
    steps = [f"{a.move}:{a.target}:{a.outcome}" for a in ledger.records[0].attempts]
    return events, steps


async def test_a_full_target_steps_down():
    small = FakeEngine(("small",))
    events, steps = await walked(small)
    decided = next(event for event in events if isinstance(event, Decided))
    assert (decided.target, decided.move, decided.reason) == ("small", "downgrade", "target_full")
    assert isinstance(events[-1], Done)
    assert steps == ["downgrade:small:answered"]
    assert small.calls[0].replica == "small"


async def test_an_answer_has_as_many_tokens_as_its_place_was_given_for():
    """The weaker target would allow more; but admission has reserved what the first one allows."""
    large = {"triton": {}, "limits": {"max_inflight": 1, "max_output_tokens": 7}}
    said = {**POLICY, "models": {**POLICY["models"], "large": large}}
    small = FakeEngine(("small",))
    made = house({"large": FakeEngine(), "small": small}, said, busy={"large": 1})
    replica = made.admission.controller.state.pools["small"].replicas["small"]
    asked = request("one two three")
    reserved = [replica.reserved async for _ in Corridor(made).run(asked)]
    assert small.calls[0].max_tokens == 7
    assert max(reserved) == 3 + 7


async def test_a_target_that_the_client_named_is_not_stepped_down_from():
    small = FakeEngine(("small",))
    made = house({"large": FakeEngine(), "small": small}, POLICY, busy={"large": 1})
    events = [event async for event in Corridor(made).run(request(model="large"))]
    assert isinstance(events[-1].error, Overloaded)
    assert not small.calls


async def test_a_weaker_target_that_broke_is_not_called_again_from_the_ladder():
    small = FakeEngine(error=EngineUnavailable("gone"))
    events, steps = await walked(small)
    assert isinstance(events[-1].error, EngineUnavailable)
    assert steps == ["downgrade:small:engine_unavailable"]
    assert len(small.calls) == 1


class Uncounted(FakeEngine):
    """A weaker engine whose own tokens are more than it takes."""

    async def prepare(self, request):
        return Prepared(3, whole=False)


@pytest.mark.parametrize(
    ("small", "steps"),
    [
        (FakeEngine(abilities=Abilities(1, 2)), ["first:large:target_full"]),
        (Uncounted(), ["first:large:overloaded"]),
    ],
)
async def test_a_prompt_too_long_for_the_weaker_target_is_told_as_what_it_is(small, steps):
    events, walked_by = await walked(small)
    assert isinstance(events[-1].error, Overloaded)
    assert not small.calls
    assert walked_by == steps
