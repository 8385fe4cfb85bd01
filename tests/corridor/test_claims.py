"""What a call may claim is its class's affair, and what it teaches is not its client's."""

from __future__ import annotations

import asyncio

import pytest

from forebay.corridor import Corridor
from forebay.testing import FakeEngine, house, request
from forebay.values import Token

MODELS = {
    "local": {"triton": {}},
    "second": {"triton": {}},
    "cloud": {"openai": {"model": "m"}},
}
SLO = {"ttft_ms": 1000, "tpot_ms": 20}


def built(said, **route):
    engines = {name: FakeEngine(**said.get(name, {})) for name in MODELS}
    document = {"models": MODELS, "default": {"model": "local", "slo": SLO, **route}}
    return house(engines, document)


async def asked(made, **changed):
    """Walk a request, and return what admission was asked, each by its target."""
    seen, place = {}, made.admission.place

    async def spied(ask):
        seen[ask.target] = ask.terms
        return await place(ask)

    made.admission.place = spied
    async for _ in Corridor(made).run(request(**changed)):
        pass
    return seen


@pytest.mark.parametrize(
    ("spill", "model", "stays"),
    [
        ("never", "auto", True),
        ("never", "local", True),
        ({"to": "cloud"}, "auto", False),
        ({"to": "cloud"}, "local", False),
    ],
)
async def test_a_client_that_names_the_target_has_the_claims_of_its_class(spill, model, stays):
    seen = await asked(built({}, spill=spill), model=model)
    assert seen["local"].stays is stays
    assert (seen["local"].spill_to is None) is (spill == "never" or model == "local")


async def test_a_second_call_beside_the_first_does_not_go_before_others():
    made = built({"local": {"gap_s": 0.3}}, hedge={"after_ms": 20, "to": "second"})
    seen = await asked(made)
    assert (seen["local"].stays, seen["second"].stays) == (True, False)


@pytest.mark.parametrize(("gap_s", "pause_s", "missed"), [(0.05, 0.0, True), (0.0, 0.05, False)])
async def test_only_an_engine_that_is_slow_is_distrusted_for_it(gap_s, pause_s, missed):
    made = built({"local": {"script": ["word"] * 8, "gap_s": gap_s}})
    async for event in Corridor(made).run(request()):
        if isinstance(event, Token):
            await asyncio.sleep(pause_s)
    learnt = made.admission.controller.state.classes["default"]
    assert learnt.answers == 1
    assert (learnt.rate.log > 0.0) is missed
