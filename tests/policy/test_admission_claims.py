"""Nobody claims more than its class may: not by what it is promised, names, reads or breaks off."""

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
    settled,
)
from policy.scene import replica as of

from forebay.policy.admission import Controller, Place, ReplicaSpec, Terms
from forebay.policy.admission.cloud import QUIET_S, WINDOW, CloudLatency
from forebay.policy.admission.feedback import BURST, ETA, Margin
from forebay.policy.admission.judge import BIND_LATE_S
from forebay.policy.admission.pool import CANDIDATES, KEPT_AFTER
from forebay.policy.admission.replica import SILENT, SILENT_LEAST_S
from forebay.policy.admission.state import HELD_UP
from forebay.values import Admit, Downgrade, Reason, Refuse, Spill

FIRST_ONLY = Terms("first", ttft_s=1.0, spill_to="cloud")
WHOLE = Terms("whole", e2e_s=600.0)
ROOMY = {"kv_tokens": 1_000_000, "max_batch": 256}


# ---- lines of prompts -------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [PLAIN, WHOLE], ids=["promised nothing", "promised an end"])
def test_who_is_promised_no_first_token_buries_none_that_is(bulk):
    made = scene(**ROOMY)
    place(made, ask(FIRST_ONLY, prompt=10, name="known"))
    crowd = [place(made, ask(bulk, prompt=2_000, name=str(n))) for n in range(50)]
    line_s = of(made).backlog(0.0) * SPEED.d_s
    assert line_s <= BIND_LATE_S + 2_000 * SPEED.d_s
    assert sum(found is None for _, found in crowd) >= 48
    assert isinstance(settled(made, ask(FIRST_ONLY, at=0.5, name="new"), 0.5), Admit)


def test_who_is_promised_nothing_comes_after_who_has_longer_to_wait():
    made = scene()
    patient = Terms("patient", ttft_s=120.0, spill_to="cloud")
    inside = filled(made, 8, terms=FIRST_ONLY)
    plain, _ = place(made, ask(PLAIN, name="plain"))
    later, _ = place(made, ask(patient, name="later"))
    assert plain.leave_s < later.leave_s
    made.ended(inside[0], "served", 0.2)
    assert [ticket for ticket, _ in made.drain(0.2)] == [later]


def test_behind_a_line_of_prompts_the_unpromised_is_told_of_it():
    made = scene(**ROOMY)
    place(made, ask(FIRST_ONLY, prompt=10, name="known"))
    bounded = replace(PLAIN, wait_s=0.0)
    place(made, ask(PLAIN, prompt=4_000, name="ahead"))
    found = settled(made, ask(bounded, name="late"))
    assert isinstance(found, Refuse)
    assert found.reason is Reason.PREFILL_AHEAD
    assert "tokens of others' prompts stand before it" in found.limit


# ---- who may not leave --------------------------------------------------------------------------


def test_naming_a_target_is_no_way_to_the_head_of_the_line():
    made = scene()
    inside = filled(made, 8, terms=CHAT)
    named = replace(CHAT, spill_to=None, elsewhere=True)
    first, _ = place(made, ask(CHAT, name="first"))
    second, _ = place(made, ask(named, name="second", at=0.01), 0.01)
    assert first.leave_s < second.leave_s
    made.ended(inside[0], "served", 0.2)
    assert [ticket for ticket, _ in made.drain(0.2)] == [first]
    assert made.state.pools["local"].guarded_until_s < 0.0
    made.drain(0.9 * second.leave_s)
    assert not of(made).empties


def test_replicas_that_empty_hide_none_that_has_room():
    made = scene(4 * CANDIDATES, max_batch=64)
    for number in range(CANDIDATES):
        waits = made.ask(ask(PRIVATE, name=str(number)), 0.0)
        of(made, number).kept_for = waits
    for number in range(CANDIDATES, 4 * CANDIDATES):
        of(made, number).foreign = 3
    pool = made.state.pools["local"]
    for _ in range(4 * CANDIDATES):
        seen = pool.candidates(0.0)
        assert sum(one.empties for one in seen) <= 1, "but for the one whose turn it is"
        assert len(seen) == CANDIDATES


@pytest.mark.parametrize(("replicas", "most"), [(1, 1), (3, 1), (4, 1), (12, 3)])
def test_most_of_a_pool_never_empties_at_once(replicas, most):
    made = scene(replicas, max_batch=1)
    filled(made, replicas, terms=CHAT)
    waits = [place(made, ask(PRIVATE, name=str(n)))[0] for n in range(replicas + 2)]
    late_s = waits[0].leave_s * KEPT_AFTER
    for number in range(4 * replicas):
        made.changed(of(made, number % replicas))
        made.drain(late_s + 0.001 * number)
    assert sum(of(made, number).empties for number in range(replicas)) == most


def test_the_replica_that_empties_for_a_request_is_looked_at_though_others_seem_better():
    made = scene(3 * CANDIDATES, max_batch=1)
    inside = filled(made, 3 * CANDIDATES, terms=CHAT)
    waits, _ = place(made, ask(PRIVATE))
    late_s = waits.leave_s * KEPT_AFTER
    made.changed(of(made))
    made.drain(late_s)
    assert waits.kept_at is not None
    waits.kept_at.lag_s = 0.05  # all others seem to begin sooner
    made.ended(next(t for t in inside if t.replica is waits.kept_at), "served", late_s + 0.1)
    assert [(t, p.replica) for t, p in made.drain(late_s + 0.1)] == [
        (waits, waits.kept_at.spec.name)
    ]


def test_one_whose_replica_went_down_lets_that_one_fill_again():
    made = scene(2, max_batch=1)
    filled(made, 2, terms=CHAT)
    waits, _ = place(made, ask(PRIVATE))
    late_s = waits.leave_s * KEPT_AFTER
    made.changed(of(made))
    made.drain(late_s)
    before = waits.kept_at
    assert before is not None
    before.ours = False
    made.changed(before)
    made.drain(late_s + 0.01)
    assert waits.kept_at is not before
    assert not before.empties


# ---- clouds -------------------------------------------------------------------------------------


def brownout(cloud, answers=600):
    """Let a cloud be quick for a window, and then slow for so many answers; return when it ends."""
    for number in range(WINDOW):
        cloud.saw(0.3, 0.01, number * 0.05)
    began_s = WINDOW * 0.05
    for number in range(answers):
        cloud.saw(5.0, 0.01, began_s + number * 0.05)
    return began_s + answers * 0.05


def test_a_cloud_that_was_slow_for_a_while_is_tried_again_and_believed_again_soon():
    made = scene()
    cloud = made.state.exits.clouds["cloud"]
    over_s = brownout(cloud)
    usual = made.state.places["cloud"].usd(100, 50)
    asked = ask(CHAT, at=over_s)
    assert made.state.barred(asked, "cloud", usual, over_s) is Reason.CLOUD_TOO_SLOW
    now_s, in_a_row = over_s, 0
    while in_a_row < 3:
        now_s, in_a_row = now_s + 1.0, in_a_row + 1
        if made.state.barred(replace(asked, arrived_s=now_s), "cloud", usual, now_s) is None:
            for _ in range(10):  # those that came in the second until its answer
                cloud.saw(0.3, 0.01, now_s + 0.3)
        else:
            in_a_row = 0
        assert now_s < over_s + 20 * QUIET_S, "a minute or three, not a quarter of an hour"


def test_a_cloud_that_is_still_slow_gets_one_burst_and_no_more():
    cloud = CloudLatency(0.4, 0.02)
    over_s = brownout(cloud)
    assert cloud.likely(over_s)[0] == 5.0
    assert cloud.likely(over_s + 5 * QUIET_S)[0] < 0.5
    cloud.saw(5.0, 0.01, over_s + 5 * QUIET_S)
    assert cloud.likely(over_s + 5 * QUIET_S)[0] == 5.0


def test_a_cloud_that_is_full_as_a_request_comes_may_have_room_when_it_leaves():
    made = Controller([Place("local", "local"), replace(CLOUD, max_inflight=1), SMALL])
    made.join(ReplicaSpec("r0", "local", max_batch=8, prior=SPEED), 0.0)
    filled(made, 8)
    elsewhere, _ = place(made, ask(PLAIN, target="cloud", name="other"))
    ticket, _ = place(made, ask(CHAT))
    made.ended(elsewhere, "served", 0.1)
    assert isinstance(dict(made.drain(ticket.leave_s))[ticket], Spill)


# ---- pools that are down ------------------------------------------------------------------------


@pytest.fixture
def two_pools():
    made = Controller([Place("local", "local"), Place("spare", "spare"), SMALL])
    for name, factor in (("local", 1), ("spare", 10), ("small", 1)):
        made.join(ReplicaSpec(name, name, max_batch=8, prior=SPEED.scaled(factor)), 0.0)
    return made


def down(made, pool):
    (one,) = made.state.pools[pool].replicas.values()
    one.health = one.health.drained()
    made.changed(one)


def test_nobody_spills_to_engines_that_are_down(two_pools):
    down(two_pools, "spare")
    filled(two_pools, 8)
    terms = replace(CHAT, spill_to="spare", downgrade_to="small")
    ticket, _ = place(two_pools, ask(terms))
    alone, _ = place(two_pools, ask(replace(PRIVATE, elsewhere=True), name="alone"))
    assert ticket.leave_s == pytest.approx(alone.leave_s)
    found = dict(two_pools.drain(ticket.leave_s))[ticket]
    assert isinstance(found, Downgrade)
    assert found.reason is Reason.TARGET_FULL


def test_who_waits_for_a_spare_that_goes_down_waits_on(two_pools):
    inside = filled(two_pools, 8)
    ticket, _ = place(two_pools, ask(replace(CHAT, spill_to="spare")))
    spare_s = ticket.leave_s
    down(two_pools, "spare")
    assert ticket not in dict(two_pools.drain(spare_s))
    two_pools.ended(inside[0], "served", spare_s + 0.01)
    assert isinstance(dict(two_pools.drain(spare_s + 0.01))[ticket], Admit)


def test_a_weaker_engine_answers_for_one_that_is_down(two_pools):
    down(two_pools, "local")
    found = settled(two_pools, ask(replace(PRIVATE, downgrade_to="small")))
    assert isinstance(found, Downgrade)
    assert found.reason is Reason.ENGINE_DOWN
    assert isinstance(settled(two_pools, ask(PRIVATE)), Refuse)


# ---- what is learnt -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "taught"), [(0.0, True), (HELD_UP / 2, True), (HELD_UP * 2, False)]
)
def test_a_client_that_reads_slowly_teaches_nothing_of_the_engine(share, taught):
    made = scene()
    before = of(made).tpot_spread
    ticket, _ = place(made, ask(CHAT))
    made.tokens(ticket, 1, 0.2)
    made.tokens(ticket, 40, 40.0)
    made.ended(ticket, "served", 40.0, reader_s=40.0 * share)
    learnt = made.state.learnt(CHAT)
    assert (learnt.rate.log > 0.0) is taught
    assert (of(made).tpot_spread > before) is taught
    assert learnt.answers == 1


def test_an_engine_that_stood_still_once_is_not_distrusted_for_hours():
    stall, spread = Margin(), Margin()
    for number in range(35):
        stall.learn(10.0 + number * 0.01, missed=True, allowed=0.003)
        spread.learn(10.0 + number * 1.0, missed=True, allowed=0.003)
    assert stall.log <= BURST * ETA
    assert spread.log == pytest.approx(35 * (ETA * 0.997), rel=0.01)


def test_a_client_that_leaves_after_its_promise_passed_was_missed():
    made = scene(**ROOMY)
    for number in range(4):
        ticket, _ = place(made, ask(CHAT, at=10.0 * number, name=str(number)), 10.0 * number)
        made.ended(ticket, "cancelled", 10.0 * number + (0.9 if number < 2 else 1.1))
        learnt = made.state.learnt(CHAT).ttft.log
        assert (learnt > 0.0) is (number >= 2)


def test_an_engine_that_hangs_is_ejected_though_clients_wait_less_than_any_silence_takes():
    made = scene(2)
    (dead, alive), now_s, called = (of(made, 0), of(made, 1)), 0.0, 0
    while dead.health.takes(now_s):
        now_s += 0.5
        asked = ask(CHAT, at=now_s, name=str(now_s), deadline_s=now_s + 2.0)
        ticket, found = place(made, asked, now_s)
        assert isinstance(found, Admit)
        if ticket.replica is alive:
            made.tokens(ticket, 1, now_s + 0.1)
            made.ended(ticket, "served", now_s + 0.4)
        else:
            called += 1
            made.ended(ticket, "cancelled", now_s + 0.4)
        assert called < SILENT * SILENT_LEAST_S / 0.4 + 4
    assert alive.health.takes(now_s)


def test_an_engine_that_talks_to_others_does_not_hang():
    made = scene(**ROOMY)
    stream, _ = place(made, ask(CHAT, name="stream"))
    made.tokens(stream, 1, 0.1)
    for number in range(20):
        at_s = 10.0 * number
        ticket, _ = place(made, ask(CHAT, at=at_s, name=str(number)), at_s)
        for later in range(9):
            made.tokens(stream, 1, at_s + later)
        made.ended(ticket, "cancelled", at_s + 9.0)
    assert of(made).health.takes(200.0)


@pytest.mark.parametrize(
    ("why", "took_s", "every", "word"),
    [
        ("however long it takes to say no", 9.0, 1, "declined"),
        ("a no between short silences", 0.9, 3, "declined"),
        ("a token between short silences", 0.9, 3, "token"),
    ],
)
def test_an_engine_that_says_a_word_now_and_then_is_not_ejected(why, took_s, every, word):
    made = scene()
    for number in range(60):
        at_s = 10.0 * number
        ticket, _ = place(made, ask(CHAT, at=at_s, name=str(number)), at_s)
        says = word if number % every == every - 1 else ""
        if says == "token":
            made.tokens(ticket, 1, at_s + 0.1)
        made.ended(ticket, "declined" if says == "declined" else "cancelled", at_s + took_s)
    assert of(made).health.takes(600.0), why


# ---- the queue ----------------------------------------------------------------------------------


def test_who_waits_on_is_looked_at_at_once():
    made = Controller([Place("local", "local"), replace(CLOUD, max_inflight=1), SMALL])
    made.join(ReplicaSpec("r0", "local", max_batch=8, prior=SPEED), 0.0)
    filled(made, 8)
    place(made, ask(PLAIN, target="cloud", name="other"))
    ticket, _ = place(made, ask(CHAT))
    assert not dict(made.drain(ticket.leave_s))
    assert ticket.state == "waiting"
    assert not made.stirred
