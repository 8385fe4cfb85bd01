"""Steps put together again from answers, and the engine fitted to them."""

import random
from dataclasses import replace

import pytest
from loadtest.engine_fit import (
    WINDOW_S,
    Pace,
    at_jitter,
    jitter_of,
    law_of,
    pace_of,
    sigma_of,
)
from loadtest.seen_steps import Seen
from stepped import DELAY_S, LAW, LIMITS, Asked, answered

from forebay.policy.admission.model import Coefficients


def asked(rate_rps=1.2, duration_s=200.0, seed=1):
    dice, at_s, made = random.Random(seed), 0.0, []
    while (at_s := at_s + dice.expovariate(rate_rps)) < duration_s:
        made.append(Asked(len(made), at_s, dice.randint(20, 400), dice.randint(2, 60)))
    return made


def steps(outcomes, delay_s=DELAY_S):
    return Seen(outcomes, LIMITS).steps(delay_s)


def four(law):
    return (law.a_s, law.b_s, law.c_s, law.d_s)


def test_one_answer_shows_its_steps():
    told = steps(answered([Asked(0, 1.0, 200, 3)]))
    # 200 tokens are two steps, of which nobody saw the first end: 2 * 30 + 200 * 4 ms.
    first, second, third = told
    assert (first.count, first.streams, first.prompt_tokens, first.sure) == (2, 0, 200, True)
    assert (first.start_s, first.took_s) == pytest.approx((1.03, 0.86))
    assert [(s.count, s.streams, s.prompt_tokens) for s in (second, third)] == [(1, 1, 0)] * 2
    assert [s.kv_tokens for s in (second, third)] == [201, 202]
    assert second.took_s == third.took_s == pytest.approx(0.042)


def test_a_prompt_that_comes_while_others_run_is_in_its_own_step():
    told = steps(answered([Asked(0, 0.0, 100, 30), Asked(1, 0.8, 50, 2)]))
    assert sum(s.prompt_tokens for s in told) == 150
    (mixed,) = (s for s in told if s.prompt_tokens and s.streams)
    assert (mixed.streams, mixed.prompt_tokens, mixed.sure) == (1, 50, True)
    assert mixed.took_s == pytest.approx(0.03 + 0.012 + 50 * 0.004)


def test_what_the_router_kept_is_no_time_of_the_engines():
    (kept,) = answered([Asked(0, 1.5, 100, 2)])
    early = replace(kept, scheduled_s=1.0, sent_s=1.0, queued_ms=500, ttft_ms=kept.ttft_ms + 500)
    assert steps([early])[0].start_s == pytest.approx(1.5 + DELAY_S)


def test_no_more_are_inside_than_the_batch_holds():
    together = [Asked(number, 1.0, 10, 40) for number in range(LIMITS.max_batch + 8)]
    told = steps(answered(together))
    assert all(step.sure for step in told)
    assert max(step.streams for step in told) == LIMITS.max_batch
    assert sum(step.prompt_tokens for step in told) == 10 * len(together)


@pytest.mark.parametrize("rate_rps", [0.3, 1.2, 4.0])
def test_the_law_is_found_again(rate_rps):
    told = steps(answered(asked(rate_rps)))
    # Who comes while a long prompt is taken in alone gets a part of a step that nobody saw end.
    assert sum(not step.sure for step in told) < 0.02 * len(told)
    assert four(law_of(told)) == pytest.approx(four(LAW), rel=0.03, abs=1e-5)


def test_clients_that_are_late_move_the_law_little():
    dice = random.Random(3)
    told = steps(answered(asked(), late=lambda: dice.random() * 0.008))
    assert sum(not step.sure for step in told) < 0.02 * len(told)
    assert law_of(told).d_s == pytest.approx(LAW.d_s, rel=0.03)
    assert law_of(told).b_s == pytest.approx(LAW.b_s, rel=0.15)


def test_a_wrong_delay_is_seen_in_first_tokens():
    outcomes = answered(asked(0.6))
    doubts = [sum(not s.sure for s in steps(outcomes, at)) for at in (0.0, DELAY_S, 0.1)]
    assert doubts[1] < min(doubts[0], doubts[2])


def test_the_law_has_no_negative_part():
    cheap = Coefficients(0.05, 0.0, 0.0, 0.001)
    assert four(law_of(steps(answered(asked(), cheap)))) == pytest.approx(four(cheap), abs=1e-5)


def test_steps_of_which_nobody_told_are_left_out():
    outcomes = answered(asked())
    assert Seen(outcomes, LIMITS, 80).steps(DELAY_S) == steps(outcomes)[80:]


def test_the_pace_is_that_of_the_machine_when_it_was_slow():
    told = steps(answered(asked(), pace=lambda at_s: 2.0 if at_s >= 100 else 1.0))
    pace = pace_of(told, LAW, 250.0)
    busy = [(at * WINDOW_S, factor) for at, factor in enumerate(pace.factors) if factor != 1.0]
    assert all(factor == pytest.approx(2.0, rel=0.01) for at_s, factor in busy if at_s >= 100)
    assert all(factor == pytest.approx(1.0, rel=0.15) for at_s, factor in busy if at_s < 100)
    assert pace.at(120.0) == pytest.approx(2.0, rel=0.01)


def test_a_pace_goes_round():
    pace = Pace((1.0, 2.0, 3.0)).begun_at(1)
    assert pace.factors == (2.0, 3.0, 1.0)
    turns = pace.turns(4 * WINDOW_S)
    assert [turn.engine_factor for turn in turns] == [2.0, 3.0, 1.0, 2.0, 3.0]
    assert [turn.at_s for turn in turns] == [at * WINDOW_S for at in range(5)]


def test_jitter_is_of_single_steps_and_leaves_their_mean():
    dice = random.Random(2)
    told = steps(answered(asked(4.0, 400.0), pace=lambda _: dice.lognormvariate(0.0, 0.2)))
    law = law_of(told)
    sigma = sigma_of(jitter_of(told, law, pace_of(told, law, 1000.0)))
    assert sigma == pytest.approx(0.2, rel=0.25)
    assert at_jitter(law, sigma).d_s == pytest.approx(LAW.d_s, rel=0.05)
    assert sigma_of([]) == 0.0
