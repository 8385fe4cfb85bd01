"""The lower bound: never above what any serving costs, and near the best where that is known."""

from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.lab import lp_bound
from forebay.lab.engine_sim import EngineLimits, Job
from forebay.lab.surroundings import Cloud, Promise, Turn
from forebay.policy.admission.model import Coefficients

C = Coefficients(0.01, 1e-4, 1e-6, 1e-4)
CLOUD = Cloud((0.3,) * 64, 0.02, 0.2e-6, 0.8e-6)
LIMITS = EngineLimits(10_000, 8, 100)
CHAT = Promise("chat", 1.0, 0.1, inf, may_spill=True)
BATCH = Promise("batch", inf, inf, 3.0, may_spill=True)


def bound(jobs, promises=(CHAT, BATCH), *, turns=(), slot_s=0.5, rounds=400):
    fleet = lp_bound.Fleet(C, LIMITS, 1, turns)
    problem = lp_bound.programme(jobs, promises, fleet, CLOUD, slot_s)
    return problem, lp_bound.lower_bound_usd(problem, rounds)


def fits(problem, served):
    """Return whether whole requests can be served, preempting: earliest due slot first, by hand."""
    pieces = [
        [problem.work[part][x], problem.first[x], problem.last[part][x]]
        for x in served
        for part in (0, 1)
    ]
    for slot, whole in enumerate(problem.capacity):
        room = whole
        for piece in sorted(pieces, key=lambda one: one[2]):
            if piece[1] <= slot <= piece[2] and piece[0] > 0:
                done = min(room, piece[0])
                piece[0] -= done
                room -= done
    return all(left <= 1e-9 or last >= problem.capacity.size - 1 for left, _, last in pieces)


requests = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 9000), st.integers(1, 60), st.integers(0, 1)),
    min_size=1,
    max_size=7,
)


def made(drawn):
    return [
        Job(number, label, at, prompt, output, 100)
        for number, (at, prompt, output, label) in enumerate(sorted(drawn))
    ]


@given(requests)
@settings(max_examples=40)
def test_no_choice_of_whole_requests_is_cheaper(drawn):
    problem, found = bound(made(drawn), rounds=100)
    cheapest = min(
        sum(usd for usd, kept in zip(problem.usd, choice, strict=True) if not kept)
        for choice in product((False, True), repeat=len(drawn))
        if fits(problem, [x for x, kept in enumerate(choice) if kept])
    )
    assert found <= cheapest + 1e-12


@given(requests)
@settings(max_examples=5)
def test_it_is_the_greedy_value_where_greed_is_optimal(drawn):
    """With one window for all, the best fraction takes the dearest dollars per engine second."""
    jobs = [Job(n, 0, 0.0, prompt, 1, 100) for n, (_, prompt, _, _) in enumerate(drawn)]
    promise = Promise("late", 0.4, inf, inf, may_spill=True)
    problem, found = bound(jobs, (promise,), rounds=1500)
    room, cost = 0.5, 0.0
    order = np.argsort(-problem.usd / problem.work[0])
    for x in order:
        share = min(1.0, room / problem.work[0][x])
        room -= share * problem.work[0][x]
        cost += (1 - share) * problem.usd[x]
    assert found == pytest.approx(cost, rel=0.01, abs=1e-9)


def test_what_an_engine_can_do_costs_nothing():
    jobs = [Job(n, n % 2, 2.0 * n, 500, 20, 100) for n in range(10)]
    assert bound(jobs)[1] == 0.0


def test_a_request_too_long_for_its_promise_must_pay_in_part():
    problem, found = bound([Job(0, 0, 0.0, 9000, 1, 100)], slot_s=0.25, rounds=1500)
    work_s = 9000 * (C.d_s + C.a_s / 100)
    # Slots of the window, widened: 1 s from 0 touches five of a quarter of a second.
    assert found == pytest.approx((1 - 1.25 / work_s) * problem.usd[0], rel=0.01)


def test_a_slower_fleet_and_a_dearer_cloud_cost_more_and_only_from_then_on():
    jobs = [Job(n, 0, n / 20, 1500, 20, 100) for n in range(60)]
    calm = bound(jobs)[1]
    assert bound(jobs, turns=[Turn(1.5, engine_factor=2.0)])[1] > calm
    dear = bound(jobs, turns=[Turn(1.5, price_factor=2.0)])[1]
    assert calm < dear < 2 * calm
    assert bound(jobs, turns=[Turn(1e6, 2.0, 0, 2.0)])[1] == pytest.approx(calm, rel=1e-6)


def test_requests_that_may_not_leave_are_served_before_all_others():
    private = Promise("private", 1.0, 0.1, inf, may_spill=False)
    jobs = [Job(n, n % 2, 0.0, 1200, 2, 100) for n in range(12)]
    problem, found = bound(jobs, (CHAT, private), rounds=1000)
    forced = problem.usd > 5 * problem.usd.min()
    assert forced.sum() == 6
    assert found <= problem.usd[~forced].sum()


def test_slots_are_bounded_however_late_the_last_request_is_due():
    patient = Promise("patient", inf, inf, 86_400.0, may_spill=True)
    jobs = [Job(n, n % 2, n / 10, 3000, 20, 100) for n in range(60)]
    problem, found = bound(jobs, (CHAT, patient), slot_s=0.25, rounds=50)
    assert problem.capacity.size <= lp_bound.SLOTS_MAX + 2
    assert problem.capacity[:-1] == pytest.approx(86_405.9 / lp_bound.SLOTS_MAX)
    assert found <= bound(jobs, (CHAT, patient), slot_s=1.0, rounds=400)[1] + problem.usd.max()
