"""Nothing stands in the way of what could be served: bad replicas, clouds, queues, classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy.scene import (
    CHAT,
    CLOUD,
    PLAIN,
    PRIVATE,
    SMALL,
    SPEED,
    ask,
    filled,
    place,
    scene,
    scraped,
    settled,
)
from policy.scene import replica as of

from forebay.policy.admission import Controller, Place, ReplicaSpec, Terms
from forebay.policy.admission.breakers import CloudBreakers
from forebay.policy.admission.controller import MAX_WAITING, UNPROMISED_WAIT_S
from forebay.policy.admission.feedback import AWAY_S, ENOUGH, ClassFeedback
from forebay.policy.admission.outside import Open
from forebay.policy.admission.pool import CANDIDATES, KEPT_AFTER
from forebay.values import Admit, Downgrade, Reason, Refuse, Spill

MANY = 8


def slow_to_begin(made, number):
    of(made, number).ttft_spread_s = 5.0


def full_of_context(made, number):
    of(made, number).foreign, of(made, number).reserved = 1, 9_900


def full_of_requests(made, number):
    of(made, number).foreign = 8


# ---- replicas ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "terms"),
    [
        (slow_to_begin, CHAT),
        (full_of_context, CHAT),
        (full_of_context, PRIVATE),
        (full_of_requests, PRIVATE),
    ],
)
def test_a_few_bad_replicas_do_not_hide_the_good_ones(spoil, terms):
    made = scene(MANY)
    for number in range(CANDIDATES):
        spoil(made, number)
    for number in range(CANDIDATES, MANY):
        of(made, number).foreign = 2
    _, found = place(made, ask(terms))
    assert isinstance(found, Admit)
    assert found.replica in {f"r{n}" for n in range(CANDIDATES, MANY)}


def test_every_replica_is_looked_at_in_turn_though_four_seem_better():
    made = scene(MANY)
    for number in range(CANDIDATES, MANY):
        of(made, number).lag_s = 0.5
    pool = made.state.pools["local"]
    seen = {one.spec.name for _ in range(MANY) for one in pool.candidates(0.0)}
    assert seen == {f"r{n}" for n in range(MANY)}
    assert all(len(pool.candidates(0.0)) == CANDIDATES for _ in range(MANY))


def test_load_that_was_scraped_long_ago_is_forgotten_of_all_replicas():
    made = scene(MANY)
    for number in range(MANY):
        made.scraped(of(made, number), scrape_of(6), 0)
    made.state.pools["local"].candidates(100.0)
    assert [of(made, number).foreign for number in range(MANY)] == [0] * MANY


def scrape_of(active):
    made = scene()
    scraped(made, active=active)
    return of(made).scrape


@pytest.mark.parametrize("outcome", ["cancelled", "failed"])
def test_a_replica_that_never_says_a_word_is_ejected_whoever_ends_the_calls(outcome):
    made = scene()
    for n in range(3):
        ticket, _ = place(made, ask(name=str(n)), float(n) * 10)
        made.ended(ticket, outcome, float(n) * 10 + 3.5)
    assert not of(made).health.takes(24.0)


@pytest.mark.parametrize(
    ("what", "first_s", "after_s"),
    [("hung up early", None, 0.02), ("hung up in the midst", 0.1, 60.0), ("slow", 2.4, 2.5)],
)
def test_clients_that_leave_a_replica_that_works_say_nothing_of_it(what, first_s, after_s):
    made = scene()
    for n in range(20):
        ticket, _ = place(made, ask(name=str(n)), n * 100.0)
        if first_s is not None:
            made.tokens(ticket, 1, n * 100.0 + first_s)
        made.ended(ticket, "cancelled", n * 100.0 + after_s)
    assert of(made).health.takes(2_000.0)


def test_the_last_moment_is_that_of_the_fastest_replica_and_not_of_the_first():
    made = scene(2)
    of(made, 0).lag_s = 1.0
    filled(made, 16, first=False)
    ticket = made.ask(ask(PRIVATE), 0.0)
    assert ticket.leave_s > 0.9


def test_what_the_last_replica_had_shown_is_known_of_the_next():
    made = scene()
    first = of(made)
    first.begin(replace(first.speed, step=SPEED.scaled(7)))
    first.learnt = True
    made.leave(first)
    made.join(ReplicaSpec("new", "local", prior=SPEED), 1.0)
    assert made.state.pools["local"].replicas["new"].coefficients == SPEED.scaled(7)


# ---- clouds -----------------------------------------------------------------------------------


class Shut(Open):
    """A cloud whose breaker is open while it says so."""

    shut = True

    def bars(self, target, ask, usd, now_s):
        return Reason.BREAKER_OPEN if self.shut else None


def test_a_request_whose_cloud_is_barred_waits_as_if_there_were_none():
    made = scene(outside=Shut())
    (inside, *_) = filled(made, 8)
    ticket, found = place(made, ask())
    assert found is None
    while (due_s := made.due_s()) <= 0.8:
        assert not made.drain(due_s), "at each last moment of its cloud it waits on"
    alone = replace(PRIVATE, elsewhere=True)
    assert ticket.leave_s == pytest.approx(made.ask(ask(alone, name="y"), 0.0).leave_s)
    made.ended(inside, "served", 0.85)
    assert [type(found) for _, found in made.drain(0.85)] == [Admit]


@pytest.mark.parametrize("why", ["breaker", "price", "full"])
def test_a_cloud_that_is_barred_at_the_last_moment_lets_a_request_wait_on(why):
    outside = Shut()
    outside.shut = False
    made = Controller([Place("local", "local"), replace(CLOUD, max_inflight=1)], outside=outside)
    made.join(ReplicaSpec("r0", "local", max_batch=8, prior=SPEED), 0.0)
    inside = filled(made, 8)
    ticket, _ = place(made, ask())
    cloud_s = ticket.leave_s
    assert cloud_s < 0.7
    if why == "breaker":
        outside.shut = True
    elif why == "price":
        made.state.places["cloud"] = replace(CLOUD, input_usd=1.0)
        ticket.ask = replace(ticket.ask, terms=replace(CHAT, spill_max_usd=0.01))
    else:
        place(made, ask(PLAIN, target="cloud", name="other"), 0.1)
    while ticket.leave_s <= 0.8:
        assert ticket not in dict(made.drain(ticket.leave_s))
        assert ticket.state == "waiting"
    assert ticket.leave_s > 0.9
    made.ended(inside[0], "served", 0.85)
    assert isinstance(dict(made.drain(0.85))[ticket], Admit)


def test_a_request_that_waited_on_leaves_in_the_end():
    made = scene(outside=Shut())
    filled(made, 8)
    found = settled(made, ask())
    assert isinstance(found, Refuse)
    assert found.waited_s < 1.0
    assert made.due_s() is None


def test_a_wait_that_breaks_is_told_to_whoever_waits():
    outside = Shut()
    made = scene(outside=outside)
    filled(made, 8)
    ticket, found = place(made, ask())
    assert found is None
    outside.bars = None  # whatever it is, it cannot be called
    with pytest.raises(TypeError):
        made.next_decision(ticket.leave_s)
    assert ticket.state == "gone"
    assert made.next_decision(ticket.leave_s) is None


def test_a_cloud_with_one_place_is_promised_to_one():
    made = Controller([Place("local", "local"), replace(CLOUD, max_inflight=1), SMALL])
    first, second = (place(made, ask(name=name))[1] for name in "ab")
    assert isinstance(first, Spill)
    assert isinstance(second, Refuse)
    assert isinstance(place(made, ask(PLAIN, target="cloud", name="a"))[1], Admit)


def test_a_promised_place_that_nobody_takes_is_free_again():
    made = Controller([Place("local", "local"), replace(CLOUD, max_inflight=1), SMALL])
    assert isinstance(place(made, ask(name="a"))[1], Spill)
    assert isinstance(place(made, ask(name="b", at=6.0), 6.0)[1], Spill)


def test_a_cloud_that_is_tried_again_is_promised_to_one():
    breakers = CloudBreakers()
    made = Controller([Place("local", "local"), CLOUD, SMALL], outside=breakers)
    for _ in range(3):
        ticket, _ = place(made, ask(PLAIN, target="cloud"))
        made.ended(ticket, "failed", 0.1)
    found = [place(made, ask(name=name, at=2.0), 2.0)[1] for name in "abc"]
    assert [type(one) for one in found] == [Spill, Refuse, Refuse]
    probe, placed = place(made, ask(PLAIN, target="cloud", name="a", at=2.0), 2.0)
    assert isinstance(placed, Admit)
    made.ended(probe, "served", 2.5)
    found = [place(made, ask(name=name, at=3.0), 3.0)[1] for name in "abc"]
    assert [type(one) for one in found] == [Spill] * 3


def test_an_engine_of_our_own_that_others_spill_to_still_answers_in_time():
    made = Controller([Place("local", "local"), Place("spare", "spare")])
    for name in ("local", "spare"):
        made.join(ReplicaSpec(name, name, max_batch=8, prior=SPEED), 0.0)
    filled(made, 8)
    ticket, found = place(made, ask(replace(CHAT, spill_to="spare")))
    assert found is None
    spilled = dict(made.drain(ticket.leave_s))[ticket]
    assert isinstance(spilled, Spill)
    there = ask(PRIVATE, target="spare", name="x")
    assert isinstance(place(made, there, ticket.leave_s + 0.02)[1], Admit)
    assert ticket.leave_s > 0.7


# ---- classes and tiers ------------------------------------------------------------------------


def test_a_class_that_does_not_fit_now_keeps_no_other_from_an_idle_engine():
    made = scene(prior=SPEED.scaled(3))
    tight = Terms("tight", ttft_s=3.0, tpot_s=0.01)
    inside = filled(made, 6)
    waiting = [place(made, ask(tight, name=str(n), prompt=10)) for n in range(20)]
    assert all(found is None for _, found in waiting)
    for one in inside[1:]:
        made.ended(one, "served", 0.1)
    made.drain(0.1)
    _, found = place(made, ask(Terms("roomy", ttft_s=5.0), prompt=10, at=0.2), 0.2)
    assert isinstance(found, Admit)


def test_who_may_not_leave_is_placed_though_smaller_requests_fit_into_every_gap():
    patient = replace(PRIVATE, ttft_s=10.0)
    made = scene(max_batch=64)
    inside = filled(made, 9, terms=CHAT, prompt=900, most=100)
    long, found = place(made, ask(patient, prompt=3000, name="long"))
    assert found is None
    came_s: dict[str, list[float]] = {"taken": [], "kept out": []}
    for number in range(1, 20):
        now_s = 0.5 * number
        made.ended(inside.pop(0), "served", now_s)
        made.drain(now_s)
        one, found = place(made, ask(CHAT, prompt=900, most=100, at=now_s, name=f"{number}"), now_s)
        if long.state == "placed":
            break
        came_s["taken" if found else "kept out"].append(now_s)
        if found:
            made.tokens(one, 1, now_s)
            inside.append(one)
    assert long.state == "placed"
    assert long.placed_s < long.leave_s
    half_s = long.leave_s * KEPT_AFTER
    assert max(came_s["taken"]) <= half_s + 0.5
    assert half_s < min(came_s["kept out"])
    made.tokens(long, 1, now_s)
    made.ended(long, "served", now_s)
    assert not of(made, 0).empties
    assert isinstance(place(made, ask(CHAT, at=now_s + 10), now_s + 10)[1], Admit)


@pytest.mark.parametrize(
    ("never", "input_usd"),
    [
        (replace(PRIVATE, tpot_s=0.01), 0.0),  # its engine's step alone takes longer
        (replace(PRIVATE, max_usd=0.01), 1.0),  # a prompt's token costs more
    ],
    ids=["too slow", "too dear"],
)
def test_no_replica_empties_for_one_whom_an_empty_one_would_not_serve(never, input_usd):
    made = scene(place=Place("local", "local", input_usd=input_usd))
    filled(made, 2, terms=CHAT)
    made.ask(ask(never), 0.0)
    for number in range(1, 20):
        made.changed(of(made, 0))
        made.drain(0.05 * number)
        assert not of(made, 0).empties
    assert isinstance(place(made, ask(CHAT, at=5.0), 5.0)[1], Admit)


def test_only_one_replica_empties_for_each_who_may_not_leave():
    made = scene(8, max_batch=1)
    filled(made, 8, terms=CHAT)
    waits = [place(made, ask(PRIVATE, name=str(n)))[0] for n in range(2)]
    late_s = waits[0].leave_s * KEPT_AFTER
    made.ask(ask(CHAT, at=late_s, name="new"), late_s)
    made.drain(late_s)
    assert {one.kept_at for one in waits} == {one for n in range(8) if (one := of(made, n)).empties}
    made.forget(waits[0])
    assert sum(of(made, n).empties for n in range(8)) == 1


def test_a_promise_is_not_shut_out_by_those_who_are_promised_nothing():
    made = scene()
    place(made, ask(PRIVATE, name="first"))
    crowd = [place(made, ask(PLAIN, name=str(n))) for n in range(20)]
    assert of(made).inside == 8
    waiting = [ticket for ticket, found in crowd if found is None]
    assert len(waiting) == 20 - 7
    ticket, found = place(made, ask(PRIVATE, name="second"))
    assert found is None
    made.ended(crowd[0][0], "served", 0.1)
    assert [one for one, _ in made.drain(0.1)] == [ticket]


def test_who_is_promised_nothing_waits_for_a_bounded_time():
    made = scene()
    place(made, ask(PRIVATE, name="first"))
    filled(made, 7)
    found = settled(made, ask())
    assert isinstance(found, Spill), "who may leave does not wait for that"
    ticket, found = place(made, ask(PLAIN))
    assert found is None
    assert ticket.leave_s == UNPROMISED_WAIT_S
    soon, _ = place(made, ask(PLAIN, name="soon", deadline_s=1.0))
    assert soon.leave_s == 1.0 - of(made).idle(100)[0]
    found = dict(made.drain(soon.leave_s))[soon]
    assert found.reason is Reason.DEADLINE_AT_RISK
    assert isinstance(dict(made.drain(UNPROMISED_WAIT_S))[ticket], Refuse)


CHEAP = replace(PLAIN, spill_to="cloud")
"""Promised nothing, so that a line of prompts is no reason to pay for it."""


def test_who_is_promised_nothing_is_not_spilled_for_a_line_of_prompts():
    made = scene(kv_tokens=100_000, place=Place("local", "local", max_inflight=8))
    for number in range(8):
        found = settled(made, ask(CHEAP, prompt=4_000, name=str(number)))
        assert isinstance(found, Admit), number
    full = settled(made, ask(CHEAP, name="one more"))
    assert (type(full), full.reason) == (Spill, Reason.TARGET_FULL), "for a limit it is"


def test_who_is_promised_nothing_waits_behind_promises_before_it_is_paid_for():
    made = scene()
    place(made, ask(PRIVATE, name="first"))
    filled(made, 7)
    ticket, found = place(made, ask(CHEAP))
    assert found is None
    assert ticket.leave_s == UNPROMISED_WAIT_S
    soon, _ = place(made, ask(CHEAP, name="soon", deadline_s=5.0))
    assert soon.leave_s == 5.0 - CLOUD.expect_ttft_s, "so that the cloud still can"
    dear, _ = place(made, ask(replace(CHEAP, spill_max_usd=1e-9), name="dear"))
    assert isinstance(dict(made.drain(soon.leave_s))[soon], Spill)
    last = dict(made.drain(UNPROMISED_WAIT_S))
    assert isinstance(last[ticket], Spill)
    assert isinstance(last[dear], Refuse), "a cloud that is barred makes no wait longer"


def test_where_nobody_is_promised_anything_all_may_wait_inside():
    made = scene()
    filled(made, 20)
    assert of(made).inside == 20


def test_many_of_one_tier_leave_others_their_places_in_the_queue():
    made = scene(tiers={"gold": 4.0, "free": 1.0})
    filled(made, 8)
    slow = replace(PRIVATE, ttft_s=60.0)
    for n in range(MAX_WAITING):
        place(made, ask(slow, tier="free", name=str(n)))
    assert place(made, ask(slow, tier="free"))[1].reason is Reason.WAITING_FULL
    assert place(made, ask(slow, tier="gold"))[1] is None
    assert place(made, ask(replace(CHAT, ttft_s=60.0), tier="free"))[1] is None


def test_lengths_that_keep_every_request_away_are_forgotten():
    made = scene()
    learnt = made.state.learnt(whole := Terms("whole", e2e_s=5.0))
    for tokens in (*[40] * 50, *[900] * 10):
        learnt.answered(tokens)
    filled(made, 5)
    asked = ask(whole, most=1_000)
    assert isinstance(settled(made, asked), Refuse)
    later_s = 8 * AWAY_S
    assert isinstance(place(made, replace(asked, arrived_s=later_s), later_s)[1], Admit)


@pytest.mark.parametrize("attainment", [0.5, 0.9, 0.99])
def test_the_longest_answer_is_the_quantile_that_the_class_is_promised(attainment):
    learnt = ClassFeedback(attainment)
    for n in range(40 * ENOUGH):
        learnt.answered(1 + n * 7919 % 1000)
    assert learnt.longest_tokens(0.0) == pytest.approx(1000 * attainment, abs=120)


# ---- limits -----------------------------------------------------------------------------------


def test_a_prompt_too_long_for_the_weaker_engine_is_not_sent_there():
    made = scene()
    made.join(ReplicaSpec("s", "small", max_batch=8, prior=SPEED), 0.0)
    filled(made, 8)
    terms = replace(PRIVATE, downgrade_to="small")
    assert isinstance(settled(made, ask(terms)), Downgrade)
    found = settled(made, ask(terms, weaker_room_tokens=99))
    assert isinstance(found, Refuse)
    assert found.reason is Reason.TARGET_FULL


def test_an_engine_with_time_is_no_reason_to_pass_over_a_cost_cap():
    made = scene(place=Place("local", "local", output_usd=1e-3))
    found = settled(made, ask(replace(PRIVATE, max_usd=0.001)))
    assert isinstance(found, Refuse)
    assert found.reason is Reason.COST_CAP


def test_a_weaker_engine_within_the_cost_cap_answers():
    made = scene(place=Place("local", "local", output_usd=1e-3))
    made.join(ReplicaSpec("s", "small", prior=SPEED), 0.0)
    terms = replace(PRIVATE, max_usd=0.001, downgrade_to="small")
    assert isinstance(settled(made, ask(terms)), Downgrade)


def test_when_to_come_back_is_told_by_those_who_waited_and_not_by_how_seldom_one_asks():
    made = scene()
    for n in range(40):
        ticket, _ = place(made, ask(PRIVATE, at=60.0 * n), 60.0 * n)
        made.ended(ticket, "served", 60.0 * n + 1.0)
    made.leave(of(made))
    found = settled(made, ask(PRIVATE, at=3_000.0), 3_000.0)
    assert found.retry_after_s <= 2.0
