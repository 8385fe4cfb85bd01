"""A weaker target that the class steps down to when its own is full."""

from __future__ import annotations

from forebay.corridor import Corridor
from forebay.errors import EngineUnavailable
from forebay.testing import FakeEngine, MemoryLedger, held, house, request
from forebay.values import Decided, Done

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
