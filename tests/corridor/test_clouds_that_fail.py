"""What a walk does where clouds and engines fail: circuits, and the retry budget."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.errors import EngineUnavailable, InvalidRequest, Overloaded
from forebay.policy.health import Health
from forebay.policy.retries import MOST
from forebay.testing import FakeEngine, house, request
from forebay.values import Decided, Done, Failed

CLOUDS = {
    "models": {name: {"openai": {"model": "m"}} for name in ("first", "second", "beside")},
    "default": {"model": "first", "fallback": "second", "spill": "never"},
}


async def walked(made):
    events = [event async for event in Corridor(made).run(request())]
    return [(e.target, e.move) for e in events if isinstance(e, Decided)], events[-1]


async def opened(document, error):
    engines = {name: FakeEngine() for name in CLOUDS["models"]}
    engines["first"].error = error
    made = house(engines, document)
    for _ in range(3):
        await walked(made)
    return engines, made


async def test_a_cloud_whose_circuit_is_open_is_passed_over_uncalled():
    engines, made = await opened(CLOUDS, EngineUnavailable("down"))
    steps, last = await walked(made)
    assert steps == [("second", "failover")]
    assert isinstance(last, Done)
    assert len(engines["first"].calls) == 3


async def test_its_spill_target_comes_before_the_ladder():
    document = {**CLOUDS, "default": {**CLOUDS["default"], "spill": {"to": "beside"}}}
    _, made = await opened(document, EngineUnavailable("down"))
    steps, last = await walked(made)
    assert steps == [("beside", "failover")]
    assert isinstance(last, Done)


async def test_where_nobody_else_is_the_client_is_told_to_come_back():
    document = {**CLOUDS, "default": {"model": "first", "spill": "never"}}
    _, made = await opened(document, EngineUnavailable("down"))
    steps, last = await walked(made)
    assert steps == []
    assert isinstance(last, Failed)
    assert isinstance(last.error, EngineUnavailable)
    assert last.error.retry_after_s is not None
    assert "first fails too often" in str(last.error)


@pytest.mark.parametrize("error", [InvalidRequest("no"), Overloaded("full", 1.0)])
async def test_a_clients_fault_and_a_full_provider_never_open_it(error):
    engines, made = await opened(CLOUDS, error)
    await walked(made)
    assert len(engines["first"].calls) == 4


async def test_a_storm_is_not_fed():
    """Every target fails; calls stay within 1.2 for each request, beyond a full bucket."""
    engines = {name: FakeEngine(error=EngineUnavailable("gone")) for name in ("small", "large")}
    document = {
        "models": {"small": {"triton": {}}, "large": {"triton": {}}},
        "default": {"model": "small", "fallback": "large"},
    }
    made = house(engines, document)
    for _ in range(200):
        for pool in made.admission.controller.state.pools.values():
            for replica in pool.replicas.values():
                replica.health = Health()  # only the budget holds them back here
        events = [event async for event in Corridor(made).run(request())]
        assert isinstance(events[-1].error, EngineUnavailable)
    calls = sum(len(engine.calls) for engine in engines.values())
    assert 200 < calls <= 1.2 * 200 + MOST
