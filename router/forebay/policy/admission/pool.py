"""Replicas that serve the same targets, who waits for them, and the few that are looked at next.

A decision looks at `CANDIDATES` replicas, however many there are: the least loaded. Where many
requests wait, and something happens all the time, they are found as it goes: those that were least
loaded a moment ago, those that something happened to since, and a few others in turn. So nothing is
done for all replicas at each decision, and none is passed over for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from typing import TYPE_CHECKING

from forebay.policy.admission.affinity import Homes
from forebay.policy.admission.judge import Reserves
from forebay.policy.admission.model import mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.policy.admission.model import Speed
    from forebay.policy.admission.queue import Queue
    from forebay.policy.admission.replica import Replica
    from forebay.policy.admission.terms import Ticket

CANDIDATES = 4
"""Replicas that a request is held against: the least loaded known, the last of them in turn, so
that no few can stand before all the others however they are ranked."""

OTHERS = 2
"""Replicas that each look compares with those that were least loaded."""

FEW = 8
"""Where no more requests wait, all replicas are compared: the next look may be long to come."""

CROWDED = 0.9
"""A replica with so much of its KV cache promised, or without a slot, ranks behind the others."""

KEPT_AFTER = 0.5
"""The share of its time that one who may not leave waits before a replica empties for it."""

KEPT_SHARE = 0.25
"""So many of a pool's replicas may empty at once, and one in any case."""

LONGEST_RETRY_S = 60.0


@dataclass(slots=True)
class Pool:
    """Replicas of one kind, and their queue.

    Until `guarded_until_s` some KV cache is kept for classes that may not leave, and until
    `promised_until_s` slots are for classes that are promised something. `gap_s` is the mean time
    between two placements while somebody waits. `known` is how fast the last replica was.
    """

    queue: Queue
    replicas: dict[str, Replica] = field(default_factory=dict)
    homes: Homes = field(default_factory=Homes)
    guarded_until_s: float = float("-inf")
    promised_until_s: float = float("-inf")
    known: Speed | None = None
    gap_s: float = 1.0
    _gap_began_s: float | None = None
    _ring: list[Replica] = field(default_factory=list)
    _turn: int = 0
    _near: dict[Replica, None] = field(default_factory=dict)
    _tried: set[Ticket] = field(default_factory=set)
    _tried_s: float = 0.0

    # ---- replicas -------------------------------------------------------------------------

    def put(self, replica: Replica) -> None:
        """Take a replica in, in place of one of its name."""
        self.replicas[replica.spec.name] = replica
        self._changed()

    def take(self, replica: Replica) -> None:
        """Take a replica out, if it is in."""
        if self.replicas.get(replica.spec.name) is replica:
            self.known = self.speed()
            del self.replicas[replica.spec.name]
            self._changed()

    def touched(self, replica: Replica) -> None:
        """Look at a replica next: something happened to it."""
        self._tried.clear()
        if self.replicas.get(replica.spec.name) is replica:
            self._near[replica] = None

    def up(self, now_s: float) -> bool:
        """Return whether any replica can be called."""
        return any(one.able(now_s) for one in self._ring)

    def candidates(self, now_s: float) -> list[Replica]:
        """Return the few replicas that a request is held against, of those that can be called."""
        if len(self._ring) <= CANDIDATES:
            return _able(self._ring, now_s)
        others = self._next(OTHERS)
        many = len(self.queue) > FEW
        known = _able({**self._near, **dict.fromkeys(others)}, now_s) if many else []
        known = known or _able(self._ring, now_s)
        least = nsmallest(CANDIDATES, known, key=_load)
        self._near = dict.fromkeys(least)
        if others[0] in self._near or others[0] not in known:
            return least
        return [*least[:-1], others[0]]

    def some(self, now_s: float) -> list[Replica]:
        """Return a few replicas, others each time, to tell what an idle one would take."""
        found = self._ring if len(self._ring) <= CANDIDATES else self._next(CANDIDATES)
        return [one for one in found if one.able(now_s)] or found

    def home(self, blocks: tuple[int, ...], now_s: float) -> Replica | None:
        """Return the replica that was last sent most of such a beginning, if it may be called."""
        name = self.homes.find(blocks)
        replica = None if name is None else self.replicas.get(name)
        return replica if replica is not None and replica.able(now_s) else None

    def speed(self) -> Speed | None:
        """Return how fast its replicas have turned out to be, or the last one that was learnt."""
        learnt = [one.speed for one in self.replicas.values() if one.learnt]
        return mean(learnt) if learnt else self.known

    def _changed(self) -> None:
        self._ring, self._near = list(self.replicas.values()), {}
        self._tried.clear()

    def _next(self, count: int) -> list[Replica]:
        """Return so many replicas, those in whose turn it is."""
        at, ring = self._turn % len(self._ring), self._ring
        self._turn = at + 1
        return ring[at : at + count] + ring[: max(0, at + count - len(ring))]

    def kept(self, ticket: Ticket, now_s: float) -> Replica | None:
        """Return the replica that empties for a ticket, if it is of this pool and may be called."""
        at = ticket.kept_at
        here = at is not None and self.replicas.get(at.spec.name) is at and at.able(now_s)
        return at if here else None

    def pressed(self, ticket: Ticket, now_s: float) -> bool:
        """Return whether one who may not leave has waited long, and no replica empties for it."""
        ask = ticket.ask
        if not ask.terms.stays or self.kept(ticket, now_s) is not None:
            return False
        return now_s - ask.arrived_s >= KEPT_AFTER * (ticket.leave_s - ask.arrived_s)

    def keep(self, ticket: Ticket, candidates: list[Replica]) -> None:
        """Let one of these replicas empty for a ticket, if one is left that does not yet.

        Who may leave fits into smaller gaps, and would take each one before it; a prompt that is
        too long for a busy engine would never be placed. Most of a pool never empties at once:
        who may leave is to find room in it.
        """
        if ticket.kept_at is not None:
            ticket.kept_at.kept_for = None
            ticket.kept_at = None
        emptying = sum(one.empties for one in self._ring)
        free = [one for one in candidates if not one.empties]
        if free and emptying < max(1, int(KEPT_SHARE * len(self._ring))):
            ticket.kept_at = min(free, key=_load)
            ticket.kept_at.kept_for = ticket

    # ---- who waits ------------------------------------------------------------------------

    def tried(self, now_s: float) -> set[Ticket]:
        """Return who was found to fit nowhere at this moment; placing others makes none fit."""
        if now_s != self._tried_s:
            self._tried.clear()
            self._tried_s = now_s
        return self._tried

    def freed(self) -> None:
        """Note that somebody may fit now though nothing happened to a replica."""
        self._tried.clear()

    def reserves(self, now_s: float) -> Reserves:
        """Return what is kept for those who asked lately and have nothing else."""
        return Reserves(kv=self.guarded_until_s > now_s, slots=self.promised_until_s > now_s)

    def placed(self, now_s: float) -> None:
        """Note that a request was placed: while others wait, that tells when there is room."""
        if self._gap_began_s is not None:
            gap_s = min(LONGEST_RETRY_S, now_s - self._gap_began_s)
            self.gap_s += 0.05 * (gap_s - self.gap_s)
        self._gap_began_s = now_s if len(self.queue) else None

    def retry_s(self) -> float:
        """Return when room is likely for one more than those that wait."""
        return min(LONGEST_RETRY_S, max(1.0, self.gap_s * (len(self.queue) + 1)))


def _able(replicas: Iterable[Replica], now_s: float) -> list[Replica]:
    """Return those that may be called, their old scrapes forgotten."""
    found = []
    for one in replicas:
        if one.able(now_s):
            one.age(now_s)
            found.append(one)
    return found


def _load(replica: Replica) -> tuple[bool, float]:
    """Return whether a replica is crowded, and how long a first token takes there, roughly.

    One that empties counts as crowded: it would take the place of one that has room for all.
    """
    spec, c = replica.spec, replica.coefficients
    promised = replica.reserved + replica.foreign_kv
    full = replica.inside >= spec.max_batch or promised > CROWDED * spec.kv_tokens
    crowded = full or (replica.kept_for is not None and replica.empties)
    usual_s = replica.lag_s + replica.ttft_spread_s + c.a_s
    return crowded, usual_s + replica.line.left * c.d_s + replica.inside * c.b_s
