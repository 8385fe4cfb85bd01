"""One cost cap for a request, over all targets that it visits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.corridor import Corridor
from forebay.errors import EngineFailed
from forebay.testing import FakeEngine, MemoryLedger, house, request
from forebay.values import Sampling, Token

DOLLAR_A_TOKEN = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}
CHECKED = {"verify": ["json_schema"], "schema": {"required": ["a"]}, "stream": "final"}


def built(cap, *scripts, error=None):
    names = [f"t{n}" for n, _ in enumerate(scripts)]
    engines = {
        n: FakeEngine(s, error=error, error_after=9) for n, s in zip(names, scripts, strict=True)
    }
    models = {n: {"openai": {"model": "m"}, "price": DOLLAR_A_TOKEN} for n in names}
    route = {"model": names[0], "fallback": names[1:], "constraints": {"max_cost_usd": cap}}
    ledger = MemoryLedger()
    return house(
        engines, {"models": models, "default": {**route, **CHECKED}}, ledger=ledger
    ), ledger


async def walked(made, most):
    asked = request("a b", sampling=Sampling(max_tokens=most))
    return [event async for event in Corridor(made).run(asked)]


BAD = ("no", "json", "here")


@pytest.mark.parametrize(
    ("why", "cap", "expected"),
    [
        ("enough for both", 10.0, ["first:t0:refused", "escalate:t1:refused"]),
        ("exactly enough for both", 10.0, ["first:t0:refused", "escalate:t1:refused"]),
        ("the first has eaten the second's", 9.0, ["first:t0:refused", "escalate:t1:cost_cap"]),
        ("not even enough for the first", 4.0, ["first:t0:cost_cap"]),
    ],
)
async def test_rungs_share_it(why, cap, expected):
    made, ledger = built(cap, BAD, BAD)
    await walked(made, 3)
    assert [f"{a.move}:{a.target}:{a.outcome}" for a in ledger.records[0].attempts] == expected, why


async def test_what_broke_after_some_tokens_is_counted_too():
    made, ledger = built(9.0, ("x", "y", "z"), BAD, error=EngineFailed("cut"))
    await walked(made, 3)
    assert [a.outcome for a in ledger.records[0].attempts] == ["engine_failed", "cost_cap"]
    assert ledger.records[0].attempts[0].usd == 5.0


async def test_an_answer_ends_where_the_cap_does():
    made, ledger = built(6.0, ('{"a":1}', *[" "] * 40))
    made.admission.controller.state.learnt(
        made.book.terms(made.policy.default, None)
    ).mean_tokens = 2
    events = await walked(made, 40)
    assert sum(e.tokens for e in events if isinstance(e, Token)) == 4
    assert events[-1].finish == "length"
    assert ledger.records[0].attempts[0].usd == 6.0


@given(
    cap=st.floats(0.5, 40),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    most=st.integers(1, 12),
)
async def test_no_request_costs_more_than_its_cap(cap, lengths, most):
    made, ledger = built(cap, *[["x"] * n for n in lengths])
    await walked(made, most)
    assert sum(a.usd for a in ledger.records[0].attempts) <= cap


@pytest.mark.parametrize("cap", [3.5, 4.0, 4.5])
async def test_a_hedge_and_the_call_beside_it_share_the_cap(cap):
    price = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}
    models = {name: {"openai": {"model": "m"}, "price": price} for name in ("first", "second")}
    route = {
        "model": "first",
        "hedge": {"after_ms": 20, "to": "second"},
        "constraints": {"max_cost_usd": cap},
    }
    engines = {"first": FakeEngine(("slow",), gap_s=0.5), "second": FakeEngine(("quick",))}
    ledger = MemoryLedger()
    made = house(engines, {"models": models, "default": route}, ledger=ledger)
    async for _ in Corridor(made).run(request("a b", sampling=Sampling(max_tokens=1))):
        pass
    spent = [(a.target, a.outcome, a.usd) for a in ledger.records[0].attempts]
    assert sum(usd for *_, usd in spent) <= cap, spent
