"""Every decision and every reason, with the numbers that lead to it."""

from dataclasses import replace
from pathlib import Path

import pytest
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

from forebay.policy.admission import Allowance, Open, Place, ReplicaSpec, Terms
from forebay.policy.admission.controller import MAX_WAITING
from forebay.values import Admit, Downgrade, Queue, Reason, Refuse, Spill


class Barred(Open):
    """A breaker that is open."""

    def bars(self, target, ask, usd, now_s):
        return Reason.BREAKER_OPEN


def test_an_idle_engine_takes_a_request_and_says_what_it_expects():
    found = settled(scene(), ask(at=-0.25), 0.0)
    assert isinstance(found, Admit)
    assert (found.target, found.replica, found.reason) == ("local", "r0", Reason.HEADROOM)
    assert found.waited_s == 0.25
    # One step of 10 ms with 100 prompt tokens of 0.1 ms, after 250 ms that have passed.
    assert found.predicted.ttft_s == pytest.approx(0.25 + 0.01 + 0.01)
    # Its own prompt takes that much of the six seconds over which prompts are averaged.
    tpot_s = (0.01 + 0.001 + 0.0001) / (1 - 100 * 0.0001 / 6)
    assert found.predicted.tpot_s == pytest.approx(tpot_s)
    assert found.predicted.e2e_s == pytest.approx(0.27 + 50 * tpot_s)


def test_streams_and_prompts_before_it_are_in_the_prediction():
    made = scene()
    filled(made, 2, prompt=500)
    filled(made, 1, prompt=400, first=False)
    _, found = place(made, ask(Terms("chat", ttft_s=1.0)))
    # 500 tokens for steps that have 510 beside two streams: one step, begun half-way.
    step_s = 0.01 + 2 * 0.001 + 1000 * 1e-6
    assert found.predicted.ttft_s == pytest.approx(0.5 * step_s + step_s + 0.05)


def full_batch(made):
    filled(made, 8)


def full_batch_beside_another(made):
    full_batch(made)
    made.join(ReplicaSpec("s", "small", prior=SPEED), 0.0)


def down(made):
    for _ in range(3):
        replica(made).health = replica(made).health.failed(0.0)


def drained(made):
    replica(made).health = replica(made).health.drained()


def foreign(made):
    replica(made).ours = False


SLOW = {"prior": SPEED.scaled(100.0)}
LONG = {"prompt": 9_000, "most": 500}


@pytest.mark.parametrize(
    ("why", "spec", "before", "asked", "kind", "reason", "limit"),
    [
        ("no slot", {}, full_batch, ask(PRIVATE), Refuse, Reason.TARGET_FULL,
         "8 requests are in flight"),
        ("no slot, but it promises nothing and may wait inside", {}, full_batch, ask(PLAIN), Admit,
         Reason.HEADROOM, ""),
        ("no slot, and a cloud", {}, full_batch, ask(), Spill, Reason.TARGET_FULL, ""),
        ("the target's own limit", {"place": Place("local", "local", max_inflight=2)},
         lambda made: filled(made, 2), ask(PLAIN), Refuse, Reason.TARGET_FULL,
         "2 requests are in flight"),
        ("just below it", {"place": Place("local", "local", max_inflight=2)},
         lambda made: filled(made, 1), ask(PLAIN), Admit, Reason.HEADROOM, ""),
        ("the class's own limit", {}, lambda made: filled(made, 2, terms=CHAT),
         ask(replace(CHAT, max_inflight=2)), Refuse, Reason.CLASS_FULL,
         "2 of the class are in flight"),
        ("the engine's queue", {"place": Place("local", "local", max_waiting=3)},
         lambda made: scraped(made, active=5, waiting=3), ask(PLAIN), Refuse, Reason.QUEUE_FULL,
         "3 requests wait in its queue"),
        ("nobody waits, and none may", {"place": Place("local", "local", max_waiting=0)},
         lambda made: scraped(made, active=5, waiting=0), ask(PLAIN), Admit, Reason.HEADROOM, ""),
        ("the cache is full", {"place": Place("local", "local", kv_ceiling=0.9)},
         lambda made: scraped(made, active=1, kv_used=0.9), ask(PLAIN), Refuse,
         Reason.KV_CACHE_FULL, "90% of its KV cache"),
        ("just below its ceiling", {"place": Place("local", "local", kv_ceiling=0.9)},
         lambda made: scraped(made, active=1, kv_used=0.89), ask(PLAIN), Admit, Reason.HEADROOM,
         ""),
        ("the cache is promised", {}, lambda made: filled(made, 1, **LONG), ask(PRIVATE, most=401),
         Refuse, Reason.KV_CACHE_FULL, "95% of its KV cache"),
        ("to the last token", {}, lambda made: filled(made, 1, **LONG), ask(PRIVATE, most=400),
         Admit, Reason.HEADROOM, ""),
        ("an empty engine tries whatever fits its room", {}, None,
         ask(PRIVATE, prompt=5_000, most=9_000), Admit, Reason.HEADROOM, ""),
        ("too long a prompt", {}, None, ask(room_tokens=99), Refuse, Reason.PROMPT_TOO_LONG,
         "100 tokens, and it takes 99"),
        ("too long to be counted", {}, None, ask(room_tokens=99, whole=False), Refuse,
         Reason.PROMPT_TOO_LONG, "more than 99 tokens"),
        ("no replica, and a cloud", {"replicas": 0}, None, ask(), Spill, Reason.ENGINE_DOWN, ""),
        ("no replica", {"replicas": 0}, None, ask(PRIVATE), Refuse, Reason.ENGINE_DOWN,
         "it has no replica"),
        ("ejected", {}, down, ask(PRIVATE), Refuse, Reason.ENGINE_DOWN, "none of its replicas"),
        ("drained", {}, drained, ask(PRIVATE), Refuse, Reason.ENGINE_DOWN, "drained"),
        ("another router's", {}, foreign, ask(PRIVATE), Refuse, Reason.ENGINE_DOWN,
         "none of its replicas"),
        ("too slow, and a cloud", SLOW, None, ask(), Spill, Reason.SLO_AT_RISK, ""),
        ("too slow, and nothing better to do", SLOW, None, ask(PRIVATE), Admit,
         Reason.LATE_ANYWAY, ""),
        ("too slow, and busy", SLOW, lambda made: filled(made, 5), ask(PRIVATE), Refuse,
         Reason.SLO_AT_RISK, "its first token would take about"),
        ("a stream inside would break its promise", {},
         lambda made: filled(made, 1, terms=Terms("fast", tpot_s=0.0119)), ask(PRIVATE, prompt=1),
         Refuse, Reason.SLO_AT_RISK, ""),
        ("a promise that is no reason to leave", SLOW, None,
         ask(Terms("late", ttft_s=1.0, at_risk=False)), Admit, Reason.HEADROOM, ""),
        ("a deadline is never passed over", SLOW, None, ask(PRIVATE, deadline_s=1.5), Refuse,
         Reason.DEADLINE_AT_RISK, ""),
        ("nor where the cloud is too slow too", SLOW, None, ask(deadline_s=0.1), Refuse,
         Reason.DEADLINE_AT_RISK, ""),
        ("a deadline in the past", {}, None, ask(deadline_s=-1.0), Refuse, Reason.DEADLINE_AT_RISK,
         ""),
        ("a dear cloud", SLOW, lambda made: filled(made, 5),
         ask(replace(CHAT, spill_max_usd=0.0001)), Refuse, Reason.COST_CAP, "more than the class"),
        ("a class that may pay less", SLOW, lambda made: filled(made, 5),
         ask(replace(CHAT, max_usd=0.0001)), Refuse, Reason.COST_CAP, "more than the class"),
        ("a spent budget", {**SLOW, "outside": Allowance(0.0)}, lambda made: filled(made, 5),
         ask(), Refuse, Reason.BUDGET_SPENT, "budget for cloud"),
        ("an open breaker", {**SLOW, "outside": Barred()}, lambda made: filled(made, 5), ask(),
         Refuse, Reason.BREAKER_OPEN, "fails too often"),
        ("a slow cloud", SLOW, lambda made: filled(made, 5), ask(replace(CHAT, ttft_s=0.1)),
         Refuse, Reason.CLOUD_TOO_SLOW, "neither it nor cloud"),
        ("a spill to another engine of our own", {}, full_batch_beside_another,
         ask(replace(CHAT, spill_to="small")), Spill, Reason.TARGET_FULL, ""),
        ("a spill to another engine that is not there", {}, full_batch,
         ask(replace(CHAT, spill_to="small")), Refuse, Reason.TARGET_FULL, "8 requests"),
        ("a downgrade that cannot be called", {}, full_batch,
         ask(replace(PRIVATE, downgrade_to="nowhere")), Refuse, Reason.TARGET_FULL, ""),
    ],
)  # fmt: skip
def test_decision(why, spec, before, asked, kind, reason, limit):
    made = scene(**spec)
    if before is not None:
        before(made)
    found = settled(made, asked)
    assert (type(found), found.reason) == (kind, reason), why
    if isinstance(found, Refuse):
        assert limit in found.limit
        assert found.retry_after_s >= 1.0


@pytest.mark.parametrize("tier", ["", "gold"])
def test_a_weaker_target_answers_where_the_class_allows_it(tier):
    made = scene(tiers={"gold": 2.0})
    full_batch(made)
    made.join(ReplicaSpec("s0", "small", prior=SPEED), 0.0)
    asked = ask(replace(PRIVATE, downgrade_to="small"), tier=tier)
    found = settled(made, asked)
    assert isinstance(found, Downgrade)
    assert (found.target, found.replica, found.instead_of) == ("small", "s0", "local")
    assert found.reason is Reason.TARGET_FULL
    assert made.state.by_target["small"] == 1


def test_a_request_waits_until_its_cloud_could_just_keep_the_promise():
    made = scene()
    full_batch(made)
    ticket, found = place(made, ask(at=0.0))
    assert found is None
    assert ticket.why is Reason.TARGET_FULL
    assert made.due_s() == ticket.leave_s == pytest.approx(1.0 - 0.4)
    assert made.drain(ticket.leave_s - 0.001) == []
    [(_, spilled)] = made.drain(ticket.leave_s)
    assert isinstance(spilled, Spill)
    assert spilled.waited_s == pytest.approx(0.6)
    # 100 prompt tokens at 1 USD, 50 of an answer at 2 USD for a million.
    assert spilled.usd == pytest.approx(100e-6 + 50 * 2e-6)


def test_where_no_cloud_is_it_waits_while_an_idle_engine_could_keep_the_promise():
    made = scene()
    full_batch(made)
    ticket, _ = place(made, ask(PRIVATE))
    assert ticket.leave_s == pytest.approx(1.0 - 0.02)


@pytest.mark.parametrize(
    ("terms", "leave_s"),
    [
        (PLAIN, 5.0),
        (replace(PLAIN, wait_s=3.0), 8.0),
        (replace(PRIVATE, wait_s=0.5), 5.5),
        (replace(PRIVATE, wait_s=9.0), 5.98),
    ],
)
def test_how_long_a_class_waits(terms, leave_s):
    made = scene()
    ticket = made.ask(ask(terms, at=5.0), 5.0)
    assert ticket.leave_s == pytest.approx(leave_s)


def test_a_long_line_of_prompts_binds_nobody_who_may_still_leave():
    made = scene()
    filled(made, 1, prompt=2_000, first=False)
    ticket, found = place(made, ask())
    assert found is None
    assert ticket.why is Reason.PREFILL_AHEAD
    _, bound = place(made, ask(PRIVATE))
    assert bound.reason is Reason.HEADROOM


def test_part_of_the_cache_is_kept_for_who_may_not_leave_while_there_is_one():
    made = scene()
    filled(made, 1, terms=CHAT, prompt=8_000, most=900)
    assert isinstance(place(made, ask())[1], Admit)
    filled(made, 1, terms=PRIVATE)
    assert place(made, ask())[1] is None
    assert isinstance(place(made, ask(PRIVATE))[1], Admit)


def test_more_than_so_many_do_not_wait_and_pass_nobody():
    made = scene()
    [inside, *_] = filled(made, 8)
    waiting = [place(made, ask(PRIVATE, name=str(n))) for n in range(MAX_WAITING)]
    assert all(found is None for _, found in waiting)
    _, found = place(made, ask(PRIVATE))
    assert isinstance(found, Refuse)
    assert found.reason is Reason.WAITING_FULL
    assert f"{MAX_WAITING} requests wait" in found.limit
    assert made.offer(ask(PRIVATE), 0.0).placement.reason is Reason.WAITING_FULL
    made.ended(inside, "served", 0.0)
    [(ticket, placed)] = made.drain(0.0)
    assert ticket is waiting[0][0]
    assert isinstance(placed, Admit)


@pytest.mark.parametrize(
    ("why", "spec", "before", "asked", "kind"),
    [
        ("room", {}, None, ask(), Admit),
        ("none now", {}, full_batch, ask(), Queue),
        ("none now, and no time", {}, full_batch, ask(at=-0.99), Refuse),
        ("nobody there", {"replicas": 0}, None, ask(), Spill),
        ("all ejected", {}, down, ask(), Spill),
        ("a cloud", {}, None, ask(PLAIN, target="cloud"), Admit),
        ("a cloud that is too slow", {}, None,
         ask(replace(PRIVATE, ttft_s=0.1), target="cloud"), Refuse),
    ],
)  # fmt: skip
def test_an_offer_says_what_would_happen_and_changes_nothing(why, spec, before, asked, kind):
    made = scene(**spec)
    if before is not None:
        before(made)
    made.drain(0.0)
    state = made.state
    seen = [r.health for r in state.pools["local"].replicas.values()]
    guarded_s, counted = state.pools["local"].guarded_until_s, state.by_target.total()
    for _ in range(3):
        found = made.offer(asked, 0.0)
        assert type(found.placement) is kind, why
    assert [r.health for r in state.pools["local"].replicas.values()] == seen
    assert state.pools["local"].guarded_until_s == guarded_s
    assert state.by_target.total() == counted
    assert (len(state.pools["local"].queue), made.due_s()) == (0, None)
    if kind is not Queue:
        assert type(settled(made, asked)) is kind or kind is Refuse


def test_what_a_cloud_offers_has_its_tracked_latency_and_price():
    found = scene().offer(ask(PLAIN, target="cloud", at=-1.0), 0.0)
    assert found.usd == pytest.approx(100e-6 + 100e-6)
    # Half the stated p99 stands for the median: 0.2 s, and 10 ms for each of 50 tokens.
    assert found.placement.predicted.ttft_s == pytest.approx(1.2)
    assert found.placement.predicted.e2e_s == pytest.approx(1.2 + 0.5)


def test_every_reason_of_admission_is_decided_in_this_file():
    source = Path(__file__).read_text(encoding="utf-8")
    elsewhere = {
        "ROUTE_MATCHED", "CLASS_NAMED", "TARGET_NAMED", "DEFAULT_ROUTE", "VERDICT_FAILED",
        "DECLINED", "ENGINE_FAILED", "NOT_BUILT", "DRAINING", "FOR_A_PERSON", "SLOW_START",
    }  # fmt: skip
    assert {r.name for r in Reason if f"Reason.{r.name}" not in source} <= elsewhere
