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
