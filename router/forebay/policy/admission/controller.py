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

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from forebay.policy.admission import decide
from forebay.policy.admission.judge import caution, pace
from forebay.policy.admission.outside import Open
from forebay.policy.admission.replica import Replica
from forebay.policy.admission.state import State
from forebay.policy.admission.terms import Offer, Ticket
from forebay.values import Admit, Downgrade, Placement, Queue, Reason, Refuse, Spill

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forebay.policy.admission.judge import Look
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Outcome, Place, ReplicaSpec
    from forebay.values import Scrape

GUARD_S = 600.0
"""How long after a request that may not leave the KV reserve is kept for the next one."""

MAX_WAITING = 1024
"""Requests of one tier that may wait for a pool, of each level of its queue; the next one leaves at
once."""

UNPROMISED_WAIT_S = 30.0
"""How long one waits that is promised nothing and states no wait, where the slots of its engines
are kept for those that are promised something; only then is it paid for elsewhere."""

REFITS = 8
"""How many engines one call learns the speed of: each takes about a third of a millisecond."""

SPARE_TIMERS = 1024
"""Timers of requests that wait no more, kept until they are so many more than half of all."""

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
            tiers: Weights of user tiers in the queue; those not named share one of weight 1.
            outside: What may bar a cloud.
        """
        self.state = State(places, tiers or {}, outside or Open())
        self._timers: list[tuple[float, int, Ticket]] = []
        self._dirty: dict[str, None] = {}
        self._number = 0
        self._refit_s = float("-inf")
        self._unfitted: list[Replica] = []

    # ---- the fleet ----------------------------------------------------------------------

    def join(self, spec: ReplicaSpec, now_s: float) -> Replica:
        """Add a replica to its pool; requests that wait may go there from now on.

        It is taken to be as fast as those that are there have turned out to be, or the last one
        that was.
        """
        pool = self.state.pools[spec.pool]
        replica = Replica(spec, now_s)
        if (speed := pool.speed()) is not None:
            replica.begin(speed)
        pool.put(replica)
        self._stir(spec.pool)
        return replica

    def leave(self, replica: Replica) -> None:
        """Take a replica out; what runs there goes on, and ends as it ends."""
        self.state.pools[replica.spec.pool].take(replica)
        self._stir(replica.spec.pool)

    def scraped(self, replica: Replica, scrape: Scrape, own_at_poll: int) -> None:
        """Take in what a replica's metrics said, `own_at_poll` of its requests being ours."""
        replica.scraped(scrape, own_at_poll)
        self._touched(replica)

    def changed(self, replica: Replica) -> None:
        """Note that a replica came up, went down or is drained."""
        self._touched(replica)

    def refit(self, now_s: float) -> None:
        """Learn engines' speeds anew, a few at a time, where due; call it between requests."""
        if not self._unfitted and now_s - self._refit_s >= REFIT_S:
            self._refit_s = now_s
            self._unfitted = [
                r for pool in self.state.pools.values() for r in pool.replicas.values()
            ]
        left = REFITS
        while self._unfitted and left:
            replica = self._unfitted.pop()
            if replica.refit(now_s):
                self._touched(replica)
                left -= 1

    # ---- one request --------------------------------------------------------------------

    def ask(self, ask: Ask, now_s: float) -> Ticket:
        """Return a ticket that the next `drain` decides, or lets wait."""
        self._number += 1
        ticket = self._ticket(ask, self._number, now_s)
        pool = self.state.pool(ask.target)
        if pool is not None:
            if ask.terms.stays:
                pool.guarded_until_s = now_s + GUARD_S
            if ask.terms.promised:
                pool.promised_until_s = now_s + GUARD_S
            waits = ticket.why is not Reason.WAITING_FULL
            if waits and pool.queue.push(ticket) < decide.LOOK:
                self._stir(self.state.places[ask.target].pool)
        self._time(ticket)
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Take a ticket out of its queue: its client left, or it waits no longer."""
        pool = self.state.pool(ticket.ask.target)
        if ticket.state == "waiting":
            ticket.state = "gone"
            if pool is not None:
                pool.queue.remove(ticket)
                # Only the first few are looked at: who stood behind it may be one of them now.
                self._stir(self.state.places[ticket.ask.target].pool)

    def tokens(self, ticket: Ticket, count: int, now_s: float) -> None:
        """Note `count` further tokens of an answer; the first call brings its first token."""
        replica = ticket.replica
        if count < 1 or ticket.state != "placed":
            return
        if ticket.first_s is None:
            ticket.first_s = now_s
            if replica is not None:
                replica.first(ticket, count, now_s)
                self._touched(replica)
            else:
                self.state.exits.spoke(ticket.target, ticket.placed_s, now_s)
        elif replica is not None:
            replica.later(ticket, count, now_s)
        ticket.tokens += count
        ticket.last_s = now_s

    def ended(
        self, ticket: Ticket, outcome: Outcome, now_s: float, *, reader_s: float = 0.0
    ) -> None:
        """Note how an answer ended; only one that was served says how fast its place is.

        For `reader_s` of its time the client was waited for.
        """
        state, replica = self.state, ticket.replica
        if ticket.state != "placed":
            return
        ticket.state = "gone"
        state.by_class[ticket.ask.terms.route] -= 1
        state.by_target[ticket.target] -= 1
        if replica is not None:
            replica.remove(ticket, now_s)
            replica.judged(ticket, outcome, now_s)
            self._touched(replica)
        else:
            state.exits.ended(ticket.target, outcome, ticket.placed_s, now_s)
        if ticket.ask.terms.max_inflight is not None:
            # One of its class may wait for a pool that nothing else happens to.
            for name, pool in state.pools.items():
                pool.freed()
                self._stir(name)
        if outcome == "served" and ticket.first_s is not None:
            state.learn(ticket, ticket.first_s, now_s, reader_s)
        elif outcome == "cancelled" and ticket.first_s is None:
            state.given_up(ticket, now_s)

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
        while (found := self.next_decision(now_s)) is not None:
            decided.append(found)
        return decided

    def next_decision(self, now_s: float) -> tuple[Ticket, Placement] | None:
        """Return the next decision, or None where nothing can be decided now."""
        while True:
            while self._dirty:
                name, _ = self._dirty.popitem()
                found = decide.next_placed(self.state, self.state.pools[name], now_s)
                if found is not None:
                    self._stir(name)
                    return self._take(*found, now_s)
            if (due_s := self.due_s()) is None or due_s > now_s:
                return None
            _, _, ticket = heappop(self._timers)
            self.forget(ticket)
            later_s = self._later_s(ticket, now_s)
            if later_s <= now_s:
                return self._take(ticket, decide.last(self.state, ticket, now_s), now_s)
            self._wait_on(ticket, later_s)

    def offer(self, ask: Ask, now_s: float) -> Offer:
        """Return what would be decided on `ask` now; nothing is reserved, nothing learnt."""
        state = self.state
        ticket = self._ticket(ask, 0, now_s)
        placement = decide.last(state, ticket, now_s).placement
        if state.pool(ask.target) is None:
            placement = decide.cloud_in_time(state, ask, placement, now_s)
        elif ticket.why not in (None, Reason.ENGINE_DOWN) and ticket.leave_s > now_s:
            placement = Queue(ask.target, ticket.why, ticket.leave_s - now_s)
        return Offer(placement, state.exits.usd(ask, state.learnt(ask.terms), ask.target))

    def others(self, target: str, than: frozenset[str], now_s: float) -> bool:
        """Return whether a replica of a target can be called that is none of these."""
        pool = self.state.pool(target)
        return pool is not None and any(
            one.able(now_s) for name, one in pool.replicas.items() if name not in than
        )

    def _ticket(self, ask: Ask, number: int, now_s: float) -> Ticket:
        """Return a ticket with the time at which it leaves; at once where too many wait."""
        pool = self.state.pool(ask.target)
        if pool is not None and pool.queue.waiting(ask) >= MAX_WAITING:
            return Ticket(ask, number, now_s, ask.target, why=Reason.WAITING_FULL)
        return Ticket(ask, number, self._leave_s(ask, now_s), ask.target)

    def _time(self, ticket: Ticket) -> None:
        """Set a ticket's timer, and drop those of the dead once they are the most."""
        timers = self._timers
        waiting = sum(len(pool.queue) for pool in self.state.pools.values())
        if len(timers) > 2 * waiting + SPARE_TIMERS:
            timers[:] = [entry for entry in timers if entry[2].state == "waiting"]
            heapify(timers)
        heappush(timers, (ticket.leave_s, ticket.number, ticket))

    def _touched(self, replica: Replica) -> None:
        """Note that something happened to a replica, after which one more may be placed there."""
        self.state.pools[replica.spec.pool].touched(replica)
        self._stir(replica.spec.pool)

    def _stir(self, pool: str) -> None:
        """Note that somebody of a pool may be placed now."""
        self._dirty[pool] = None

    def _leave_s(self, ask: Ask, now_s: float) -> float:
        """Return when a request waits no longer; at once where nothing could serve it."""
        state, terms = self.state, ask.terms
        pool = state.pool(ask.target)
        if pool is None or not pool.replicas or ask.prompt_tokens > ask.room_tokens:
            return now_s
        learnt = state.learnt(terms)
        idle = min(one.idle(ask.prompt_tokens) for one in pool.some(now_s))
        if not terms.promised and terms.wait_s is None and now_s < pool.promised_until_s:
            return state.exits.unpromised_s(ask, UNPROMISED_WAIT_S, idle[0], now_s)
        elsewhere = None if terms.spill_to is None else state.pool(terms.spill_to)
        if elsewhere is not None and elsewhere.up(now_s):
            spare = min(pace(ask, one, learnt, now_s) for one in elsewhere.some(now_s))
            return state.exits.leave_s(ask, learnt, idle, now_s, spare)
        return state.exits.leave_s(ask, learnt, idle, now_s)

    def _later_s(self, ticket: Ticket, now_s: float) -> float:
        """Return until when a request may wait yet that nobody else would take now."""
        ask, spill_to = ticket.ask, ticket.ask.terms.spill_to
        if spill_to is None or ticket.why is Reason.WAITING_FULL:
            return now_s
        usd = self.state.exits.usd(ask, self.state.learnt(ask.terms), spill_to)
        barred = self.state.barred(ask, spill_to, usd, now_s)
        return now_s if barred is None else self._leave_s(ask, now_s)

    def _wait_on(self, ticket: Ticket, leave_s: float) -> None:
        """Let a request that was to leave wait longer, in the place that it then has."""
        ticket.state, ticket.leave_s = "waiting", leave_s
        self.state.pools[self.state.places[ticket.ask.target].pool].queue.push(ticket)
        self._time(ticket)

    def _take(
        self, ticket: Ticket, found: decide.Verdict, now_s: float
    ) -> tuple[Ticket, Placement]:
        """Reserve what a decision gives."""
        self.forget(ticket)
        state, ask, placement = self.state, ticket.ask, found.placement
        learnt = state.learnt(ask.terms)
        if isinstance(placement, Spill | Refuse):
            learnt.turned_away(now_s)
        if isinstance(placement, Spill):
            state.exits.promise(ask, placement.target, now_s)
            if state.pool(ask.target) is not None:
                learnt.placed(spilled=True)
        if isinstance(placement, Admit | Downgrade):
            ticket.state, ticket.target, ticket.placed_s = "placed", placement.target, now_s
            state.by_class[ask.terms.route] += 1
            state.by_target[ticket.target] += 1
            if found.look is None:
                usd = state.exits.usd(ask, learnt, ticket.target)
                state.exits.sent(ask, ticket.target, usd, now_s)
            else:
                learnt.placed(spilled=False)
                self._place(ticket, found.look, now_s)
        return ticket, placement

    def _place(self, ticket: Ticket, look: Look, now_s: float) -> None:
        replica, learnt = look.replica, self.state.learnt(ticket.ask.terms)
        pool = self.state.pools[replica.spec.pool]
        ticket.replica = replica
        ticket.expected_s = now_s + look.ttft_s
        ticket.expected_tpot_s = look.tpot_s
        replica.place(ticket, look.prefill, caution(replica, learnt, now_s), now_s)
        pool.homes.sent(ticket.ask.blocks, replica.spec.name)
        c = replica.coefficients
        pool.queue.charge(ticket, c.d_s * look.prefill + c.b_s * learnt.mean_tokens)
        pool.placed(now_s)
