"""What admission has learnt, over a restart: where the next life begins, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.scene import CHAT, PLAIN, SPEED, ask, place, replica, scene, settled
from pydantic import ValidationError

from forebay.policy.admission import Coefficients, Controller, Place, ReplicaSpec, Terms
from forebay.policy.admission.exits import SURE
from forebay.policy.admission.feedback import (
    AWAY_S,
    ENOUGH,
    HIGHEST,
    LOWEST,
    ClassFeedback,
    Margin,
)
from forebay.policy.admission.memory import (
    LONGEST_S,
    SHORTEST_STEP_S,
    ClassMemory,
    EngineMemory,
    Memory,
    remembered,
)
from forebay.policy.admission.model import Speed
from forebay.policy.admission.replica import FORGET_S, REFIT_EVERY
from forebay.values import Spill

BUILDS = {"local": "digest-of-local", "small": "digest-of-small"}
KNOWN = EngineMemory(
    step_s=(0.02, 0.002, 2e-6, 3e-4), lag_s=0.05, ttft_spread_s=0.1, tpot_spread=0.2
)
CLASS = ClassMemory(ttft=2.0, rate=3.0, output_tokens=300.0, mean_tokens=90.0, answers=ENOUGH)


HURRIED = Terms("hurried", tpot_s=1e-6, spill_to="cloud")
"""Whatever an engine's speed is believed to be, it is too slow for this."""


def restarted(made, now_s=0.0, *, before=None, builds=BUILDS):
    """Return what the next life of a router reads of this one."""
    kept = remembered(made.state, builds, before or Memory(), now_s)
    return Memory.model_validate_json(kept.model_dump_json())


def born(memory, *, replicas=1, **spec):
    """Return a scene that begins with a memory."""
    made = scene(replicas, known=memory.speed(BUILDS["local"]), **spec)
    made.state.memory = memory
    return made


# ---- the next life begins where this one ended -------------------------------------------

seconds = st.floats(1e-9, 10.0)
speeds = st.builds(
    Speed,
    st.builds(Coefficients, st.floats(SHORTEST_STEP_S, 10.0), seconds, seconds, seconds),
    st.floats(0, 1),
    st.floats(0, 10),
    st.floats(0, 1),
)
margins = st.builds(Margin, st.floats(math.log(LOWEST), math.log(HIGHEST)), st.just(0.0))
lengths = st.floats(1, 1e6)
classes = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.builds(
        ClassFeedback, st.just(0.99), margins, margins, lengths, lengths, st.integers(1, 1 << 40)
    ),
    max_size=4,
)
memories = st.builds(
    Memory,
    engines=st.dictionaries(
        st.sampled_from([*BUILDS.values(), "another", "\U0001f600"]),
        st.builds(EngineMemory.of, speeds),
    ),
    classes=st.dictionaries(st.sampled_from(["chat", "batch"]), st.just(CLASS)),
)


@given(speed=speeds, learnt=classes, before=memories)
def test_a_new_router_begins_with_the_same_speeds_margins_and_lengths(speed, learnt, before):
    made = scene()
    replica(made).begin(speed)
    replica(made).learnt = True
    made.state.classes.update(learnt)
    memory = restarted(made, before=before)
    again = born(memory)
    assert replica(again).speed == speed
    for route, was in learnt.items():
        now = again.state.learnt(Terms(route, attainment=0.99))
        for one, other in ((now.ttft, was.ttft), (now.rate, was.rate)):
            assert one.factor(0.0) == pytest.approx(other.factor(0.0), rel=1e-9)
        assert (now.output_tokens, now.mean_tokens) == (was.output_tokens, was.mean_tokens)
        for share in SURE:
            assert now.length(share) == was.length(share)


@given(before=memories, learnt=classes)
def test_what_was_not_met_again_is_kept(before, learnt):
    made = born(before)
    made.state.classes.update(learnt)
    after = restarted(made, before=before)
    assert after.engines == before.engines, "no engine was seen long enough to learn of it"
    for route, kept in before.classes.items():
        if route not in learnt:
            assert after.classes[route] == kept
    assert set(after.classes) == set(before.classes) | set(learnt)


@given(memories)
def test_a_life_in_which_nothing_happens_changes_nothing(before):
    made = born(before)
    for route in before.classes:
        made.state.learnt(Terms(route))
    after = restarted(made, before=before)
    assert after.engines == before.engines
    for route, kept in before.classes.items():
        told = after.classes[route].model_dump()
        assert told == pytest.approx(kept.model_dump(), rel=1e-9)


def answered(made, gap_s, count, at=0.0):
    """Let one answer of `count` tokens come, `gap_s` apart; return when it had ended."""
    ticket, _ = place(made, ask(PLAIN, at=at), at)
    for number in range(count):
        made.tokens(ticket, 1, at + number * gap_s)
    made.ended(ticket, "served", at + count * gap_s)
    made.refit(at + count * gap_s)
    return at + count * gap_s


def test_what_was_learnt_of_an_engine_by_calling_it_is_what_the_next_life_begins_with():
    made = scene()
    at_s = answered(made, 0.05, 20 * REFIT_EVERY)
    learnt = replica(made).speed
    assert learnt.step.a_s > 1.5 * SPEED.a_s
    memory = restarted(made, at_s)
    assert list(memory.engines) == ["digest-of-local"], "small was never called"
    assert replica(born(memory)).speed == learnt
    assert list(memory.classes) == ["plain"]
    assert memory.classes["plain"].answers == 1


def test_of_several_replicas_the_mean_is_kept_and_only_of_those_that_learnt():
    made = scene(3)
    for number, factor in ((0, 1.0), (1, 3.0)):
        replica(made, number).begin(Speed(SPEED.scaled(factor), lag_s=factor / 10))
        replica(made, number).learnt = True
    replica(made, 2).begin(Speed(SPEED.scaled(100.0)))
    kept = restarted(made).speed("digest-of-local")
    assert kept.step.a_s == pytest.approx(2 * SPEED.a_s)
    assert kept.lag_s == pytest.approx(0.2)


def test_an_engine_is_known_by_its_build_wherever_it_runs():
    made = scene()
    replica(made).learnt = True
    memory = restarted(made, builds={"local": "a build"})
    moved = Controller([Place("local", "elsewhere:8001/llama")])
    spec = ReplicaSpec("r9", "elsewhere:8001/llama", known=memory.speed("a build"))
    assert moved.join(spec, 0.0).speed == replica(made).speed
    assert memory.speed("another build") is None


def test_a_pool_whose_build_is_not_told_is_not_kept():
    made = scene()
    replica(made).learnt = True
    assert restarted(made, builds={}).engines == {}


# ---- replicas that join, and what is forgotten -------------------------------------------


def test_a_replica_that_joins_starts_at_what_was_known_and_forgets_it_where_it_keeps_all_away():
    made = scene(known=KNOWN.speed())
    joined = replica(made)
    assert not joined.learnt, "it has been seen in another life, not in this one"
    at_s = FORGET_S
    for _ in range(40):
        made.refit(at_s)
        at_s += FORGET_S
    assert joined.speed == KNOWN.speed(), "nobody asked"
    for _ in range(40):
        assert isinstance(settled(made, ask(HURRIED, at=at_s), at_s), Spill)
        at_s += FORGET_S
        made.refit(at_s)
    assert joined.coefficients.a_s == pytest.approx(SPEED.a_s)
    assert joined.coefficients.d_s == pytest.approx(SPEED.d_s)


def test_an_engine_known_to_be_fast_is_not_made_slower_by_rest():
    fast = Speed(SPEED.scaled(0.5))
    made = scene(known=fast)
    assert isinstance(settled(made, ask(HURRIED)), Spill)
    made.refit(FORGET_S)
    assert replica(made).coefficients == fast.step


def test_what_others_have_learnt_in_this_life_stands_over_the_one_before():
    made = scene(known=KNOWN.speed())
    at_s = answered(made, 0.05, 20 * REFIT_EVERY)
    second = made.join(replace(replica(made).spec, name="r1"), at_s)
    assert second.speed == replica(made).speed != KNOWN.speed()


def test_a_replica_that_nobody_knew_starts_as_its_build_says():
    assert replica(scene(known=None)).speed == Speed(SPEED)


# ---- margins -----------------------------------------------------------------------------


def test_margins_of_an_earlier_life_hold_until_they_keep_every_request_away():
    made = scene()
    made.state.memory = Memory(classes={"chat": CLASS})
    learnt = made.state.learnt(CHAT)
    assert learnt.ttft.factor(1e9) == pytest.approx(CLASS.ttft)
    learnt.turned_away(1e9)
    assert learnt.ttft.factor(1e9 + 2 * AWAY_S) == pytest.approx(CLASS.ttft**0.25)


def test_what_had_faded_before_the_restart_stays_faded():
    made = scene()
    away = Margin(math.log(4.0), away_s=0.0)
    made.state.classes["chat"] = ClassFeedback(ttft=away, answers=1)
    memory = restarted(made, 2 * AWAY_S)
    assert memory.classes["chat"].ttft == pytest.approx(4.0**0.25)


def test_a_class_keeps_the_attainment_of_todays_policy_and_knows_its_longest_answers():
    made = scene()
    made.state.memory = Memory(classes={"chat": CLASS})
    learnt = made.state.learnt(Terms("chat", attainment=0.5))
    assert learnt.attainment == 0.5
    assert learnt.length(0.99) == CLASS.output_tokens
    assert made.state.learnt(Terms("other")).length(0.99) == math.inf


# ---- what is refused ---------------------------------------------------------------------


def written(engine=None, **changed):
    """Return the JSON of a memory, with parts changed as it may stand in a file."""
    whole = {
        "engines": {"digest": KNOWN.model_dump() | (engine or {})},
        "classes": {"chat": CLASS.model_dump() | changed},
    }
    return json.dumps(whole)


FAST, NAN, INF = 1e-9, math.nan, math.inf


def test_what_the_table_changes_is_read():
    assert Memory.model_validate_json(written()).speed("digest") == KNOWN.speed()


@pytest.mark.parametrize(
    "raw",
    [
        *(
            written({"step_s": step})
            for step in (
                [-0.01, 0.1, 0.1, 0.1],
                [0.01, -0.0001, 0.1, 0.1],
                [0.1, 0.1, 0.1, LONGEST_S * 1.01],
                [FAST, FAST, 0.1, 0.1],
                [0, 0, 0, 0],
                [NAN, 0.1, 0.1, 0.1],
                [0.1, 0.1, NAN, 0.1],
                [INF, 0.1, 0.1, 0.1],
                [0.1, 0.1, 0.1],
                [0.1] * 5,
                ["x", 0.1, 0.1, 0.1],
                None,
            )
        ),
        *(
            written({name: value})
            for name in ("lag_s", "ttft_spread_s", "tpot_spread")
            for value in (-0.01, LONGEST_S * 1.01, NAN, INF, None)
        ),
        *(
            written(**{name: value})
            for name in ("ttft", "rate")
            for value in (0, -1, LOWEST * 0.9, HIGHEST * 1.1, NAN, INF, "x")
        ),
        *(
            written(**{name: value})
            for name in ("output_tokens", "mean_tokens")
            for value in (0, -1, 1e10, NAN, INF)
        ),
        *(written(answers=value) for value in (-1, 0.5, NAN, None)),
        written(other=1),
        written({"other": 1}),
        '{"other": {}}',
    ],
)
def test_what_nobody_can_have_learnt_is_refused(raw):
    with pytest.raises(ValidationError):
        Memory.model_validate_json(raw)


@pytest.mark.parametrize(
    ("why", "step", "kept"),
    [
        ("a build may say that a stream costs nothing", Coefficients(0.01, 0, 1e-6, 1e-4), True),
        ("or nothing but streams", Coefficients(0, 0.001, 0, 0), True),
        ("an engine that stood still for minutes", Coefficients(100.0, 0.001, 0, 0), False),
        ("one whose steps take no time", Coefficients(0, 0, 1e-6, 1e-4), False),
    ],
)
def test_whatever_an_engine_seems_to_be_a_router_that_remembers_goes_on(why, step, kept):
    made = scene()
    replica(made).begin(Speed(step))
    replica(made).learnt = True
    before = Memory(engines={"digest-of-local": KNOWN})
    found = restarted(made, before=before).speed("digest-of-local")
    assert found == (Speed(step) if kept else KNOWN.speed()), why


@given(
    gaps=st.lists(st.floats(1e-7, 1e4), min_size=1, max_size=8),
    steps=st.tuples(*[st.sampled_from([0.0, 1e-6, 0.01])] * 3),
    missed=st.lists(st.booleans(), max_size=50),
)
def test_whatever_is_learnt_can_be_kept_and_read(gaps, steps, missed):
    made = scene(prior=Coefficients(0.01, *steps))
    at_s = 0.0
    for gap_s in gaps:
        at_s = answered(made, gap_s, 2 * REFIT_EVERY, at_s)
    learnt = made.state.learnt(CHAT)
    for one in missed:
        learnt.answered(1)
        learnt.ttft.learn(at_s, missed=one, allowed=0.5)
    memory = restarted(made, at_s)
    again = born(memory)
    assert replica(again).speed == (memory.speed("digest-of-local") or Speed(SPEED))
    answered(again, 0.01, 2 * REFIT_EVERY)
