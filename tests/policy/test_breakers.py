"""A cloud that fails is not called for a while, and one request finds out whether it is back."""

from __future__ import annotations

import pytest

from forebay.policy.admission import Allowance, Ask, CloudBreakers, Controller, Place, Terms
from forebay.policy.admission.breakers import RULES
from forebay.policy.health import State
from forebay.values import Admit, Reason, Refuse, Spill

TERMS = Terms("class")


def ask(target="cloud", terms=TERMS, at_s=0.0):
    return Ask("r", terms, target, 10, 10, at_s)


def controller(breakers):
    return Controller([Place("cloud"), Place("other"), Place("local", "pool")], outside=breakers)


def placed(made, now_s, target="cloud", terms=TERMS):
    ticket = made.ask(ask(target, terms, now_s), now_s)
    ((same, placement),) = made.drain(now_s)
    assert same is ticket
    return ticket, placement


def fail(made, now_s, times=RULES.failures):
    tickets = [placed(made, now_s)[0] for _ in range(times)]
    for ticket in tickets:
        made.ended(ticket, "failed", now_s)


def refused(placement):
    return isinstance(placement, Refuse) and placement.reason is Reason.BREAKER_OPEN


def test_its_own_faults_open_it_and_no_other_cloud():
    made = controller(breakers := CloudBreakers())
    fail(made, 1.0)
    _, placement = placed(made, 1.1)
    assert refused(placement)
    assert placement.limit == "cloud fails too often and is not called for now"
    assert breakers.health("cloud").state(1.1) is State.OPEN
    assert isinstance(placed(made, 1.1, "other")[1], Admit)


@pytest.mark.parametrize("outcome", ["served", "cancelled"])
def test_what_is_not_its_fault_never_does(outcome):
    made = controller(CloudBreakers())
    for _ in range(50):
        ticket, placement = placed(made, 1.0)
        assert isinstance(placement, Admit)
        made.ended(ticket, outcome, 1.0)


@pytest.mark.parametrize(
    ("outcome", "at_s", "then"),
    [("served", 2.3, Admit), ("failed", 2.3, Refuse), ("cancelled", 2.3, Admit)],
)
def test_one_request_finds_out(outcome, at_s, then):
    made = controller(CloudBreakers())
    fail(made, 1.0)
    probe, placement = placed(made, 2.1)
    assert isinstance(placement, Admit), "its backoff is over"
    assert refused(placed(made, 2.1)[1]), "one at a time"
    made.ended(probe, outcome, 2.2)
    assert isinstance(placed(made, at_s)[1], then)


def test_a_probe_that_is_lost_is_followed_by_another():
    made = controller(CloudBreakers())
    fail(made, 1.0)
    placed(made, 2.1)
    assert refused(placed(made, 2.1 + RULES.probe_s - 0.1)[1])
    assert isinstance(placed(made, 2.1 + RULES.probe_s)[1], Admit)


def test_it_is_called_again_within_the_longest_backoff_however_often_it_failed():
    made, now_s = controller(CloudBreakers()), 1.0
    fail(made, now_s)
    for _ in range(10):
        now_s += RULES.backoff_max_s
        probe, placement = placed(made, now_s)
        assert isinstance(placement, Admit)
        made.ended(probe, "failed", now_s)
    assert refused(placed(made, now_s + RULES.backoff_max_s - 0.1)[1])


def test_answers_begun_before_it_opened_say_nothing():
    made = controller(CloudBreakers())
    early = placed(made, 0.5)[0]
    fail(made, 1.0)
    made.ended(early, "served", 1.5)
    assert refused(placed(made, 1.6)[1])


def test_nobody_spills_to_it():
    made = controller(CloudBreakers())
    spilling = Terms("class", spill_to="cloud")
    assert isinstance(placed(made, 0.9, "local", spilling)[1], Spill)
    fail(made, 1.0)
    assert isinstance(placed(made, 1.1, "local", spilling)[1], Refuse)


def test_places_come_back_however_it_ends():
    made = Controller([Place("cloud", max_inflight=1)], outside=CloudBreakers())
    for outcome in ("served", "failed", "cancelled"):
        ticket, placement = placed(made, 1.0)
        assert isinstance(placement, Admit)
        assert placed(made, 1.0)[1].reason is Reason.TARGET_FULL
        made.ended(ticket, outcome, 1.0)


def test_what_stands_beside_it_is_asked_and_told():
    breakers = CloudBreakers(Allowance(1 / 3600))
    assert breakers.bars("cloud", ask(), 2.0, 1.0) is Reason.BUDGET_SPENT
    breakers.sent("cloud", ask(), 0.9, 1.0)
    assert breakers.bars("cloud", ask(), 0.5, 1.0) is Reason.BUDGET_SPENT
    breakers.ended("cloud", "served", 1.0, 1.0)
    assert breakers.bars("cloud", ask(), 0.05, 1.0) is None


# ---- full -------------------------------------------------------------------------------


def told_full(made, now_s, times=RULES.failures, later_s=0.0):
    tickets = [placed(made, now_s)[0] for _ in range(times)]
    for ticket in tickets:
        made.state.exits.full("cloud", later_s, now_s, now_s)
        made.ended(ticket, "cancelled", now_s)


def left_alone(placement):
    return isinstance(placement, Refuse) and placement.reason is Reason.TARGET_FULL


def test_a_cloud_that_says_thrice_that_it_is_full_is_left_alone_for_a_while():
    made = controller(breakers := CloudBreakers())
    told_full(made, 1.0, times=2)
    assert isinstance(placed(made, 1.0)[1], Admit)
    told_full(made, 1.0, times=1)
    assert left_alone(placed(made, 1.9)[1])
    assert isinstance(placed(made, 1.9, "other")[1], Admit)
    assert breakers.health("cloud").state(1.9) is State.CLOSED, "it is no fault"
    assert breakers.room("cloud").state(1.9) is State.OPEN
    assert isinstance(placed(made, 2.0)[1], Admit)
    assert left_alone(placed(made, 2.0)[1]), "one at a time finds out"


@pytest.mark.parametrize(("later_s", "until_s"), [(0.0, 1.0), (7.0, 7.0), (3600.0, 15.0)])
def test_for_as_long_as_it_asks_within_the_longest_backoff(later_s, until_s):
    made = controller(CloudBreakers())
    told_full(made, 0.0, later_s=later_s)
    assert left_alone(placed(made, until_s - 0.1)[1])
    assert isinstance(placed(made, until_s)[1], Admit)


def test_an_answer_between_refusals_says_that_there_is_room():
    made = controller(CloudBreakers())
    for _ in range(5):
        told_full(made, 1.0, times=2)
        ticket, placement = placed(made, 1.0)
        assert isinstance(placement, Admit)
        made.ended(ticket, "served", 1.0)


def test_half_of_the_last_calls_are_enough():
    """A large request that is refused among small ones is not: it takes many."""
    made = controller(CloudBreakers())
    for n in range(9):
        told_full(made, 1.0, times=1)
        ticket, placement = placed(made, 1.0)
        assert isinstance(placement, Admit), n
        made.ended(ticket, "served", 1.0)
    told_full(made, 1.0, times=1)
    made.ended(placed(made, 1.0)[0], "served", 1.0)
    told_full(made, 1.0, times=1)
    assert left_alone(placed(made, 1.0)[1])


def test_the_first_token_shows_that_there_is_room_again():
    made = controller(CloudBreakers())
    told_full(made, 1.0)
    probe, _ = placed(made, 2.1)
    assert left_alone(placed(made, 2.2)[1])
    made.tokens(probe, 1, 2.3)
    assert all(isinstance(placed(made, 2.3)[1], Admit) for _ in range(5))


def test_full_and_broken_are_told_apart():
    made = controller(CloudBreakers())
    told_full(made, 1.0)
    probe, _ = placed(made, 2.1)
    made.ended(probe, "failed", 2.2)
    assert isinstance(placed(made, 2.2)[1], Admit), "a fault says nothing of room"


@pytest.mark.parametrize(
    ("why", "target", "terms", "expected"),
    [
        ("to where its class spills", "cloud", Terms("class", spill_to="other"), Spill),
        ("nowhere else", "cloud", TERMS, Refuse),
        ("a full cloud takes no spill", "local", Terms("class", spill_to="cloud"), Refuse),
    ],
)
def test_what_is_full_spills(why, target, terms, expected):
    made = controller(CloudBreakers())
    told_full(made, 1.0)
    _, found = placed(made, 1.1, target, terms)
    assert type(found) is expected, why
    if expected is Spill:
        assert (found.target, found.instead_of) == ("other", "cloud")
        assert found.reason is Reason.TARGET_FULL


def test_a_cloud_at_its_own_limit_spills_too():
    made = Controller([Place("cloud", max_inflight=1), Place("other")], outside=CloudBreakers())
    spilling = Terms("class", spill_to="other")
    assert isinstance(placed(made, 1.0, terms=spilling)[1], Admit)
    _, found = placed(made, 1.0, terms=spilling)
    assert isinstance(found, Spill)
    assert (found.target, found.reason) == ("other", Reason.TARGET_FULL)
    assert made.state.learnt(spilling).spilled == 0.0, "no engine of ours was spared anything"


# ---- silent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "expected_s", "took_s", "then"),
    [
        ("three times its slowest first token", 1.5, 4.6, Refuse),
        ("not yet", 1.5, 4.4, Admit),
        ("a fast one has a second all the same", 0.1, 0.9, Admit),
        ("but no more", 0.1, 1.1, Refuse),
    ],
)
def test_a_silence_that_was_cut_short_is_a_fault_if_it_was_long(why, expected_s, took_s, then):
    place = Place("cloud", expect_ttft_s=expected_s)
    made = Controller([place], outside=CloudBreakers())
    tickets = [placed(made, 1.0)[0] for _ in range(RULES.failures)]
    for ticket in tickets:
        made.state.exits.silent("cloud", 1.0, 1.0 + took_s)
        made.ended(ticket, "cancelled", 1.0 + took_s)
    assert isinstance(placed(made, 1.1 + took_s)[1], then), why


def test_a_probe_that_has_begun_to_answer_lets_the_next_one_follow():
    """Answers may take a minute; until one is whole, each first token brings the next request."""
    made = controller(CloudBreakers())
    fail(made, 1.0)
    for now_s in (2.1, 2.2, 2.3):
        probe, placement = placed(made, now_s)
        assert isinstance(placement, Admit)
        assert refused(placed(made, now_s)[1])
        made.tokens(probe, 1, now_s + 0.05)
    made.ended(probe, "served", 2.4)
    assert all(isinstance(placed(made, 2.5)[1], Admit) for _ in range(5))
