"""The router's own queue: who is placed next when an engine has room.

Requests that may not leave come first, then those that can, then those that are promised nothing;
among each, tiers share by weight and within a tier the one that must leave soonest goes first.
Nobody starves: each request has a moment at which it leaves the queue, whoever else waits
(`Ticket.leave_s`); until then, of the engine seconds placed among those that wait, a tier of
weight w gets at least w/W, short of one request of each tier, as long as what stands first in its
line fits an engine. The account is start-time fair queueing's: a tier pays for what it is given,
and one that comes to wait begins where the others stand, with neither a claim nor a debt from
before.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from forebay.policy.admission.terms import Ask, Ticket

Entry = tuple[float, int, "Ticket"]
Key = tuple[str, str]
"""A class and the target that it waits for."""


def _open(_: Ticket) -> bool:
    return False


@dataclass(slots=True)
class _Tier:
    """One tier's lines, each of one class at one target, and its account.

    `given_s` are the engine seconds it was given, divided by its weight.
    """

    weight: float
    given_s: float = 0.0
    lines: dict[Key, list[Entry]] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether anybody of it waits."""
        return any(self.lines.values())


@dataclass(slots=True)
class _Level:
    """The tiers that are served before the next level's; `now_s` is where the last one stood."""

    tiers: dict[str, _Tier] = field(default_factory=dict)
    now_s: float = 0.0


class Queue:
    """Tickets that wait for one pool of replicas."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._levels = (_Level(), _Level(), _Level())
        self._count = 0
        self._turn = 0

    def __len__(self) -> int:
        return self._count

    def push(self, ticket: Ticket) -> int:
        """Let a ticket wait; return how many of its line stand before it."""
        level = self._level(ticket)
        tier = self._tier(level, ticket)
        if not tier.waits:
            tier.given_s = max(tier.given_s, level.now_s)
        line = tier.lines.setdefault(_key(ticket), [])
        entry = ticket.leave_s, ticket.number, ticket
        at = bisect_left(line, entry[:2])
        line.insert(at, entry)
        self._count += 1
        return at

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands; one that does not wait here is let be."""
        line = self._tier(self._level(ticket), ticket).lines.get(_key(ticket), [])
        at = bisect_left(line, (ticket.leave_s, ticket.number))
        if at < len(line) and line[at][2] is ticket:
            del line[at]
            self._count -= 1

    def charge(self, ticket: Ticket, engine_s: float) -> None:
        """Note that a ticket was given so many seconds of an engine."""
        level = self._level(ticket)
        tier = self._tier(level, ticket)
        level.now_s = max(level.now_s, tier.given_s)
        tier.given_s += engine_s / tier.weight

    def heads(self, look: int, shut: Callable[[Ticket], bool] = _open) -> Iterator[Ticket]:
        """Yield who may be placed next, in that order: of each level `look`, of each tier one.

        Behind them comes the first of another line, of each level one and another each time: what
        keeps those that come first from being placed may keep nobody else.

        The queue may not change while it is read; read it anew after each placement.

        Args:
            look: How many of each level.
            shut: Whether all of a ticket's class at its target are barred: nobody stands
                behind them.
        """
        self._turn += 1
        for level in self._levels:
            left = look
            behind: list[Ticket] = []
            waiting = [tier for tier in level.tiers.values() if tier.waits]
            for tier in sorted(waiting, key=_given):
                lines = [line for line in tier.lines.values() if line and not shut(line[0][2])]
                seen: set[Key] = set()
                for _, _, ticket in islice(merge(*lines), max(1, left)):
                    left -= 1
                    seen.add(_key(ticket))
                    yield ticket
                behind += [line[0][2] for line in lines if _key(line[0][2]) not in seen]
            if behind:
                yield behind[self._turn % len(behind)]

    def waiting(self, ask: Ask) -> int:
        """Return how many wait in the tier, and on the level, of an ask."""
        tier = self._levels[_level(ask)].tiers.get(self._name(ask))
        return 0 if tier is None else sum(map(len, tier.lines.values()))

    def _level(self, ticket: Ticket) -> _Level:
        return self._levels[_level(ticket.ask)]

    def _name(self, ask: Ask) -> str:
        # Tiers come from outside: those that nobody named share one line, or they would multiply.
        return ask.tier if ask.tier in self._weights else ""

    def _tier(self, level: _Level, ticket: Ticket) -> _Tier:
        name = self._name(ticket.ask)
        tier = level.tiers.get(name)
        if tier is None:
            tier = level.tiers[name] = _Tier(self._weights.get(name, 1.0))
        return tier


def _key(ticket: Ticket) -> Key:
    return ticket.ask.terms.route, ticket.ask.target


def _level(ask: Ask) -> int:
    """Return 0 for those that may not leave, 1 for those that can, 2 where nothing is promised."""
    if not ask.terms.promised:
        return 2
    return 0 if ask.terms.stays else 1


def _given(tier: _Tier) -> float:
    return tier.given_s
