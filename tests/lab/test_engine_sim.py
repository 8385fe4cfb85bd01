"""One simulated replica: its times are the closed forms', and its limits hold."""

from dataclasses import replace
from itertools import pairwise
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.lab.engine_sim import EngineLimits, Job, SimulatedEngine
from forebay.lab.step_time import LinearLaw, MaxLaw, Noise
from forebay.policy.admission.model import Coefficients

C = Coefficients(0.0133, 6.3e-5, 3.41e-7, 6.86e-5)
LIMITS = EngineLimits(kv_tokens=4000, max_batch=8, step_tokens=64)
MAX = MaxLaw(0.002, 8e-5, 16, 0.01, 5e-7, 64)


def engine(law=None, limits=LIMITS, noise=None):
    return SimulatedEngine(limits, law or LinearLaw(C), (noise or Noise()).factors((1,)))


def job(number, prompt, output, at_s=0.0):
    return Job(number, 0, at_s, prompt, output, max_tokens=output)


def played(replica, jobs):
    """Submit each at its time and come to the end; return who ended, in order."""
    ended, coming = [], sorted(jobs, key=lambda one: one.arrived_s)
    while coming or replica.next_s < inf:
        if coming and coming[0].arrived_s <= replica.next_s:
            replica.submit(coming[0], coming.pop(0).arrived_s)
        else:
            ended += replica.end_segment()[1]
        assert replica.reserved_tokens <= replica.limits.kv_tokens
        assert replica.running + len(replica.taking_in) <= replica.limits.max_batch
        assert replica.kv_used_tokens() <= replica.reserved_tokens
    return ended


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (64, 2), (65, 2), (1000, 50), (640, 150)])
def test_one_request_alone_takes_what_the_law_says(prompt, output):
    alone = job(0, prompt, output)
    played(engine(), [alone])
    ttft_s = ceil(prompt / LIMITS.step_tokens) * C.a_s + prompt * C.d_s
    decode_s = sum(C.a_s + C.b_s + C.c_s * (prompt + done) for done in range(1, output))
    assert alone.first_s == pytest.approx(ttft_s, rel=1e-12)
    assert alone.end_s == pytest.approx(ttft_s + decode_s, rel=1e-12)


def test_a_change_of_pace_holds_from_the_step_that_begins_next():
    slowed, calm = engine(), engine()
    ends = []
    for replica in (slowed, calm):
        alone = job(0, 1, 60)
        replica.submit(alone, 0.0)
        replica.end_segment()
        if replica is slowed:
            replica.change_pace(2.0, replica.next_s - 10 * C.a_s)
        while replica.next_s < inf:
            replica.end_segment()
        ends.append(alone.end_s - alone.first_s)
    # About ten of the 59 steps take twice as long.
    assert 8 * C.a_s < ends[0] - ends[1] < 12 * C.a_s


def test_a_prompt_beside_streams_gets_what_they_leave_of_a_step():
    streams = [job(n, 8, 100) for n in range(4)]
    late = job(9, 120, 2, at_s=0.5)
    played(engine(), [*streams, late])
    # 60 of 64 tokens a step are left by four streams: two steps.
    context = 4 * (8 + 1)
    step_s = C.a_s + 4 * C.b_s + 60 * C.d_s
    assert 2 * (step_s + context * C.c_s) < late.first_s - 0.5 < 3 * (step_s + 500 * C.c_s)


def test_who_waits_can_be_withdrawn_and_what_was_begun_goes_on():
    replica = engine(limits=replace(LIMITS, queue=1))
    first, behind = job(0, 3000, 50), job(1, 2000, 10)
    replica.submit(first, 0.0)
    assert not replica.full
    replica.submit(behind, 0.0)
    assert replica.full
    assert replica.withdraw(behind, 0.0)
    assert not replica.withdraw(behind, 0.0)
    assert not replica.withdraw(first, 0.0)
    assert not replica.full
    assert played(replica, []) == [first]


def test_who_was_held_up_by_one_that_is_withdrawn_joins_at_the_next_step():
    replica = engine()
    stream, big, small = job(0, 60, 100), job(1, 3950, 20), job(2, 10, 2)
    replica.submit(stream, 0.0)
    replica.end_segment()
    for one in (big, small):
        replica.submit(one, replica.step_ends_s(stream.first_s))
    at_s = replica.step_ends_s(stream.first_s) + 0.001
    assert replica.next_s > at_s + 20 * C.a_s
    due_s = replica.step_ends_s(at_s)
    assert replica.withdraw(big, at_s)
    assert replica.next_s == due_s
    while small.first_s is None:
        replica.end_segment()
    assert small.first_s < due_s + 2 * C.a_s


def test_a_step_ends_once_for_all_who_ask_inside_it():
    replica = engine()
    assert replica.step_ends_s(7.0) == 7.0, "there is none"
    alone = job(0, 1, 40)
    replica.submit(alone, 0.0)
    replica.end_segment()
    at_s, done = alone.first_s, replica.steps_done(alone.first_s)
    while at_s < replica.next_s:
        end_s = replica.step_ends_s(at_s + 1e-6)
        assert replica.step_ends_s(end_s) == end_s
        assert at_s < end_s <= replica.next_s
        assert replica.steps_done(end_s) == done + 1
        at_s, done = end_s, done + 1
    assert done == replica.steps + 39


def test_scheduled_is_who_the_step_has_tokens_of():
    replica = engine()
    for number, prompt in enumerate((40, 40, 40, 10)):
        replica.submit(job(number, prompt, 30), 0.0)
    seen = []
    while replica.next_s < inf and replica.running < 4:
        seen.append((replica.active, replica.running, replica.scheduled))
        replica.end_segment()
    # 64 tokens a step: at first the one who was alone when it began, then 40 and 23, 17 and 10.
    assert seen == [(4, 0, 1), (4, 1, 3), (4, 2, 4)]
    assert replica.scheduled == replica.running == 4
    replica.die()
    assert replica.scheduled == replica.active == 0


def test_who_has_no_room_waits_and_holds_up_those_behind():
    big, small = job(1, 2500, 40), job(2, 10, 2)
    first = job(0, 2000, 50)
    played(engine(), [first, big, small])
    assert big.first_s > first.end_s, "4000 tokens do not hold both"
    assert small.first_s >= big.first_s, "the queue is first in, first out"


@pytest.mark.parametrize("law", [LinearLaw(C), MAX], ids=["linear", "max"])
def test_an_arrival_changes_nothing_before_the_next_step_boundary(law):
    noise = Noise(sigma=0.1, stall_share=0.05, stall_factor=3)
    alone, with_late = job(0, 100, 120), job(0, 100, 120)
    played(engine(law, noise=noise), [alone])
    replica = engine(law, noise=noise)
    replica.submit(with_late, 0.0)
    while with_late.first_s is None:
        replica.end_segment()
    at_s = replica.next_s - 0.3 * (replica.next_s - with_late.first_s)
    steps = replica.steps_done(at_s)
    replica.submit(job(1, 10, 2), at_s)
    assert replica.steps_done(replica.next_s) == steps + 1, "the step that was under way"
    while replica.next_s < inf:
        replica.end_segment()
    assert alone.first_s == with_late.first_s
    assert alone.end_s < with_late.end_s


requests = st.lists(
    st.tuples(st.integers(1, 900), st.integers(1, 80), st.floats(0, 5)), min_size=1, max_size=40
)


@given(requests, st.booleans())
@settings(max_examples=60)
def test_every_request_ends_once_with_its_tokens_in_order(drawn, roofline):
    jobs = [job(n, prompt, output, at) for n, (prompt, output, at) in enumerate(drawn)]
    replica = engine(MAX if roofline else None, noise=Noise(sigma=0.2))
    ended = played(replica, jobs)
    assert sorted(one.number for one in ended) == list(range(len(jobs)))
    for one in jobs:
        assert one.arrived_s < one.first_s <= one.end_s
        assert (one.first_s == one.end_s) == (one.output_tokens == 1)
    assert (replica.running, replica.reserved_tokens, replica.kv_used_tokens()) == (0, 0, 0)
    assert replica._blocks == 0
    assert not any(replica._crossing) or not roofline


@given(requests)
@settings(max_examples=30)
def test_blocks_are_those_that_the_streams_contexts_fill(drawn):
    replica = engine(MAX)
    for number, (prompt, output, _) in enumerate(drawn):
        replica.submit(job(number, prompt, output), 0.0)
    while replica.next_s < inf:
        replica.end_segment()
        contexts = [
            one.input_tokens + one.output_tokens - (one.last_step - replica.steps)
            for one in replica.streams
        ]
        assert replica._blocks == sum(ceil(tokens / 64) for tokens in contexts)
        assert replica._context == sum(contexts)


@given(st.integers(1, 100), st.integers(0, 4000), st.integers(0, 400))
def test_the_floor_of_a_law_is_nowhere_above_it(streams, context, prefill):
    blocks = -(-context // 64) * 64 if context else 0
    step_s = MAX.step_s(streams, blocks, prefill)
    for floor in MAX.floors():
        assert floor.step_s(streams, context, prefill) <= step_s + 1e-12


def test_noise_has_the_mean_and_the_bursts_it_is_told():
    draw = Noise(burst_share=0.2, burst_factor=2.0, burst_steps=10).factors((3,))
    slow = [factor > 1.5 for _ in range(20) for factor in draw()]
    starts = sum(now and not before for before, now in pairwise(slow))
    assert sum(slow) / len(slow) == pytest.approx(0.2, abs=0.03)
    assert sum(slow) / starts == pytest.approx(10, rel=0.15)
