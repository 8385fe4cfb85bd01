"""`any_of`: the corridor asks admission what each first choice would do, and takes the best."""

from contextlib import aclosing
from dataclasses import replace

import pytest

from forebay.corridor import Corridor
from forebay.testing import FakeEngine, MemoryLedger, held, house, request
from forebay.values import Abilities, Done

WHOLE = {
    "models": {
        "near": {"triton": {}, "price": {"input_usd_per_mtok": 3, "output_usd_per_mtok": 3},
                 "quality": 0.4},
        "far": {"triton": {}, "price": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
                "quality": 0.6},
        "best": {"triton": {}, "price": {"input_usd_per_mtok": 9, "output_usd_per_mtok": 9},
                 "quality": 0.9, "limits": {"max_inflight": 1}},
        "last": {"triton": {}},
    },
    "default": {"model": {"any_of": ["near", "far", "best"]}, "fallback": ["last"]},
}  # fmt: skip


def built(prefer="cost", busy=None, **engines):
    made = {name: FakeEngine() for name in WHOLE["models"]} | engines
    model = {"any_of": ["near", "far", "best"], "prefer": prefer}
    return house(made, {**WHOLE, "default": {**WHOLE["default"], "model": model}}, busy=busy)


async def ranked(made, asked=None):
    asked = asked or request()
    chosen = made.choose(asked)
    return (await made.ranked(chosen, made.completed(asked, chosen))).ladder


@pytest.mark.parametrize(
    ("why", "prefer", "busy", "ladder"),
    [
        ("the cheapest", "cost", {}, ["far", "near", "best", "last"]),
        ("the best", "quality", {}, ["best", "far", "near", "last"]),
        ("the best that is not full", "quality", {"best": 1}, ["far", "near", "best", "last"]),
        ("the least loaded", "latency", {"near": 5, "far": 3}, ["best", "far", "near", "last"]),
    ],
)
async def test_the_ladder_begins_with_what_is_preferred_now(why, prefer, busy, ladder):
    made = built(prefer, busy)
    assert list(await ranked(made)) == ladder, why
    assert held(made) == 0


async def test_a_choice_that_was_named_stays():
    assert await ranked(built(), request(model="near")) == ("near",)


async def test_a_prompt_too_long_for_one_goes_to_another():
    tight = Abilities(2, 8)
    made = built(far=FakeEngine(abilities=tight))
    assert (await ranked(made, request("a prompt of more words")))[0] == "near"


async def test_a_price_change_moves_the_next_request():
    made, ledger = built(), MemoryLedger()
    made = replace(made, ledger=ledger)
    places = made.admission.controller.state.places

    async def answered_by():
        async with aclosing(Corridor(made).run(request())) as events:
            assert isinstance([event async for event in events][-1], Done)
        return ledger.records[-1].target

    assert await answered_by() == "far"
    far = places["far"]
    places["far"] = replace(far, input_usd=far.input_usd * 10, output_usd=far.output_usd * 10)
    assert await answered_by() == "near"
    places["far"] = far
    assert await answered_by() == "far"
    assert held(made) == 0


async def test_explain_tells_the_order_that_a_request_would_meet():
    made = built("quality")
    said = await Corridor(made).explain(request())
    assert [rung.target for rung in said.rungs] == ["best", "far", "near", "last"]
