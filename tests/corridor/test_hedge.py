"""A second call beside a slow first one: who answers, who is cancelled, and what it cost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.corridor import Corridor
from forebay.errors import EngineFailed, EngineUnavailable, InvalidRequest
from forebay.policy.retries import MOST
from forebay.testing import FakeEngine, MemoryLedger, held, house, request
from forebay.values import Decided, Done, Failed, Text, Token

AFTER_MS = 30
SLOW_S = 0.6
PRICE = {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}


def built(engines, free=None, more=None, **route):
    ledger = MemoryLedger()
    models = {name: {"openai": {"model": "m"}, "price": PRICE} for name in engines}
    for name, said in (more or {}).items():
        models[name] |= said
    if free is not None:
        del models[free]["price"]
    hedge = {"after_ms": AFTER_MS, "to": "second"}
    document = {"models": models, "default": {"model": "first", "hedge": hedge, **route}}
    return house(engines, document, ledger=ledger), ledger


async def walked(made, **changed):
    return [event async for event in Corridor(made).run(request(**changed))]


def text(events):
    return "".join(e.text for e in events if isinstance(e, Token))


def steps(ledger):
    return [f"{a.move}:{a.target}:{a.outcome}" for a in ledger.records[0].attempts]


SLOW, QUICK = {"script": ("slow",), "gap_s": SLOW_S}, {"script": ("quick",)}
HANGS = {"script": (), "hang": True}
BROKEN = {"script": ("x",), "error": EngineUnavailable("gone")}


@pytest.mark.parametrize(
    ("why", "first", "second", "said", "expected"),
    [
        ("who starts in time is alone", QUICK, HANGS, "quick", ["first:first:answered"]),
        ("who starts slowly is outrun", SLOW, QUICK, "quick",
         ["first:first:outrun", "hedge:second:answered"]),
        ("who hangs as well", HANGS, QUICK, "quick",
         ["first:first:outrun", "hedge:second:answered"]),
        ("the second may be slower still", SLOW, HANGS, "slow",
         ["hedge:second:outrun", "first:first:answered"]),
        ("a second that breaks leaves the first alone", SLOW, BROKEN, "slow",
         ["hedge:second:engine_unavailable", "first:first:answered"]),
        ("a first that breaks late leaves the second",
         {**BROKEN, "error": EngineFailed("late"), "error_after": 1, "gap_s": 5.0},
         QUICK, "quick", ["first:first:outrun", "hedge:second:answered"]),
        ("a first that breaks at once is failed over, not hedged", BROKEN, QUICK, "quick",
         ["first:first:engine_unavailable", "failover:second:answered"]),
    ],
)  # fmt: skip
async def test_who_answers(why, first, second, said, expected):
    engines = {"first": FakeEngine(**first), "second": FakeEngine(**second)}
    made, ledger = built(engines, fallback="second")
    events = await walked(made)
    assert text(events) == said, why
    assert isinstance(events[-1], Done), why
    assert steps(ledger) == expected, why
    assert ledger.records[0].target == expected[-1].split(":")[1], why
    assert [e.running for e in engines.values()] == [0, 0], why
    assert held(made) == 0, why


class LateFailure(FakeEngine):
    """Breaks after a while, before its first chunk."""

    async def generate(self, call):
        await asyncio.sleep(SLOW_S)
        if call:
            raise EngineUnavailable("late")
        yield


async def test_both_break():
    engines = {"first": LateFailure(), "second": FakeEngine(**BROKEN)}
    made, ledger = built(engines)
    events = await walked(made)
    assert isinstance(events[-1], Failed)
    assert {a.outcome for a in ledger.records[0].attempts} == {"engine_unavailable"}
    assert len(ledger.records[0].attempts) == 2
    assert held(made) == 0


async def test_the_client_is_told_who_answers_and_the_cost_of_both_is_counted():
    engines = {"first": FakeEngine(**SLOW), "second": FakeEngine(**QUICK)}
    made, ledger = built(engines)
    events = await walked(made, prompt=Text("one two three"))
    decided = [(e.target, e.move, e.reason) for e in events if isinstance(e, Decided)]
    assert decided == [("first", "first", "default_route"), ("second", "hedge", "slow_start")]
    record = ledger.records[0]
    assert [attempt.usd for attempt in record.attempts] == [3.0, 4.0], "prompt; prompt and answer"
    assert record.usage.completion_tokens == 1


async def test_a_hang_up_while_both_run_cancels_both():
    engines = {"first": FakeEngine(**HANGS), "second": FakeEngine(**HANGS)}
    made, ledger = built(engines)

    async def client():
        async with aclosing(Corridor(made).run(request())) as events:
            async for _ in events:
                pass

    waiting = asyncio.create_task(client())
    async with asyncio.timeout(2):
        while not engines["second"].running:  # noqa: ASYNC110 - a fake has no event to wait for
            await asyncio.sleep(0.002)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert [e.running for e in engines.values()] == [0, 0]
    assert held(made) == 0
    assert sorted(steps(ledger)) == ["first:first:cancelled", "hedge:second:cancelled"]
    assert ledger.records[0].status == "cancelled"


@pytest.mark.parametrize(
    ("why", "changed", "spent"),
    [
        ("the retry budget pays for it", {}, True),
        ("not where the class may not afford it", {"constraints": {"max_cost_usd": 2.5}}, False),
    ],
)
async def test_no_second_call(why, changed, spent):
    engines = {"first": FakeEngine(("slow",), gap_s=0.1), "second": FakeEngine(**QUICK)}
    made, ledger = built(engines, free="first", **changed)
    if spent:
        while made.retries.spend():
            pass
    assert text(await walked(made)) == "slow", why
    assert [a.outcome for a in ledger.records[0].attempts][-1] == "answered", why
    assert not engines["second"].calls, why


async def test_a_target_that_the_client_named_is_not_hedged():
    """The client may have named it because its text is to go nowhere else."""
    engines = {"first": FakeEngine(("slow",), gap_s=0.1), "second": FakeEngine(**QUICK)}
    made, ledger = built(engines)
    assert text(await walked(made, model="first")) == "slow"
    assert steps(ledger) == ["first:first:answered"]
    assert not engines["second"].calls


async def test_a_second_call_that_waits_in_vain_costs_no_retry():
    """Most hedges of a busy hour get no place; failovers still find the budget whole."""
    engines = {"first": FakeEngine(("slow",), gap_s=0.1), "second": FakeEngine(**QUICK)}
    limits = {"limits": {"max_inflight": 1}}
    made, ledger = built(engines, more={"second": limits})
    made.admission.controller.state.exits.clouds["second"].inflight = 1
    assert text(await walked(made)) == "slow"
    assert steps(ledger) == ["first:first:answered"]
    assert made.retries._left == MOST


async def test_an_answer_that_failed_is_not_hedged_again():
    bad = FakeEngine(("no json",))
    slowly = FakeEngine(('{"a": 1}',), gap_s=0.1)
    engines = {"first": bad, "second": FakeEngine(**QUICK), "third": slowly}
    checked = {"verify": ["json_schema"], "schema": {"required": ["a"]}, "stream": "final"}
    made, ledger = built(engines, fallback="third", **checked)
    await walked(made)
    assert steps(ledger) == ["first:first:refused", "escalate:third:answered"]


class Asked(FakeEngine):
    """Tells how often a request was prepared for it: admission is asked in the same turn."""

    asked = 0

    async def prepare(self, asked):
        type(self).asked += 1
        return await FakeEngine.prepare(self, asked)


async def test_a_second_call_that_gets_no_place_is_no_visit():
    """The target is still there for the ladder once the first call has failed."""
    engines = {"first": LateFailure(), "second": Asked(**QUICK)}
    limits = {"limits": {"max_inflight": 1}}
    made, ledger = built(engines, fallback="second", more={"second": limits})
    cloud = made.admission.controller.state.exits.clouds["second"]
    cloud.inflight = 1
    asking = asyncio.create_task(walked(made))
    async with asyncio.timeout(2):
        while not engines["second"].asked:  # noqa: ASYNC110 - a fake has no event to wait for
            await asyncio.sleep(0.002)
    cloud.inflight = 0
    assert text(await asking) == "quick"
    assert steps(ledger) == ["first:first:engine_unavailable", "failover:second:answered"]


class Picky(FakeEngine):
    """Cannot be told what is asked."""

    async def prepare(self, request):
        raise InvalidRequest("a regular expression cannot be told")


async def test_a_second_target_that_cannot_be_told_the_request_harms_nobody():
    engines = {"first": FakeEngine(("slow",), gap_s=0.1), "second": Picky()}
    made, ledger = built(engines)
    assert text(await walked(made)) == "slow"
    assert steps(ledger) == ["first:first:answered"]


async def test_what_the_client_did_wrong_is_told_by_whoever_finds_it():
    engines = {
        "first": FakeEngine(**SLOW),
        "second": FakeEngine(("x",), error=InvalidRequest("no")),
    }
    made, ledger = built(engines)
    assert text(await walked(made)) == "slow"
    assert steps(ledger) == ["hedge:second:invalid_request", "first:first:answered"]


@settings(max_examples=25)
@given(
    first_s=st.sampled_from([0.0, 0.02, 0.03, 0.04, 0.1]),
    second_s=st.sampled_from([0.0, 0.02, 0.1]),
    broken=st.sampled_from([(), ("first",), ("second",), ("first", "second")]),
    leaves_s=st.sampled_from([None, 0.01, 0.03, 0.05]),
)
def test_every_place_is_given_back_and_every_call_is_in_the_record(
    first_s, second_s, broken, leaves_s
):
    async def once():
        engines = {
            name: FakeEngine(
                ("a", "b"), gap_s=gap, error=EngineUnavailable("x") if name in broken else None
            )
            for name, gap in (("first", first_s), ("second", second_s))
        }
        made, ledger = built(engines, fallback="second")
        task = asyncio.create_task(walked(made))
        await asyncio.wait({task}, timeout=leaves_s)
        task.cancel()
        await asyncio.wait({task})
        called = sum(len(e.calls) for e in engines.values())
        assert held(made) == 0
        assert [e.running for e in engines.values()] == [0, 0]
        assert len(ledger.records) == 1
        assert len(ledger.records[0].attempts) >= called

    asyncio.run(once())
