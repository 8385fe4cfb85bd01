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
