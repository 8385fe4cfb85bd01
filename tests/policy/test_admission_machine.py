"""Whatever happens, in whatever order: nothing is lost, counted twice or promised twice."""

import math
from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from policy.scene import CHAT, PLAIN, PRIVATE, SPEED, ask, scene

from forebay.policy.admission import ReplicaSpec
from forebay.policy.admission.controller import SPARE_TIMERS
from forebay.values import Admit, Downgrade, Refuse, Scrape, Spill

KINDS = (
    CHAT,
    PRIVATE,
    PLAIN,
    replace(CHAT, route="few", max_inflight=2),
    replace(PRIVATE, route="batch", ttft_s=None, tpot_s=None, e2e_s=60.0, downgrade_to="small"),
    replace(PLAIN, route="patient", wait_s=2.0),
)
SPEC = ReplicaSpec("", "local", 4_000, 4, 256, SPEED)

LONGEST_WAITS = 8
"""After so many times 100 s nobody waits any more, whatever ends meanwhile."""


class Admissions(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.made = scene(tiers={"gold": 3.0}, kv_tokens=4_000, max_batch=4)
        self.made.join(replace(SPEC, name="s0", pool="small"), 0.0)
        self.now_s = 0.0
        self.asked, self.joined = 0, 1
        self.waiting, self.placed = set(), []
        self.replicas = [r for p in self.made.state.pools.values() for r in p.replicas.values()]

    # ---- the driver's part ----------------------------------------------------------------

    def drain(self):
        while (found := self.made.next_decision(self.now_s)) is not None:
            self.take(*found)

    def take(self, ticket, found):
        assert ticket in self.waiting, "decided twice, or after its client left"
        assert self.now_s <= ticket.leave_s + 1e-9, "decided after its last moment"
        self.waiting.remove(ticket)
        assert isinstance(found, Admit | Downgrade | Spill | Refuse)
        if isinstance(found, Admit | Downgrade):
            self.placed.append(ticket)
            self.check_room(ticket)
        elif isinstance(found, Spill):
            terms = replace(ticket.ask.terms, spill_to=None)
            self.ask(replace(ticket.ask, target=found.target, terms=terms))

    def check_room(self, ticket):
        replica = ticket.replica
        if replica is not None and replica.inside > 1 and ticket.ask.terms.promised:
            assert replica.reserved + replica.foreign_kv <= replica.spec.kv_tokens
            assert replica.inside <= replica.spec.max_batch

    def ask(self, asked):
        self.waiting.add(self.made.ask(asked, self.now_s))

    # ---- what may happen ------------------------------------------------------------------

    @rule(
        terms=st.sampled_from(KINDS),
        where=st.sampled_from(["local", "local", "local", "small", "cloud"]),
        prompt=st.integers(1, 5_000),
        most=st.integers(1, 3_000),
        tier=st.sampled_from(["", "gold", "made up"]),
        late_s=st.sampled_from([0.0, 0.0, 0.5, 70.0]),
        deadline_s=st.sampled_from([None, None, -1.0, 0.3]),
        start=st.integers(0, 3),
    )
    def arrives(self, terms, where, prompt, most, tier, late_s, deadline_s, start):
        if where == "cloud":
            terms = replace(terms, spill_to=None)
        self.asked += 1
        self.ask(
            ask(
                terms, prompt=prompt, most=most, at=self.now_s - late_s, target=where, tier=tier,
                deadline_s=None if deadline_s is None else self.now_s + deadline_s,
                blocks=tuple(range(start, start + prompt // 64)), name=str(self.asked),
                room_tokens=4_500,
            )
        )  # fmt: skip
        self.drain()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 1.0, 7.0, 400.0]))
    def time_passes(self, seconds):
        until_s = self.now_s + seconds
        while (due_s := self.made.due_s()) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.drain()
        self.now_s = until_s
        self.made.refit(self.now_s)
        self.drain()

    @precondition(lambda self: self.placed)
    @rule(number=st.integers(0, 1000), count=st.integers(0, 40))
    def tokens_come(self, number, count):
        self.made.tokens(self.placed[number % len(self.placed)], count, self.now_s)
        self.drain()

    @precondition(lambda self: self.placed)
    @rule(number=st.integers(0, 1000), outcome=st.sampled_from(["served", "failed", "cancelled"]))
    def one_ends(self, number, outcome):
        ticket = self.placed.pop(number % len(self.placed))
        self.made.ended(ticket, outcome, self.now_s)
        self.made.ended(ticket, outcome, self.now_s)
        self.made.tokens(ticket, 3, self.now_s)
        self.drain()

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 1000))
    def a_client_leaves(self, number):
        ticket = sorted(self.waiting, key=lambda t: t.number)[number % len(self.waiting)]
        self.waiting.remove(ticket)
        self.made.forget(ticket)
        self.made.forget(ticket)
        self.drain()

    @rule(number=st.integers(0, 9), active=st.integers(0, 9), waiting=st.integers(0, 3),
          used=st.floats(0, 1))  # fmt: skip
    def metrics_come(self, number, active, waiting, used):
        replica = self.replicas[number % len(self.replicas)]
        scrape = Scrape(self.now_s, active=active, waiting=waiting, kv_used=used)
        self.made.scraped(replica, scrape, min(active, replica.own))
        self.drain()

    @rule(drains=st.booleans(), number=st.integers(0, 9))
    def one_is_drained_or_resumed(self, drains, number):
        replica = self.replicas[number % len(self.replicas)]
        health = replica.health
        replica.health = health.drained() if drains else health.resumed()
        self.made.changed(replica)
        self.drain()

    @precondition(lambda self: self.joined < 8)
    @rule()
    def one_joins(self):
        name = f"r{self.joined}"
        self.joined += 1
        self.replicas.append(self.made.join(replace(SPEC, name=name), self.now_s))
        self.drain()

    @rule(number=st.integers(0, 9))
    def one_goes(self, number):
        self.made.leave(self.replicas[number % len(self.replicas)])
        self.drain()

    @rule(terms=st.sampled_from(KINDS), where=st.sampled_from(["local", "small", "cloud"]))
    def somebody_looks(self, terms, where):
        before = self.counted()
        self.made.offer(ask(terms, target=where, at=self.now_s), self.now_s)
        assert self.counted() == before

    def counted(self):
        state = self.made.state
        return (
            +state.by_class, +state.by_target, self.made.stirred,
            [(len(p.queue), p.guarded_until_s) for p in state.pools.values()],
            [(r.health, r.own, r.reserved, r.coefficients) for r in self.replicas],
        )  # fmt: skip

    # ---- what always holds ----------------------------------------------------------------

    @invariant()
    def counters_say_who_is_inside(self):
        state = self.made.state
        assert +state.by_class == Counter(t.ask.terms.route for t in self.placed)
        assert +state.by_target == Counter(t.target for t in self.placed)
        assert min([0, *state.by_class.values(), *state.by_target.values()]) == 0
        clouds = sum(t.replica is None for t in self.placed)
        assert state.exits.clouds["cloud"].inflight == clouds
        assert sum(len(p.queue) for p in state.pools.values()) == len(self.waiting)

    @invariant()
    def replicas_know_what_they_have(self):
        for replica in self.replicas:
            inside = {t for t in self.placed if t.replica is replica}
            assert replica.running.keys() | replica.line.pending.keys() == inside
            assert replica.reserved == sum(t.ask.prompt_tokens + t.ask.max_tokens for t in inside)
            running = replica.running
            assert replica.kv == sum(t.ask.prompt_tokens + t.tokens - 1 for t in running)
            pending = replica.line.pending
            assert replica.line.prompt_tokens == sum(t.ask.prompt_tokens for t in pending)
            assert 0 <= replica.line.taken <= replica.line.sent
            promised = [t for t in inside if t.ask.terms.tpot_s is not None]
            assert replica.tightest_s == min((t.tight_s for t in promised), default=math.inf)
            assert all(0 < t.tight_s <= t.ask.terms.tpot_s for t in promised)
            assert replica.probe is None or replica.probe in running

    @invariant()
    def nobody_waits_too_long(self):
        assert all(t.leave_s > self.now_s for t in self.waiting)
        assert len(self.made._timers) <= 2 * len(self.waiting) + SPARE_TIMERS + 2

    def teardown(self):
        while self.placed:
            self.one_ends(0, "served")
        for _ in range(LONGEST_WAITS):
            self.time_passes(100.0)
            while self.placed:
                self.one_ends(0, "cancelled")
        assert not self.waiting
        self.counters_say_who_is_inside()
        self.replicas_know_what_they_have()
        assert self.made.due_s() is None


Admissions.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestAdmissions = Admissions.TestCase
