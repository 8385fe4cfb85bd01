"""What the corridor needs of the world, as Protocols. Edges and `testing` implement them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.policy.admission import Ask, Offer, Outcome
    from forebay.values import (
        Abilities,
        Admit,
        Call,
        Chunk,
        Downgrade,
        Prepared,
        Record,
        Refuse,
        Request,
        Spill,
        Ticket,
    )


class Clock(Protocol):
    """The only source of time."""

    def now_s(self) -> float:
        """Return seconds on a clock that never steps back."""
        ...

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch."""
        ...


class Engine(Protocol):
    """One target that can answer: Triton, a cloud, or a person, who gives a ticket for now."""

    @property
    def abilities(self) -> Abilities:
        """Return the engine's own limits; they do not change while it is connected."""
        ...

    async def prepare(self, request: Request) -> Prepared:
        """Return the prompt in this target's terms, without calling it.

        Raises:
            InvalidRequest: the prompt or the guide cannot be expressed for this target.
        """
        ...

    def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is decoded; closing the generator cancels the engine's work.

        Raises:
            InvalidRequest: the engine refused the request's own values.
            Overloaded: its bounded queue is full; safe to try elsewhere.
            EngineUnavailable: before the first chunk; safe to try elsewhere.
            EngineFailed: after it; never repeated silently.
            DeadlineExceeded: `call.deadline_s` passed.
        """
        ...


class Lease(Protocol):
    """A reserved place at a replica or a cloud; ended once, in `finally`."""

    def saw(self, tokens: int, now_s: float) -> None:
        """Note that the engine yielded `tokens`; the first call marks the first token."""
        ...

    def end(self, outcome: Outcome, reader_s: float = 0.0) -> None:
        """Give the place back and say how it went; further calls do nothing.

        For `reader_s` of its time the answer waited for its client to read on.
        """
        ...


class Held(NamedTuple):
    """A place that admission gave, and the lease that holds it."""

    placement: Admit | Downgrade
    lease: Lease


class Admission(Protocol):
    """Decides which replica takes a request, how long it waits, and when it goes elsewhere."""

    async def place(self, ask: Ask) -> Held | Spill | Refuse:
        """Return the decision on a request, which may wait for it.

        Deciding and reserving are one step. Cancelled while it waits, it leaves nothing behind.
        """
        ...

    def offer(self, ask: Ask) -> Offer:
        """Return what would be decided now and what the answer would cost; reserves nothing."""
        ...

    def others(self, target: str, than: frozenset[str]) -> bool:
        """Return whether a replica of a target can be called now that is none of these."""
        ...


class Tickets(Protocol):
    """Requests that wait for a person; whoever parked them looks them up here."""

    async def find(self, ticket_id: str) -> Ticket | None:
        """Return a ticket as it stands now; None where there never was one.

        Raises:
            EngineUnavailable: the queue cannot be read now.
        """
        ...


class Ledger(Protocol):
    """Where records go: store and telemetry alike. Never raises into the corridor."""

    def append(self, record: Record) -> None:
        """Keep one record; returns before it is durable."""
        ...
