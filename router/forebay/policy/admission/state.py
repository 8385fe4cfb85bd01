"""What admission knows: targets, replicas and who waits for them, clouds, classes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from forebay.policy.admission.exits import Exits
from forebay.policy.admission.feedback import ClassFeedback
from forebay.policy.admission.memory import Memory
from forebay.policy.admission.pool import Pool
from forebay.policy.admission.queue import Queue
from forebay.values import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Place, Terms, Ticket

HELD_UP = 0.25
"""The share of an answer's time from which on its client's pace is what was measured."""


class State:
    """All that a decision is made from."""

    def __init__(
        self, places: Iterable[Place], tiers: Mapping[str, float], outside: Outside
    ) -> None:
        self.places = {place.target: place for place in places}
        self.exits = Exits(self.places, outside)
        self.pools = {p.pool: Pool(Queue(tiers)) for p in self.places.values() if p.pool}
        self.by_class: Counter[str] = Counter()
        self.by_target: Counter[str] = Counter()
        self.classes: dict[str, ClassFeedback] = {}
        self.memory = Memory()

    def pool(self, target: str) -> Pool | None:
        """Return the pool of a target; None for a cloud, and for what cannot be called."""
        place = self.places.get(target)
        return None if place is None else self.pools.get(place.pool)

    def barred(self, ask: Ask, target: str, usd: float, now_s: float) -> Reason | None:
        """Return why a request may not spill to a target for about `usd`, or None."""
        pool = self.pool(target)
        if pool is not None and not pool.up(now_s):
            return Reason.ENGINE_DOWN
        return self.exits.barred(ask, self.learnt(ask.terms), target, usd, now_s)

    def full(self, terms: Terms) -> bool:
        """Return whether a class has as many requests in flight as it may."""
        most = terms.max_inflight
        return most is not None and self.by_class[terms.route] >= most

    def learnt(self, terms: Terms) -> ClassFeedback:
        """Return what a class has learnt, in this life or the one before."""
        learnt = self.classes.get(terms.route)
        if learnt is None:
            kept = self.memory.classes.get(terms.route)
            if kept is None:
                learnt = ClassFeedback(terms.attainment)
            else:
                learnt = kept.feedback(terms.attainment)
            self.classes[terms.route] = learnt
        return learnt

    def given_up(self, ticket: Ticket, now_s: float) -> None:
        """Take in that a client left before its first token: too late, if that was overdue."""
        ask, learnt = ticket.ask, self.learnt(ticket.ask.terms)
        if ask.terms.ttft_s is None or now_s - ask.arrived_s <= ask.terms.ttft_s:
            return
        if ticket.replica is None:
            learnt.cloud_answered(missed=True)
        else:
            learnt.ttft.learn(now_s, missed=True, allowed=learnt.allowed() / ask.terms.promises)

    def learn(self, ticket: Ticket, first_s: float, now_s: float, reader_s: float = 0.0) -> None:
        """Take in how long an answer took, and whether that was as promised.

        One that its client held up, for `reader_s`, says nothing of who gave it.
        """
        ask, terms = ticket.ask, ticket.ask.terms
        learnt, later = self.learnt(terms), ticket.tokens - 1
        tpot_s = (ticket.last_s - first_s) / later if later > 0 else None
        late_first = terms.ttft_s is not None and first_s - ask.arrived_s > terms.ttft_s
        slow = terms.tpot_s is not None and tpot_s is not None and tpot_s > terms.tpot_s
        late = slow or (terms.e2e_s is not None and now_s - ask.arrived_s > terms.e2e_s)
        learnt.answered(ticket.tokens)
        if reader_s > HELD_UP * (now_s - ticket.placed_s):
            return
        if ticket.replica is None:
            self.exits.clouds[ticket.target].saw(first_s - ticket.placed_s, tpot_s, now_s)
            learnt.cloud_answered(missed=late_first or late)
            return
        allowed = learnt.allowed() / terms.promises
        if tpot_s is not None:
            ticket.replica.paced(ticket, tpot_s)
        learnt.ttft.learn(now_s, missed=late_first, allowed=allowed)
        learnt.rate.learn(now_s, missed=late, allowed=allowed)
