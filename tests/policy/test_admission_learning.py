"""What admission learns: engines' speed, its own misses, clouds' latency, cached prefixes."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy.scene import (
    CHAT,
    PLAIN,
    PRIVATE,
    SPEED,
    ask,
    filled,
    place,
    replica,
    scene,
    scraped,
    settled,
)

from forebay.policy.admission import Coefficients, Terms
from forebay.policy.admission.affinity import BLOCK_TOKENS, MOST_BLOCKS, PrefixCache, blocks
from forebay.policy.admission.cloud import ENOUGH, FORGET_S, WINDOW, CloudLatency, Quantiles
from forebay.policy.admission.controller import REFITS
from forebay.policy.admission.feedback import AWAY_S, ETA, HIGHEST, LOWEST, ClassFeedback, Margin
from forebay.policy.admission.judge import Reserves, bar, look
from forebay.policy.admission.model import FLOOR, fit
from forebay.policy.admission.replica import FORGET_S as IDLE_S
from forebay.policy.admission.replica import REFIT_EVERY
from forebay.values import Admit, Reason, Spill

# ---- the engine's speed ---------------------------------------------------------------------

TRUE = Coefficients(0.0133, 0.000063, 3.41e-7, 0.0000686)

NOTHING = Reserves(kv=False, slots=False)


def steps(true, count, seed, *, noise=0.03, outliers=0.05, streams=(1, 100)):
    """Return steps of an engine under mixed load; every twentieth is a stall of five times."""
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        running = dice.randint(*streams)
        kv = running * dice.randint(200, 2_000)
        prefill = dice.choice([0, 0, dice.randint(1, 512)])
        step_s = true.step_s(running, kv, prefill) * math.exp(dice.gauss(0.0, noise))
        step_s *= 5.0 if dice.random() < outliers else 1.0
        found.append((step_s, float(running), float(kv), float(prefill)))
    return found


LOADS = [(1, 500, 0), (32, 30_000, 0), (100, 100_000, 0), (64, 60_000, 448), (1, 200, 511)]


@pytest.mark.parametrize("wrong", [0.5, 0.75, 1.0, 1.33, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_start_is_mended_within_five_percent_through_noise_and_stalls(seed, wrong):
    found = prior = TRUE.scaled(wrong)
    for round_ in range(3):
        found = fit(steps(TRUE, 1_000, seed + 10 * round_), found, prior)
    for load in LOADS:
        assert found.step_s(*load) == pytest.approx(TRUE.step_s(*load), rel=0.05), load


def test_what_the_steps_leave_open_stays_or_moves_with_the_rest():
    """One stream at one length: the engine is twice as slow as told, and nothing else is known."""
    seen = [(2 * TRUE.step_s(1, 500, 0), 1.0, 500.0, 0.0)] * 1_500
    found = TRUE
    for _ in range(3):
        found = fit(seen, found, TRUE)
    assert found.step_s(1, 500, 0) == pytest.approx(2 * TRUE.step_s(1, 500, 0), rel=0.02)
    assert found.d_s == TRUE.d_s, "no prompt was seen"
    many = found.step_s(64, 32_000, 0) / TRUE.step_s(64, 32_000, 0)
    assert 1.0 <= many <= 2.0, "many streams look no slower than the one that was seen"


def test_no_steps_change_nothing():
    assert fit([], SPEED, TRUE) == SPEED


@given(
    seen=st.lists(
        st.tuples(st.floats(1e-6, 10.0), st.floats(0, 256), st.floats(0, 1e6), st.floats(0, 8192)),
        min_size=1,
        max_size=50,
    ),
    rounds=st.integers(1, 4),
)
def test_no_coefficient_is_lost_for_good(seen, rounds):
    found = TRUE
    for _ in range(rounds):
        found = fit(seen, found, TRUE)
    for name in Coefficients.__slots__:
        value = getattr(found, name)
        assert math.isfinite(value)
        assert value >= FLOOR * getattr(TRUE, name) * (1 - 1e-9)


def streaming(made, gap_s, count, *, at=0.0):
    """Let one stream bring `count` tokens, `gap_s` apart; return the time of the last."""
    ticket, _ = place(made, ask(PLAIN, at=at), at)
    made.tokens(ticket, 1, at)
    for number in range(1, count):
        made.tokens(ticket, 1, at + number * gap_s)
    made.ended(ticket, "served", at + count * gap_s)
    made.refit(at + count * gap_s)
    return at + count * gap_s


def test_an_engine_that_turns_out_slow_is_known_to_be_and_so_is_the_next_of_its_pool():
    made = scene()
    at_s = streaming(made, 3 * SPEED.step_s(1, 120, 0), 20 * REFIT_EVERY)
    learnt = replica(made).coefficients
    assert learnt.a_s > 1.5 * SPEED.a_s
    joined = made.join(replace(replica(made).spec, name="r1"), at_s)
    assert joined.coefficients == learnt


def test_an_engine_that_seems_too_slow_for_everything_is_tried_again_after_a_time():
    made = scene()
    at_s = streaming(made, 3.0, 20 * REFIT_EVERY)
    slow = Terms("chat", ttft_s=0.3, spill_to="cloud")
    found = settled(made, ask(slow, at=at_s, prompt=10), at_s)
    assert found.reason is Reason.SLO_AT_RISK
    for _ in range(8):
        at_s += IDLE_S
        made.refit(at_s)
        if isinstance(found, Spill):
            found = settled(made, ask(slow, at=at_s, prompt=10), at_s)
    assert isinstance(found, Admit)


def test_a_quiet_time_makes_nobody_forget_how_slow_an_engine_is():
    made = scene()
    at_s = streaming(made, 3 * SPEED.step_s(1, 120, 0), 20 * REFIT_EVERY)
    speed = replica(made).speed
    for _ in range(120):
        at_s += IDLE_S
        made.refit(at_s)
    assert replica(made).speed == speed


@pytest.mark.parametrize("first", ["a first token", "the others"])
def test_a_prompt_is_told_from_the_step_under_way_when_it_came(first):
    """An engine takes a prompt in with the step after; its token may be heard first or last."""
    true, dice, made = replace(SPEED, d_s=4 * SPEED.d_s), random.Random(1), scene()
    streams, coming, now_s = filled(made, 4, most=9_999), [], 0.0

    def heard(prompts):
        for one in prompts:
            made.tokens(one, 1, now_s)
            made.ended(one, "served", now_s)

    for _ in range(20 * REFIT_EVERY):
        joined, coming = coming, []
        prefill = sum(one.ask.prompt_tokens for one in joined)
        begun_s = now_s
        now_s += true.step_s(len(streams), replica(made).kv, prefill)
        if dice.random() < 0.5:
            at_s = dice.uniform(begun_s, now_s - 0.15 * SPEED.a_s)
            coming = [place(made, ask(PLAIN, at=at_s, prompt=dice.randint(50, 400)), at_s)[0]]
        heard(joined if first == "a first token" else [])
        for one in streams:
            made.tokens(one, 1, now_s)
        heard(joined if first == "the others" else [])
        made.refit(now_s)
    learnt, kv = replica(made).coefficients, replica(made).kv
    for prefill in (0, 50, 400):
        seen_s = learnt.step_s(len(streams), kv, prefill)
        assert seen_s == pytest.approx(true.step_s(len(streams), kv, prefill), rel=0.05), prefill


def test_tokens_that_come_at_once_say_nothing_of_steps():
    made = scene()
    ticket, _ = place(made, ask(PLAIN, most=5_000))
    made.tokens(ticket, 7, 0.1)
    assert replica(made).kv == 106
    for _ in range(3 * REFIT_EVERY):
        made.tokens(ticket, 1, 0.1)
    made.refit(10.0)
    assert replica(made).coefficients == SPEED


def test_a_cancelled_prompt_leaves_those_before_it_in_the_line():
    made = scene()
    filled(made, 1, first=False, prompt=1_000)
    gone = filled(made, 1, first=False, prompt=500)[0]
    filled(made, 1, first=False, prompt=200)
    assert replica(made).line.left == 1_700
    made.ended(gone, "cancelled", 0.0)
    assert replica(made).line.left == 1_200


def test_a_silent_stream_times_its_engine_no_more():
    made = scene()
    still, live = filled(made, 2)
    filled(made, 1, first=False, prompt=2_000)
    assert replica(made).probe is still
    assert replica(made).backlog(0.9) == 2_000, "its steps would have told"
    assert replica(made).backlog(1.2) < 2_000, "the clock tells, at the learnt speed"
    made.tokens(live, 1, 1.3)
    assert replica(made).probe is live


# ---- misses ---------------------------------------------------------------------------------


@given(
    wishes=st.lists(st.booleans(), min_size=1, max_size=400), allowed=st.sampled_from([0.002, 0.05])
)
def test_misses_exceed_what_is_allowed_by_no_more_than_the_bound(wishes, allowed):
    margin, missed = Margin(), 0
    for number, miss in enumerate(wishes):
        near_the_top = margin.log > math.log(HIGHEST) - ETA
        margin.learn(0.3 * number, missed=miss and not near_the_top, allowed=allowed)
        missed += miss and not near_the_top
    bound = (math.log(HIGHEST) - math.log(LOWEST)) / (ETA * len(wishes))
    assert missed / len(wishes) <= allowed + bound + 1e-9
    assert LOWEST <= margin.factor(0.3 * number) <= HIGHEST


def test_in_the_long_run_the_share_of_misses_is_the_one_allowed():
    dice, margin, missed = random.Random(1), Margin(), 0
    for number in range(40_000):
        # The engine is 60 % slower than predicted, give or take: what a factor of 1.6 would mend.
        now_s = 0.3 * number
        late = dice.gauss(1.6, 0.1) > margin.factor(now_s)
        missed += late
        margin.learn(now_s, missed=late, allowed=0.006)
    assert missed / 40_000 == pytest.approx(0.006, abs=0.0015)
    assert margin.factor(now_s) > 1.6


def test_a_margin_forgets_while_every_request_goes_elsewhere_and_where_nobody_asks_does_not():
    learnt = ClassFeedback(ttft=Margin(math.log(4.0)), rate=Margin(math.log(0.9)))
    assert learnt.ttft.factor(1e6) == pytest.approx(4.0)
    learnt.turned_away(1e6)
    learnt.turned_away(1e6 + AWAY_S)
    for away_s, left in ((0.0, 1.0), (AWAY_S, 1.0), (2 * AWAY_S, 0.25), (100 * AWAY_S, 0.0)):
        assert learnt.ttft.factor(1e6 + away_s) == pytest.approx(4.0**left)
    assert learnt.rate.factor(1e7) == pytest.approx(0.9)
    learnt.ttft.learn(1e6 + 2 * AWAY_S, missed=False, allowed=0.0)
    assert learnt.ttft.factor(1e7) == pytest.approx(4.0**0.25), "one answer, and it forgets no more"


@pytest.mark.parametrize("terms", [CHAT, PRIVATE], ids=["may leave", "may not"])
def test_a_class_that_comes_in_bursts_meets_each_with_what_it_has_learnt(terms):
    made = scene(max_batch=2)
    learnt = made.state.learnt(terms)
    learnt.ttft.log = math.log(HIGHEST)
    filled(made, 2)
    assert learnt.ttft.factor(3600.0) == pytest.approx(HIGHEST)
    ticket, _ = place(made, ask(terms, at=3600.0), 3600.0)
    assert dict(made.drain(3610.0)).keys() == {ticket}
    assert learnt.ttft.factor(3610.0 + 20 * AWAY_S) < 1.1, "it was sent elsewhere, or refused"


def test_answers_tell_how_long_answers_are():
    dice, learnt = random.Random(2), ClassFeedback()
    for _ in range(20_000):
        learnt.answered(dice.randint(1, 1000))
    assert learnt.mean_tokens == pytest.approx(500, rel=0.2)
    assert learnt.output_tokens == pytest.approx(990, rel=0.15)


@given(
    prompt=st.integers(1, 5_000),
    streams=st.integers(0, 7),
    waited_s=st.floats(0, 2),
    margins=st.tuples(st.floats(-0.1, 1.3), st.floats(-0.1, 1.3)),
    terms=st.sampled_from([CHAT, PRIVATE, PLAIN, Terms("batch", e2e_s=2.0)]),
)
def test_more_distrust_never_admits_more(prompt, streams, waited_s, margins, terms):
    made = scene()
    filled(made, streams, prompt=300)
    asked = ask(terms, prompt=prompt, at=-waited_s)
    admitted = []
    for log in sorted(margins):
        learnt = ClassFeedback(ttft=Margin(log), rate=Margin(log))
        local = made.state.places["local"]
        held, view = bar(asked, learnt, 0.0), replica(made).view(0.0)
        found = look(held, replica(made), view, local, 0.0, reserves=NOTHING)
        admitted.append(found.against is None)
    assert admitted != [False, True]


# ---- clouds ---------------------------------------------------------------------------------


def test_until_enough_was_seen_a_cloud_is_as_slow_as_stated():
    seen = Quantiles(2.0)
    for number in range(ENOUGH - 1):
        seen.add(0.1, float(number))
    assert (seen.at(0.5), seen.at(0.99)) == (1.0, 2.0)
    seen.add(0.1, 100.0)
    assert (seen.at(0.5), seen.at(0.99)) == (0.1, 0.1)


@given(st.lists(st.floats(0, 100), min_size=ENOUGH, max_size=WINDOW + 200))
@settings(max_examples=20)
def test_quantiles_are_what_the_next_answer_keeps(values):
    seen = Quantiles(1.0)
    for value in values:
        seen.add(value, 0.0)
    last = sorted(values[-WINDOW:])
    for share in (0.0, 0.5, 0.95, 0.99, 0.995, 1.0):
        # The next is as likely to fall into any of the gaps between those seen, and beside them.
        kept = sum(value <= seen.at(share) for value in last) / (len(last) + 1)
        assert seen.at(share) in last
        assert kept >= share or seen.at(share) == last[-1]


def test_a_cloud_is_as_late_as_was_aimed_at_though_few_of_its_answers_were_seen():
    dice, late, told = random.Random(7), 0, 0
    for _ in range(60):
        seen = Quantiles(1.0)
        for _ in range(300):
            value = dice.lognormvariate(0.0, 0.33)
            if seen.enough:
                told, late = told + 1, late + (value > seen.at(0.99))
            seen.add(value, 0.0)
    assert 0.004 < late / told <= 0.01


def test_a_cloud_that_was_too_slow_is_tried_again_once_that_is_old():
    cloud = CloudLatency(0.5, 0.02)
    for number in range(200):
        cloud.saw(9.0, 0.5, float(number))
    cloud.forget(FORGET_S)
    assert cloud.ttft_s() == 9.0
    cloud.forget(150.0 + FORGET_S)
    assert (cloud.ttft_s(), cloud.tpot_s()) == (0.5, 0.02)


# ---- prefixes -------------------------------------------------------------------------------


@given(
    shared=st.lists(st.integers(0, 9), max_size=400),
    one=st.lists(st.integers(0, 9), max_size=200),
    other=st.lists(st.integers(0, 9), max_size=200),
)
def test_equal_beginnings_have_equal_blocks_and_the_last_token_is_never_cached(shared, one, other):
    first, second = blocks((*shared, *one)), blocks((*shared, *other))
    alike = 0
    for a, b in zip((*shared, *one), (*shared, *other), strict=False):
        if a != b:
            break
        alike += 1
    most = min(len(first), len(second), alike // BLOCK_TOKENS)
    assert first[:most] == second[:most]
    assert len(first) * BLOCK_TOKENS < max(1, len(shared) + len(one))
    assert len(first) <= MOST_BLOCKS


def test_an_engine_forgets_what_does_not_fit_and_endings_before_beginnings():
    cache = PrefixCache(4 * BLOCK_TOKENS)
    cache.remember((1, 2, 3))
    cache.remember((7, 8))
    assert cache.tokens((7, 8)) == 2 * BLOCK_TOKENS
    assert cache.tokens((1, 2, 3)) == 2 * BLOCK_TOKENS
    assert cache.tokens((9,)) == 0


SHARED = blocks(tuple(range(1_000)))
PROMPT = {"prompt": 1_000, "blocks": SHARED}


@pytest.mark.parametrize("replicas", [2, 12])
def test_the_replica_that_has_the_prefix_is_preferred_until_it_is_loaded(replicas):
    made = scene(replicas)
    ticket, found = place(made, ask(PLAIN, **PROMPT))
    has, where = found.replica, ticket.replica
    made.tokens(ticket, 1, 0.1)
    made.ended(ticket, "served", 0.2)
    again = made.offer(ask(**PROMPT, at=1.0), 1.0).placement
    assert again.replica == has
    cold = made.offer(ask(prompt=1_000, at=1.0), 1.0).placement
    assert again.predicted.ttft_s < cold.predicted.ttft_s - 0.09
    for _ in range(2):
        kept = Terms("kept", ttft_s=5.0)
        loading = made.ask(ask(kept, prompt=1_500, at=1.0), 1.0)
        made.state.pools["local"].queue.remove(loading)
        loading.state = "placed"
        where.place(loading, 1_500, 1.0, 1.0)
    assert made.offer(ask(PRIVATE, **PROMPT, at=1.0), 1.0).placement.replica != has


def test_a_prefix_is_no_reason_to_call_a_replica_that_is_down():
    made = scene(12)
    ticket, found = place(made, ask(PLAIN, **PROMPT))
    ticket.replica.health = ticket.replica.health.drained()
    assert settled(made, ask(**PROMPT, at=1.0), 1.0).replica != found.replica


def served(made, at_s=0.0):
    """Serve the prompt once."""
    ticket, _ = place(made, ask(PLAIN, **PROMPT, at=at_s), at_s)
    made.tokens(ticket, 1, at_s + 0.1)
    made.ended(ticket, "served", at_s + 0.2)


def test_an_engine_that_was_ejected_has_nothing_cached_when_it_is_back():
    made = scene()
    served(made)
    broken = filled(made, 3)
    assert replica(made).cache.tokens(SHARED) > 0
    for ticket in broken:
        made.ended(ticket, "failed", 1.0)
    tried, _ = place(made, ask(PRIVATE, at=2.0), 2.0)
    made.tokens(tried, 1, 2.1)
    made.ended(tried, "served", 2.2)
    assert replica(made).health.takes(2.2)
    assert replica(made).cache.tokens(SHARED) == 0


@pytest.mark.parametrize(
    ("iterations", "kept"), [((10, 900), True), ((900, None), True), ((900, 10), False)]
)
def test_an_engine_that_was_started_anew_has_nothing_cached(iterations, kept):
    made = scene()
    scraped(made, 0.0, iterations=iterations[0])
    served(made)
    scraped(made, 1.0, iterations=iterations[1])
    assert bool(replica(made).cache.tokens(SHARED)) is kept


# ---- health ---------------------------------------------------------------------------------


def test_one_request_at_a_time_finds_out_whether_an_ejected_replica_works():
    made = scene()
    for ticket in filled(made, 3):
        made.ended(ticket, "failed", 1.0)
    assert settled(made, ask(PRIVATE, at=1.5), 1.5).reason is Reason.ENGINE_DOWN
    tried, found = place(made, ask(PRIVATE, at=2.0), 2.0)
    assert isinstance(found, Admit)
    assert settled(made, ask(PRIVATE, at=2.0), 2.0).reason is Reason.ENGINE_DOWN
    made.ended(tried, "cancelled", 2.1)
    tried, found = place(made, ask(PRIVATE, at=2.1), 2.1)
    assert isinstance(found, Admit), "a cancelled probe is not out any more"
    made.tokens(tried, 1, 2.2)
    made.ended(tried, "served", 2.3)
    assert [type(place(made, ask(PRIVATE, at=2.4), 2.4)[1]) for _ in range(3)] == [Admit] * 3


def test_old_metrics_mean_unknown_not_full():
    made = scene()
    scraped(made, now_s=0.0, active=8, waiting=4, kv_used=1.0)
    assert place(made, ask(at=4.9), 4.9)[1] is None
    assert isinstance(place(made, ask(at=5.1), 5.1)[1], Admit)


def test_speeds_are_learnt_of_a_few_engines_at_a_time_and_of_all_in_turn():
    made = scene(20)
    engines = list(made.state.pools["local"].replicas.values())
    for engine in engines:
        for number in range(REFIT_EVERY):
            engine._sample(0.02 + number * 1e-4, 1.0, 100.0, 0.0)
    learnt = []
    for call in range(3):
        made.refit(call * 0.5)
        learnt.append(sum(engine.learnt for engine in engines))
    assert learnt == [REFITS, 2 * REFITS, 20]


@pytest.mark.parametrize("replicas", [2, 12])
def test_nobody_is_placed_again_where_it_broke(replicas):
    made = scene(replicas)
    everyone = frozenset(f"r{number}" for number in range(replicas))
    for most in range(1, min(replicas, 4)):
        broke = frozenset(sorted(everyone)[:most])
        assert made.others("local", broke, 0.0)
        _, found = place(made, ask(PLAIN, avoid=broke))
        assert found.replica in everyone - broke
    assert not made.others("local", everyone, 0.0)
    assert not made.others("cloud", frozenset(), 0.0)
    assert isinstance(settled(made, ask(CHAT, avoid=everyone)), Spill)
