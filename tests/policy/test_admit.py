"""Admission: the first limit met names itself; old numbers refuse nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy import admit
from forebay.policy.rules import Constraints, Limits
from forebay.values import Abilities, Admit, EngineLoad, Prepared, Reason, Refuse, Spill

LIMITS = Limits(max_inflight=8, max_waiting=2, kv_ceiling=0.9)
CLASS = Constraints(max_inflight=4)
ROOM = Abilities(max_input_tokens=100, max_seq_tokens=101)
IDLE = EngineLoad(age_s=0.1)


def refused(load, limits=LIMITS, constraints=CLASS, tokens=10):
    demand = admit.Demand(Prepared(tokens), ROOM)
    refusal = admit.refusal("t", limits, constraints, load, demand)
    return refusal and refusal.reason


@pytest.mark.parametrize(
    ("why", "changed", "tokens", "expected"),
    [
        ("idle", {}, 10, None),
        ("never scraped", {"age_s": None, "own": 7}, 10, None),
        ("just found down", {"down_for_s": 0.0}, 10, Reason.ENGINE_DOWN),
        ("down a moment less than the limit", {"down_for_s": 0.999}, 10, Reason.ENGINE_DOWN),
        ("down long enough ago to try again", {"down_for_s": admit.DOWN_S}, 10, None),
        ("the longest prompt", {}, 100, None),
        ("a token more", {}, 101, Reason.PROMPT_TOO_LONG),
        ("the class has room for one", {"own": 3, "own_of_class": 3}, 10, None),
        ("the class is full", {"own": 4, "own_of_class": 4}, 10, Reason.CLASS_FULL),
        ("room for one", {"own": 7}, 10, None),
        ("full of our own", {"own": 8}, 10, Reason.TARGET_FULL),
        ("a burst inside one scrape", {"own": 8, "polled_active": 0}, 10, Reason.TARGET_FULL),
        ("full of others'", {"polled_active": 8}, 10, Reason.TARGET_FULL),
        ("ours at the scrape are not others'", {"own": 7, "own_at_poll": 7, "polled_active": 7},
         10, None),
        ("ours have gone since", {"own": 0, "own_at_poll": 8, "polled_active": 8}, 10, None),
        ("ours and others'", {"own": 4, "own_at_poll": 2, "polled_active": 6}, 10,
         Reason.TARGET_FULL),
        ("one waits", {"polled_waiting": 1}, 10, None),
        ("KV cache just below", {"kv_used": 0.899}, 10, None),
        ("KV cache at the ceiling", {"kv_used": 0.9}, 10, Reason.KV_CACHE_FULL),
        ("as old as may be", {"kv_used": 1.0, "age_s": admit.STALE_S}, 10, Reason.KV_CACHE_FULL),
        ("older numbers say nothing", {"kv_used": 1.0, "polled_active": 99, "polled_waiting": 99,
                                       "age_s": admit.STALE_S + 0.1}, 10, None),
        ("down outranks too long", {"down_for_s": 0.0}, 101, Reason.ENGINE_DOWN),
        ("too long outranks full", {"own": 8}, 101, Reason.PROMPT_TOO_LONG),
        ("the class outranks the target", {"own": 8, "own_of_class": 4}, 10, Reason.CLASS_FULL),
        ("slots outrank the queue", {"own": 8, "polled_waiting": 9}, 10, Reason.TARGET_FULL),
        ("the queue outranks memory", {"polled_waiting": 9, "kv_used": 1.0}, 10,
         Reason.QUEUE_FULL),
    ],
)  # fmt: skip
def test_refusal(why, changed, tokens, expected):
    assert refused(replace(IDLE, **changed), tokens=tokens) is expected, why


def test_no_limits_refuse_nothing():
    crowd = EngineLoad(own=999, own_of_class=999, polled_active=999, polled_waiting=9, age_s=0.0)
    assert refused(crowd, Limits(), Constraints()) is None


def test_an_idle_engine_takes_one_though_nobody_may_wait():
    nobody_waits = Limits(max_waiting=0)
    assert refused(IDLE, nobody_waits) is None
    assert refused(replace(IDLE, polled_waiting=1), nobody_waits) is Reason.QUEUE_FULL


HERE = Admit("here")
FULL = Refuse("here", Reason.TARGET_FULL, "8 in flight", 1.0)
LONG = replace(FULL, reason=Reason.PROMPT_TOO_LONG)
CLOUD_FULL = replace(FULL, target="cloud")


@pytest.mark.parametrize(
    ("why", "refusal", "spill_to", "spilled", "expected"),
    [
        ("room", None, "cloud", None, HERE),
        ("room, and the spill target is full", None, "cloud", CLOUD_FULL, HERE),
        ("nowhere to spill", FULL, None, None, FULL),
        ("spill", FULL, "cloud", None, Spill("cloud", "here", Reason.TARGET_FULL)),
        ("to itself is nowhere", FULL, "here", None, FULL),
        ("both full: the first says why", FULL, "cloud", CLOUD_FULL, FULL),
        ("what is too long is no matter of capacity", LONG, "cloud", None, LONG),
    ],
)
def test_place(why, refusal, spill_to, spilled, expected):
    assert admit.place("here", refusal, spill_to, spilled) == expected, why


counts = st.integers(0, 40)
limits = st.none() | st.integers(1, 20)
ages = st.none() | st.floats(0, 20)
loads = st.builds(
    EngineLoad,
    own=counts,
    own_of_class=counts,
    own_at_poll=counts,
    polled_active=counts,
    polled_waiting=counts,
    kv_used=st.floats(0, 1),
    age_s=ages,
    down_for_s=ages,
)


@given(loads, limits, limits, limits, st.integers(0, 200))
def test_nothing_is_admitted_beyond_a_limit(load, target, of_class, waiting, tokens):
    made = Limits(max_inflight=target, max_waiting=waiting)
    if refused(load, made, Constraints(max_inflight=of_class), tokens) is not None:
        return
    fresh = load.age_s is not None and load.age_s <= admit.STALE_S
    assert tokens <= ROOM.max_input_tokens
    assert target is None or load.own < target
    assert of_class is None or load.own_of_class < of_class
    assert not fresh or load.kv_used < made.kv_ceiling
    assert not fresh or target is None or load.polled_active - load.own_at_poll < target


@given(loads, limits, limits)
def test_stale_numbers_refuse_nobody(load, target, of_class):
    old = replace(load, age_s=admit.STALE_S + 1)
    unpolled = replace(old, polled_active=0, polled_waiting=0, kv_used=0.0, age_s=0.0)
    made = Limits(max_inflight=target, max_waiting=1)
    counted = Constraints(max_inflight=of_class)
    assert refused(old, made, counted) is refused(unpolled, made, counted)


@given(loads, st.integers(0, 10))
def test_more_load_never_turns_a_refusal_into_an_admission(load, more):
    loaded = replace(load, own=load.own + more, own_of_class=load.own_of_class + more, kv_used=1.0)
    assert refused(load) is None or refused(loaded) is not None


def test_a_prompt_that_was_not_counted_to_its_end_is_told_as_such():
    demand = admit.Demand(Prepared(ROOM.max_input_tokens + 1, whole=False), ROOM)
    refused = admit.refusal("local", Limits(), Constraints(), EngineLoad(), demand)
    assert refused.limit.startswith(f"more than {ROOM.max_input_tokens} tokens")
