"""The router's own queue: who is placed next when an engine has room.

Requests that may not leave come first, then those that can; among each, tiers share by weight
and within a tier the one that must leave soonest goes first. Nobody starves: each request has a
moment at which it leaves the queue, whoever else waits (`Ticket.leave_s`); until then a tier of
weight w among those that wait gets at least w/W of the engine seconds placed, less one request.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forebay.policy.admission.terms import Ticket

Entry = tuple[float, int, "Ticket"]


@dataclass(slots=True)
class _Tier:
    """One tier's line, and the engine seconds it was given, divided by its weight."""

    weight: float
    given_s: float = 0.0
    line: list[Entry] = field(default_factory=list)


class Queue:
    """Tickets that wait for one pool of replicas."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._levels: tuple[dict[str, _Tier], ...] = ({}, {})
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, ticket: Ticket) -> None:
        """Let a ticket wait."""
        level = self._levels[_level(ticket)]
        name = ticket.ask.tier
        tier = level.get(name)
        if tier is None:
            tier = level[name] = _Tier(self._weights.get(name, 1.0))
        if not tier.line:
            # Who was away brings no claim on what was given while nobody of it waited.
            waiting = (other.given_s for other in level.values() if other.line)
            tier.given_s = max(tier.given_s, min(waiting, default=tier.given_s))
        insort(tier.line, (ticket.leave_s, ticket.number, ticket))
        self._count += 1

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands."""
        line = self._levels[_level(ticket)][ticket.ask.tier].line
        del line[bisect_left(line, (ticket.leave_s, ticket.number))]
        self._count -= 1

    def charge(self, ticket: Ticket, engine_s: float) -> None:
        """Note that a ticket was given so many seconds of an engine."""
        tier = self._levels[_level(ticket)][ticket.ask.tier]
        tier.given_s += engine_s / tier.weight

    def heads(self, look: int) -> Iterator[Ticket]:
        """Yield the next `look` tickets of each level, in the order they would be placed.

        The queue may not change while it is read; read it anew after each placement.
        """
        for level in self._levels:
            left = look
            for tier in sorted((t for t in level.values() if t.line), key=_given):
                for _, _, ticket in tier.line[:left]:
                    yield ticket
                left -= min(left, len(tier.line))


def _level(ticket: Ticket) -> int:
    return 0 if ticket.ask.terms.spill_to is None else 1


def _given(tier: _Tier) -> float:
    return tier.given_s
