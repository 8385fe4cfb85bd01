"""When a replica is ejected, probed and taken back; when it drains."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.errors import (
    STATUS,
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    TooLarge,
)
from forebay.policy.health import FAULTS, RULES, Health, Rules, State, outcome_of


def failing(health, *times, began_s=None):
    for now_s in times:
        health = health.failed(now_s, began_s)
    return health


OPEN = failing(Health(), 10.0, 10.1, 10.2)
"""Opened at 10.2 for one second."""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (EngineUnavailable("x"), "failed"),
        (EngineFailed("x"), "failed"),
        (InvalidRequest("x"), "declined"),
        (TooLarge("x"), "declined"),
        (Overloaded("x", 1.0), "declined"),
        (Declined("x"), "declined"),
        (DeadlineExceeded("x"), "cancelled"),
    ],
)
def test_only_its_own_faults_count_and_a_no_is_a_word(error, outcome):
    assert outcome_of(error) == outcome


def test_every_error_is_either_its_fault_or_not():
    assert {kind for kind in STATUS if issubclass(kind, FAULTS)} == set(FAULTS)


@pytest.mark.parametrize(
    ("why", "health", "now_s", "expected"),
    [
        ("new", Health(), 0.0, (State.CLOSED, True, False)),
        ("two failures", failing(Health(), 1.0, 2.0), 2.0, (State.CLOSED, True, False)),
        ("an answer in between",
         failing(failing(Health(), 1.0, 2.0).served(3.0), 4.0, 5.0), 5.0,
         (State.CLOSED, True, False)),
        ("three in a row", OPEN, 10.2, (State.OPEN, False, False)),
        ("just before its backoff ends", OPEN, 11.19, (State.OPEN, False, False)),
        ("when it ends", OPEN, 11.2, (State.HALF_OPEN, False, True)),
        ("a probe is out", OPEN.probing(11.2), 12.0, (State.HALF_OPEN, False, False)),
        ("a probe is lost", OPEN.probing(11.2), 21.2, (State.HALF_OPEN, False, True)),
        ("the probe's client left", OPEN.probing(11.2).abandoned(11.2), 12.0,
         (State.HALF_OPEN, False, True)),
        ("somebody else's client left", OPEN.probing(11.2).abandoned(9.0), 12.0,
         (State.HALF_OPEN, False, False)),
        ("the probe failed", OPEN.probing(11.2).failed(11.5, 11.2), 13.4,
         (State.OPEN, False, False)),
        ("and its backoff, twice as long, ends", OPEN.probing(11.2).failed(11.5, 11.2), 13.5,
         (State.HALF_OPEN, False, True)),
        ("the probe was served", OPEN.probing(11.2).served(11.5, 11.2), 11.5,
         (State.CLOSED, True, False)),
        ("an answer to a call from before", OPEN.served(11.5, 9.0), 11.5,
         (State.HALF_OPEN, False, True)),
        ("an answer to a call begun as it opened", OPEN.served(11.5, 10.2), 11.5,
         (State.CLOSED, True, False)),
        ("failures of calls from before", failing(OPEN, 11.3, 11.4, 11.5, began_s=9.0), 11.5,
         (State.HALF_OPEN, False, True)),
        ("failures while open prolong nothing", failing(OPEN, 10.8, 10.9, 11.1), 11.2,
         (State.HALF_OPEN, False, True)),
        ("old failures after it closed",
         failing(OPEN.served(11.5, 11.2), 11.6, 11.7, 11.8, began_s=11.0), 11.8,
         (State.CLOSED, True, False)),
        ("drained", Health().drained(), 0.0, (State.CLOSED, False, False)),
        ("drained while half-open", OPEN.drained(), 12.0, (State.HALF_OPEN, False, False)),
        ("drained and resumed", Health().drained().resumed(), 0.0, (State.CLOSED, True, False)),
        ("resumed as ill as it was", OPEN.drained().resumed(), 10.5, (State.OPEN, False, False)),
    ],
)  # fmt: skip
def test_table(why, health, now_s, expected):
    found = (health.state(now_s), health.takes(now_s), health.may_probe(now_s))
    assert found == expected, why


def test_half_of_the_last_twenty_failing_opens_it_though_never_three_in_a_row():
    health, at = Health(), 0.0
    for call in range(20):
        assert health.takes(at), call
        at += 1.0
        health = health.failed(at) if call % 2 else health.served(at)
    assert health.state(at) is State.OPEN
    fewer = Health()
    for call in range(200):
        fewer = fewer.failed(float(call)) if call % 3 == 0 else fewer.served(float(call))
    assert fewer.takes(200.0)


def test_backoff_doubles_to_its_cap_and_is_forgotten_after_a_calm_time():
    health, at, waited = OPEN, 10.2, []
    for _ in range(7):
        waited.append(health.backoff_s)
        at += health.backoff_s
        health = health.probing(at).failed(at, at)
    assert waited == [1, 2, 4, 8, 16, 30, 30]
    at += 30
    health = health.probing(at).served(at, at)
    flapping = failing(health, at + 1, at + 2, at + 3)
    assert flapping.backoff_s == RULES.backoff_max_s
    calm = at + RULES.calm_s
    assert failing(health, calm, calm, calm).backoff_s == RULES.backoff_s
    assert replace(health, openings=10**6).backoff_s == RULES.backoff_max_s


def test_proof_is_lost_when_it_opens_and_won_by_an_answer():
    assert not Health().proven
    assert Health().served(1.0).proven
    assert failing(Health().served(1.0), 2.0, 3.0).proven
    assert not failing(Health().served(1.0), 2.0, 3.0, 4.0).proven
    assert OPEN.served(11.2, 11.2).proven
    assert OPEN.down_for_s(12.2) == 2.0
    assert Health().down_for_s(5.0) is None


@pytest.mark.parametrize(
    ("health", "now_s", "retry_s"),
    [
        (Health(), 5.0, None),
        (OPEN, 10.2, 1.0),
        (OPEN, 12.0, 0.0),
        (OPEN.probing(11.2), 12.2, 9.0),
        (OPEN.drained(), 12.0, None),
    ],
)
def test_when_a_probe_is_due(health, now_s, retry_s):
    assert health.retry_s(now_s) == (None if retry_s is None else pytest.approx(retry_s))


@pytest.mark.parametrize(
    ("why", "health", "now_s", "back", "asks"),
    [
        ("it never answered", Health(), 0.0, False, True),
        ("it has", Health().served(1.0), 2.0, False, False),
        ("it has, and its server was away", Health().served(1.0), 2.0, True, False),
        ("ejected", OPEN, 10.3, False, False),
        ("ejected, and its server is back", OPEN, 10.3, True, True),
        ("its backoff is over", OPEN, 11.2, False, True),
        ("a client's request is out to see", OPEN.probing(11.2), 11.3, False, False),
        ("drained", Health().drained(), 0.0, False, False),
        ("drained, and its server is back", OPEN.drained(), 12.0, True, False),
    ],
)
def test_when_the_router_asks_for_proof_itself(why, health, now_s, back, asks):
    assert health.asks_proof(now_s, back=back) is asks, why


class Life(RuleBasedStateMachine):
    """Any order of events: what must hold whatever happens to a replica."""

    @initialize(failures=st.integers(1, 4), calls=st.integers(4, 8))
    def born(self, failures, calls):
        self.rules = Rules(failures=failures, calls=calls, backoff_max_s=8.0)
        self.health = Health(self.rules)
        self.now_s = 0.0
        self.inside = []
        self.probes = {}
        self.row = 0

    @rule(passed_s=st.sampled_from([0.0, 0.5, 1.0, 3.0, 9.0, 40.0]))
    def time_passes(self, passed_s):
        self.now_s += passed_s

    @precondition(lambda self: self.health.takes(self.now_s))
    @rule()
    def a_request(self):
        self.inside.append(self.now_s)

    @precondition(lambda self: self.health.may_probe(self.now_s))
    @rule()
    def a_probe(self):
        live = [t for t in self.probes.values() if self.now_s < t + self.rules.probe_s]
        assert not live, "two probes at once"
        self.now_s += 0.001
        self.health = self.health.probing(self.now_s)
        self.probes[self.now_s] = self.now_s
        self.inside.append(self.now_s)

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 99), end=st.sampled_from(["served", "failed", "abandoned"]))
    def one_ends(self, which, end):
        began_s = self.inside.pop(which % len(self.inside))
        before, self.now_s = self.health, self.now_s + 0.001
        probe = self.probes.pop(began_s, None)
        if end == "abandoned":
            self.health = before.abandoned(began_s)
            assert self.health.state(self.now_s) is before.state(self.now_s)
            return
        self.health = getattr(before, end)(self.now_s, began_s)
        if probe is not None and before.opened_s is not None and before.opened_s <= began_s:
            after = self.health.state(self.now_s)
            assert after is (State.CLOSED if end == "served" else State.OPEN)
        if self.health.opened_s != before.opened_s:
            self.row = 0
            if self.health.opened_s is None:
                assert end == "served"
            else:
                assert end == "failed"
                # A loser of the last opening says nothing of a later one.
                self.probes.clear()
        elif self.health.opened_s is None:
            new = before.closed_s is None or began_s >= before.closed_s
            if end == "served":
                self.row = 0
            elif new:
                self.row += 1

    @rule()
    def drained(self):
        self.health = self.health.drained()

    @rule()
    def resumed(self):
        self.health = self.health.resumed()

    @invariant()
    def holds(self):
        health, now_s = self.health, self.now_s
        assert not (health.takes(now_s) and health.may_probe(now_s))
        if health.draining:
            assert not health.takes(now_s)
            assert not health.may_probe(now_s)
        if health.opened_s is not None:
            assert health.openings >= 1
            assert self.rules.backoff_s <= health.backoff_s <= self.rules.backoff_max_s
            if now_s < health.opened_s + health.backoff_s:
                assert not health.may_probe(now_s)
            if not health.draining:
                due_s = health.retry_s(now_s)
                assert health.may_probe(now_s + due_s + 1e-6), "it can always come back"
        else:
            assert self.row < self.rules.failures
            assert len(health.lately) <= self.rules.calls


TestLife = Life.TestCase
