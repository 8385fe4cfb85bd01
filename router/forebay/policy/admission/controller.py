"""Admission: events in, decisions out. Nothing here waits, and time is always an argument.

A driver (the router's event loop, or the simulator's) tells what happens and asks for decisions:

    ticket = controller.ask(ask, now_s)                 # a request stands before a rung
    for ticket, placement in controller.drain(now_s):   # after each event, and at `due_s()`
        ...
    controller.tokens(ticket, 1, now_s); controller.ended(ticket, "served", now_s)

A request is bound to a replica as late as its promise allows: until then it waits here, in the
order of `queue.py`, and each event tries only the few who are next. Its last moment, `leave_s`,
is when a cloud could still keep the promise; then it leaves, by the rule in `decide.py`.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from forebay.policy.admission import decide
from forebay.policy.admission.model import mean
from forebay.policy.admission.outside import Open
from forebay.policy.admission.replica import Replica
from forebay.policy.admission.state import State
from forebay.policy.admission.terms import Offer, Ticket
from forebay.values import Admit, Downgrade, Placement, Queue, Reason, Spill

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forebay.policy.admission.judge import Look
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Outcome, Place, ReplicaSpec
    from forebay.values import Scrape

GUARD_S = 600.0
"""How long after a request that may not leave the KV reserve is kept for the next one."""

MAX_WAITING = 1024
"""Requests that may wait for one pool; the next one leaves at once."""

REFIT_S = 2.0
"""How often engines' speeds are learnt anew."""


class Controller:
    """Admission in one router; only one thread may call it."""

    def __init__(
        self,
        places: Iterable[Place],
        *,
        tiers: Mapping[str, float] | None = None,
        outside: Outside | None = None,
    ) -> None:
        """Know all targets; replicas join later.

        Args:
            places: Every target that may be asked for.
            tiers: Weights of user tiers in the queue; a tier not named has weight 1.
            outside: What may bar a cloud.
        """
        self.state = State(places, tiers or {}, outside or Open())
        self._timers: list[tuple[float, int, Ticket]] = []
        self._dirty: set[str] = set()
        self._number = 0
        self._refit_s = float("-inf")

    # ---- the fleet ----------------------------------------------------------------------

    def join(self, spec: ReplicaSpec, now_s: float) -> Replica:
        """Add a replica to its pool; requests that wait may go there from now on.

        It is taken to be as fast as those that are there have turned out to be.
        """
        pool = self.state.pools[spec.pool]
        others = [one.coefficients for one in pool.replicas.values() if one.learnt]
        replica = Replica(spec, now_s)
        if others:
            replica.coefficients = mean(others)
        pool.replicas[spec.name] = replica
        self._dirty.add(spec.pool)
        return replica

    def leave(self, replica: Replica) -> None:
        """Take a replica out; what runs there goes on, and ends as it ends."""
        self.state.pools[replica.spec.pool].replicas.pop(replica.spec.name, None)

    def scraped(self, replica: Replica, scrape: Scrape, own_at_poll: int) -> None:
        """Take in what a replica's metrics said, `own_at_poll` of its requests being ours."""
        replica.scraped(scrape, own_at_poll)
        self._dirty.add(replica.spec.pool)

    def changed(self, replica: Replica) -> None:
        """Note that a replica came up, went down or is drained."""
        self._dirty.add(replica.spec.pool)

    def refit(self, now_s: float) -> None:
        """Learn engines' speeds anew, where that is due; call it between requests."""
        if now_s - self._refit_s < REFIT_S:
            return
        self._refit_s = now_s
        for name, pool in self.state.pools.items():
            for replica in pool.replicas.values():
                if replica.refit():
                    self._dirty.add(name)

    # ---- one request --------------------------------------------------------------------

    def ask(self, ask: Ask, now_s: float) -> Ticket:
        """Return a ticket that the next `drain` decides, or lets wait."""
        self._number += 1
        ticket = Ticket(ask, self._number, self._leave_s(ask, now_s), ask.target)
        pool = self.state.pool(ask.target)
        if pool is not None:
            if ask.terms.spill_to is None:
                pool.guarded_until_s = now_s + GUARD_S
            if len(pool.queue) >= MAX_WAITING:
                ticket.why, ticket.leave_s = Reason.WAITING_FULL, now_s
            pool.queue.push(ticket)
            self._dirty.add(self.state.places[ask.target].pool)
        heappush(self._timers, (ticket.leave_s, ticket.number, ticket))
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Take a ticket out of its queue: its client left, or it waits no longer."""
        pool = self.state.pool(ticket.ask.target)
        if ticket.state == "waiting":
            ticket.state = "gone"
            if pool is not None:
                pool.queue.remove(ticket)

    def tokens(self, ticket: Ticket, count: int, now_s: float) -> None:
        """Note `count` further tokens of an answer; the first call is its first token."""
        replica, later = ticket.replica, count
        if ticket.first_s is None:
            ticket.first_s, later = now_s, count - 1
            if replica is not None:
                replica.first(ticket, now_s)
                self._dirty.add(replica.spec.pool)
        elif replica is not None:
            replica.later(ticket, later, now_s)
        ticket.tokens += count
        ticket.last_s = now_s

    def ended(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        """Note how an answer ended; only one that was served says how fast its place is."""
        state, replica = self.state, ticket.replica
        ticket.state = "gone"
        state.by_class[ticket.ask.terms.route] -= 1
        state.by_target[ticket.target] -= 1
        if replica is not None:
            replica.remove(ticket, now_s)
            replica.judged(ticket, outcome, now_s)
            self._dirty.add(replica.spec.pool)
        else:
            state.exits.clouds[ticket.target].inflight -= 1
        if outcome == "served" and ticket.first_s is not None:
            state.learn(ticket, ticket.first_s, now_s)

    # ---- decisions ----------------------------------------------------------------------

    @property
    def stirred(self) -> bool:
        """Whether something happened after which one more may be placed."""
        return bool(self._dirty)

    def due_s(self) -> float | None:
        """Return when `drain` must be called though nothing happens, or None."""
        timers = self._timers
        while timers and timers[0][2].state != "waiting":
            heappop(timers)
        return timers[0][0] if timers else None

    def drain(self, now_s: float) -> list[tuple[Ticket, Placement]]:
        """Return what was decided; who is not in it waits on."""
        decided: list[tuple[Ticket, Placement]] = []
        while self._dirty:
            pool = self.state.pools[self._dirty.pop()]
            while (found := decide.next_placed(self.state, pool, now_s)) is not None:
                decided.append(self._take(*found, now_s))
        while (due_s := self.due_s()) is not None and due_s <= now_s:
            ticket = self._timers[0][2]
            self.forget(ticket)
            decided.append(self._take(ticket, decide.last(self.state, ticket, now_s), now_s))
        return decided

    def offer(self, ask: Ask, now_s: float) -> Offer:
        """Return what would be decided on `ask` now; nothing is reserved, nothing learnt."""
        state = self.state
        ticket = Ticket(ask, 0, self._leave_s(ask, now_s), ask.target)
        placement = decide.last(state, ticket, now_s).placement
        if state.pool(ask.target) is None:
            placement = decide.cloud_in_time(state, ask, placement, now_s)
        elif ticket.why is not None and ticket.leave_s > now_s:
            placement = Queue(ask.target, ticket.why, ticket.leave_s - now_s)
        return Offer(placement, state.exits.usd(ask, state.learnt(ask.terms), ask.target))

    def _leave_s(self, ask: Ask, now_s: float) -> float:
        pool = self.state.pool(ask.target)
        replica = next(iter(pool.replicas.values()), None) if pool else None
        if replica is None or ask.prompt_tokens > ask.room_tokens:
            return now_s
        idle = replica.idle(ask.prompt_tokens)
        return self.state.exits.leave_s(ask, self.state.learnt(ask.terms), idle, now_s)

    def _take(
        self, ticket: Ticket, found: decide.Verdict, now_s: float
    ) -> tuple[Ticket, Placement]:
        """Reserve what a decision gives."""
        self.forget(ticket)
        state, ask, placement = self.state, ticket.ask, found.placement
        learnt = state.learnt(ask.terms)
        if isinstance(placement, Spill):
            learnt.asked(ask.prompt_tokens, spilled=True)
        if isinstance(placement, Admit | Downgrade):
            ticket.state, ticket.target, ticket.placed_s = "placed", placement.target, now_s
            state.by_class[ask.terms.route] += 1
            state.by_target[ticket.target] += 1
            if found.look is None:
                usd = state.exits.usd(ask, learnt, ticket.target)
                state.exits.sent(ask, ticket.target, usd, now_s)
            else:
                learnt.asked(ask.prompt_tokens, spilled=False)
                self._place(ticket, found.look, now_s)
        return ticket, placement

    def _place(self, ticket: Ticket, look: Look, now_s: float) -> None:
        replica, learnt = look.replica, self.state.learnt(ticket.ask.terms)
        pool = self.state.pools[replica.spec.pool]
        ticket.replica = replica
        ticket.expected_s = now_s + look.ahead.ttft_s
        replica.place(ticket, look.prefill, now_s)
        c = replica.coefficients
        pool.queue.charge(ticket, c.d_s * look.prefill + c.b_s * learnt.mean_tokens)
        pool.placed(now_s)
