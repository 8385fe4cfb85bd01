"""The corridor on fakes: every way a request can go, and what always holds at its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from forebay.corridor import Corridor
from forebay.errors import (
    AnswerRefused,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    NotBuilt,
    Overloaded,
    UnknownModel,
)
from forebay.testing import FakeEngine, ManualClock, MemoryLedger, held, house, request
from forebay.values import (
    Abilities,
    Decided,
    Done,
    Failed,
    Guide,
    Progress,
    Sampling,
    Token,
    Tool,
    Verdict,
)

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
GOOD, BAD = ('{"a"', ": 1}"), ('{"b"', ": 1}")

LADDER = {
    "models": {
        "small": {"triton": {}},
        "large": {"triton": {}},
        "other": {"triton": {}},
    },
    "default": {
        "model": "small",
        "fallback": ["large"],
        "verify": ["json_schema"],
        "schema": SCHEMA,
        "stream": "final",
    },
}


def ladder(**changed):
    return {**LADDER, "default": {**LADDER["default"], **changed}}


async def walk(made, **changed):
    """Return all events of a request, its text, and the one record."""
    ledger = MemoryLedger()
    made = replace(made, ledger=ledger)
    async with aclosing(Corridor(made).run(request(**changed))) as events:
        seen = [event async for event in events]
    assert len(ledger.records) == 1, "each request leaves exactly one record"
    text = "".join(e.text for e in seen if isinstance(e, Token))
    return seen, text, ledger.records[0]


def kinds(events):
    return [type(event) for event in events]


async def test_an_answer_streams_and_ends_with_done():
    events, text, record = await walk(house())
    assert kinds(events) == [Decided, Token, Token, Token, Token, Done]
    assert text == "Hello, world."
    assert record.status == "ok"
    assert record.usage.completion_tokens == 4
    assert record.timing.ttft_ms is not None


async def test_an_answer_that_is_not_streamed_leaves_whole():
    events, text, _ = await walk(house(), stream=False)
    assert kinds(events) == [Decided, Token, Done]
    assert text == "Hello, world."


@pytest.mark.parametrize(
    ("why", "small", "large", "changed", "text", "steps", "error"),
    [
        ("the first rung passes", GOOD, GOOD, {}, '{"a": 1}', ["first:small:answered"], None),
        (
            "a failed verdict climbs",
            BAD,
            GOOD,
            {},
            '{"a": 1}',
            ["first:small:refused", "escalate:large:answered"],
            None,
        ),
        (
            "no rung passes",
            BAD,
            BAD,
            {},
            "",
            ["first:small:refused", "escalate:large:refused"],
            AnswerRefused,
        ),
        (
            "a route may let it through, flagged",
            BAD,
            BAD,
            {"on_exhausted": "flag"},
            '{"b": 1}',
            ["first:small:refused", "escalate:large:refused"],
            None,
        ),
        (
            "a route may leave it to a person then",
            BAD,
            BAD,
            {"on_exhausted": "human"},
            "",
            [
                "first:small:refused",
                "escalate:large:refused",
                "escalate:human_review_queue:parked",
            ],
            None,
        ),
        (
            "a person may be a rung of the ladder",
            BAD,
            GOOD,
            {"fallback": "human_review_queue"},
            "",
            ["first:small:refused", "escalate:human_review_queue:parked"],
            None,
        ),
    ],
)
async def test_the_ladder(why, small, large, changed, text, steps, error):
    engines = {"small": FakeEngine(small), "large": FakeEngine(large)}
    events, said, record = await walk(house(engines, ladder(**changed)))
    assert said == text, why
    assert [f"{a.move}:{a.target}:{a.outcome}" for a in record.attempts] == steps, why
    last = events[-1]
    if error is None:
        assert isinstance(last, Done), why
        assert last.flagged is (changed.get("on_exhausted") == "flag"), why
    else:
        assert isinstance(last, Failed), why
        assert isinstance(last.error, error), why


async def test_text_of_a_failed_rung_never_leaves():
    engines = {"small": FakeEngine(BAD), "large": FakeEngine(GOOD)}
    events, _, _ = await walk(house(engines, LADDER))
    first_token = kinds(events).index(Token)
    assert any(isinstance(e, Verdict) and e.outcome == "failed" for e in events[:first_token])
    assert any(isinstance(e, Progress) for e in events[:first_token])
    assert sum(isinstance(e, Token) for e in events) == 1


FULL = {
    **LADDER,
    "models": {**LADDER["models"], "small": {"triton": {}, "limits": {"max_inflight": 1}}},
}


@pytest.mark.parametrize(
    ("why", "spill", "steps", "error"),
    [
        (
            "a full target spills",
            {"to": "other"},
            ["first:small:target_full", "spill:other:answered"],
            None,
        ),
        ("capacity does not climb the ladder", None, ["first:small:target_full"], Overloaded),
        ("never means never", "never", ["first:small:target_full"], Overloaded),
    ],
)
async def test_capacity(why, spill, steps, error):
    engines = {name: FakeEngine(GOOD) for name in ("small", "large", "other")}
    document = {**FULL, "default": {**FULL["default"], "spill": spill}}
    events, _, record = await walk(house(engines, document, busy={"small": 1}))
    assert [f"{a.move}:{a.target}:{a.outcome}" for a in record.attempts] == steps, why
    if error:
        assert isinstance(events[-1].error, error), why
        assert events[-1].error.retry_after_s > 0, why


@pytest.mark.parametrize(
    ("why", "error", "after", "steps"),
    [
        (
            "unavailable",
            EngineUnavailable("gone"),
            0,
            ["first:small:engine_unavailable", "failover:large:answered"],
        ),
        (
            "its queue is full, and nothing to spill to",
            Overloaded("full", 1.0),
            0,
            ["first:small:overloaded"],
        ),
        (
            "broke off, but nothing had been sent",
            EngineFailed("cut"),
            1,
            ["first:small:engine_failed", "failover:large:answered"],
        ),
        ("the client's own fault", InvalidRequest("top_p"), 0, ["first:small:invalid_request"]),
        ("too late", DeadlineExceeded("late"), 1, ["first:small:deadline_exceeded"]),
    ],
)
async def test_engine_errors_before_the_first_byte(why, error, after, steps):
    engines = {"small": FakeEngine(GOOD, error=error, error_after=after), "large": FakeEngine(GOOD)}
    made = house(engines, LADDER)
    events, _, record = await walk(made)
    assert [f"{a.move}:{a.target}:{a.outcome}" for a in record.attempts] == steps, why
    assert isinstance(events[-1], Done if len(steps) == 2 else Failed), why
    assert held(made) == 0, why


async def test_nothing_is_tried_again_after_the_first_byte():
    broken = FakeEngine(error=EngineFailed("cut"), error_after=2)
    other = FakeEngine()
    document = {
        "models": {"a": {"triton": {}}, "b": {"triton": {}}},
        "default": {"model": "a", "fallback": "b"},
    }
    events, text, record = await walk(house({"a": broken, "b": other}, document))
    assert text == "Hello,"
    assert isinstance(events[-1], Failed)
    assert not other.calls
    assert record.status == "engine_failed"


@pytest.mark.parametrize("stop_after", [0, 1, 3])
async def test_a_hang_up_cancels_the_engine_and_is_recorded(stop_after):
    engine, ledger = FakeEngine(hang=True), MemoryLedger()
    made = house({"local": engine}, ledger=ledger)
    run = Corridor(made).run(request())
    async with aclosing(run) as events:
        for _ in range(1 + stop_after):
            await anext(events)
    assert engine.running == 0
    assert engine.closed == (1 if stop_after else 0)
    assert held(made) == 0
    assert [r.status for r in ledger.records] == ["cancelled"]


async def test_a_client_that_leaves_after_done_was_served():
    ledger = MemoryLedger()
    async with aclosing(Corridor(house(ledger=ledger)).run(request())) as events:
        async for event in events:
            if isinstance(event, Done):
                break
    assert [r.status for r in ledger.records] == ["ok"]


async def test_a_cancelled_task_stops_the_engine_before_its_first_token():
    engine, ledger = FakeEngine((), hang=True), MemoryLedger()
    corridor = Corridor(house({"local": engine}, ledger=ledger))
    decided = asyncio.Event()

    async def read():
        async with aclosing(corridor.run(request())) as events:
            async for _ in events:
                decided.set()

    task = asyncio.create_task(read())
    await decided.wait()
    await asyncio.sleep(0)
    assert engine.running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    assert [r.status for r in ledger.records] == ["cancelled"]


async def test_a_broken_expectation_is_raised_and_recorded():
    ledger = MemoryLedger()
    made = broken = house({"local": FakeEngine(error=RuntimeError("a bug"))}, ledger=ledger)
    with pytest.raises(RuntimeError, match="a bug"):
        async for _ in Corridor(broken).run(request()):
            pass
    assert [r.status for r in ledger.records] == ["internal"]
    assert held(made) == 0


@pytest.mark.parametrize("places", [1, 3])
async def test_a_burst_is_not_admitted_beyond_the_limit(places):
    """Deciding and reserving are one step: nobody slips in between."""
    engine = FakeEngine(gap_s=0.01)
    limited = {
        "models": {"local": {"triton": {}, "limits": {"max_inflight": places}}},
        "default": {"model": "local"},
    }
    made = house({"local": engine}, limited)

    async def ends():
        return [event async for event in Corridor(made).run(request())][-1]

    last = await asyncio.gather(*(ends() for _ in range(20)))
    assert sum(isinstance(event, Done) for event in last) == places
    assert all(isinstance(e.error, Overloaded) for e in last if isinstance(e, Failed))
    assert len(engine.calls) == places
    assert held(made) == 0


async def test_no_target_is_tried_twice():
    engines = {name: FakeEngine(error=EngineUnavailable("gone")) for name in ("small", "large")}
    document = ladder(fallback=["large", "small"], spill={"to": "large"})
    events, _, record = await walk(house(engines, document))
    assert [a.target for a in record.attempts] == ["small", "large"]
    assert isinstance(events[-1].error, EngineUnavailable)


async def test_the_fleet_learns_who_answered_and_who_did_not():
    engines = {"small": FakeEngine(error=EngineUnavailable("gone")), "large": FakeEngine(GOOD)}
    made = house(engines, LADDER)
    await walk(made)
    small, large = (
        made.admission.controller.state.pools[name].replicas[name].health
        for name in ("small", "large")
    )
    assert (small.in_a_row, small.proven) == (1, False)
    assert (large.in_a_row, large.proven) == (0, True)


class Slow(FakeEngine):
    """An engine whose tokeniser takes its time."""

    async def prepare(self, request):
        await asyncio.sleep(0.05)
        return await super().prepare(request)


async def test_a_deadline_that_passes_while_a_prompt_is_read_calls_nobody():
    engine = Slow()
    soon = asyncio.get_running_loop().time() + 0.02
    events, _, record = await walk(house({"local": engine}), deadline_s=soon)
    assert isinstance(events[-1].error, DeadlineExceeded)
    assert [a.outcome for a in record.attempts] == ["deadline_exceeded"]
    assert not engine.calls


CLOUD = {
    "models": {
        "small": {"triton": {}, "limits": {"max_inflight": 1}},
        "cloud": {"openai": {"model": "x"}},
    },
    "default": {"model": "small", "fallback": "cloud"},
}


async def test_a_full_engine_is_told_as_such_where_the_spill_target_is_not_built():
    events, _, record = await walk(house({"small": FakeEngine()}, CLOUD, busy={"small": 1}))
    assert isinstance(events[-1].error, Overloaded)
    outcomes = [f"{a.target}:{a.outcome}" for a in record.attempts]
    assert outcomes == ["small:target_full", "cloud:not_built"]


async def test_a_target_that_is_not_built_is_not_gone_round():
    document = {**CLOUD, "default": {"model": "cloud", "fallback": "small"}}
    local = FakeEngine()
    events, _, record = await walk(house({"small": local}, document))
    assert isinstance(events[-1].error, NotBuilt)
    assert (record.route, record.target) == ("default", "cloud")
    assert not local.calls


async def test_a_flagged_answer_is_told_by_the_target_that_gave_it():
    engines = {"small": FakeEngine(BAD), "large": FakeEngine(error=EngineUnavailable("gone"))}
    events, text, record = await walk(house(engines, ladder(on_exhausted="flag")))
    assert text == '{"b": 1}'
    assert events[-1].flagged
    assert record.target == "small"
    assert record.usage.completion_tokens == events[-1].usage.completion_tokens == 2
    assert [e.tokens for e in events if isinstance(e, Token)] == [2]


async def test_the_fewest_tokens_asked_for_never_exceed_the_most():
    engine = FakeEngine()
    limits = {
        "models": {"local": {"triton": {}, "limits": {"max_output_tokens": 5}}},
        "default": {"model": "local"},
    }
    await walk(house({"local": engine}, limits), sampling=Sampling(min_tokens=50, max_tokens=99))
    assert engine.calls[0].request.sampling.min_tokens == engine.calls[0].max_tokens == 5


@pytest.mark.parametrize(
    ("why", "changed", "error"),
    [
        ("no such model", {"model": "locla"}, UnknownModel),
        ("already late", {"deadline_s": 999.0}, DeadlineExceeded),
        ("prompt too long", {"text": "word " * 20}, InvalidRequest),
    ],
)
async def test_refused_before_any_engine(why, changed, error):
    engine = FakeEngine(abilities=Abilities(10, 20))
    events, _, _ = await walk(house({"local": engine}, clock=ManualClock(1000.0)), **changed)
    assert isinstance(events[-1].error, error), why
    assert not engine.calls, why


async def test_unknown_model_suggests():
    events, _, _ = await walk(house(), model="locla")
    assert "did you mean local" in str(events[-1].error)


@pytest.mark.parametrize(
    ("why", "limit", "asked", "expected"),
    [
        ("the request says", None, 7, 7),
        ("the target says less", 5, 7, 5),
        ("nobody says", None, None, 98),
        ("the context ends first", None, 500, 98),
    ],
)
async def test_the_answer_is_bounded(why, limit, asked, expected):
    engine = FakeEngine(abilities=Abilities(99, 100))
    document = {
        "models": {"local": {"triton": {}, "limits": {"max_output_tokens": limit}}},
        "default": {"model": "local"},
    }
    await walk(house({"local": engine}, document), sampling=Sampling(max_tokens=asked))
    assert engine.calls[0].max_tokens == expected, why


async def test_an_answer_that_is_a_call_arrives_as_one():
    said = ('{"name": "weather"', ', "arguments": {"city": "Oslo"}}')
    events, text, _ = await walk(house({"local": FakeEngine(said)}), tools=(Tool("weather"),))
    done = events[-1]
    assert text == ""
    assert done.finish == "tool_calls"
    assert [(c.name, c.arguments) for c in done.tool_calls] == [("weather", '{"city": "Oslo"}')]


@pytest.mark.parametrize("said", [("Hi", " there"), ("{not", " json"), ('{"name": "x"}', "")])
async def test_other_text_stays_text_where_tools_are_offered(said):
    events, text, _ = await walk(house({"local": FakeEngine(said)}), tools=(Tool("weather"),))
    assert text == "".join(said)
    assert events[-1].finish == "stop"


async def test_a_demanded_call_is_a_guide_for_the_engine():
    engine = FakeEngine(("x",))
    await walk(house({"local": engine}), tools=(Tool("weather"),), tool_choice="weather")
    guide = engine.calls[0].request.guide
    assert isinstance(guide, Guide)
    assert '"const": "weather"' in guide.source


async def test_explain_calls_nobody():
    engines = {"small": FakeEngine(GOOD), "large": FakeEngine(GOOD)}
    document = {**FULL, "default": {**FULL["default"], "spill": {"to": "large"}}}
    made = house(engines, document, busy={"small": 1})
    said = await Corridor(made).explain(request())
    assert [type(r.placement).__name__ for r in said.rungs] == ["Spill", "Admit"]
    assert not engines["small"].calls
    assert held(made) == 0


async def test_tokens_that_left_together_have_no_time_between_them():
    engines = {"small": FakeEngine(GOOD, gap_s=0.01), "large": FakeEngine(GOOD)}
    events, _, record = await walk(house(engines, LADDER))
    assert events[-1].timing.tpot_ms is None
    assert record.timing.ttft_ms is not None
    events, _, _ = await walk(house({"local": FakeEngine(gap_s=0.01)}))
    assert events[-1].timing.tpot_ms > 5
