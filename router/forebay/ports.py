"""What the corridor needs of the world, as Protocols. Edges and `testing` implement them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.values import Abilities, Call, Chunk, EngineLoad, Prepared, Record, Request


class Clock(Protocol):
    """The only source of time."""

    def now_s(self) -> float:
        """Return seconds on a clock that never steps back."""
        ...

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch."""
        ...


class Engine(Protocol):
    """One target that can answer: Triton, later a cloud or a person."""

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
    """A reserved slot at a target; released once, in `finally`."""

    def release(self) -> None:
        """Give the slot back; further calls do nothing."""
        ...


class Fleet(Protocol):
    """What is known of all targets' load. Nothing here awaits: decide and reserve are one step."""

    def load(self, target: str, route: str) -> EngineLoad:
        """Return the load of `target` as a request of class `route` meets it now."""
        ...

    def reserve(self, target: str, route: str) -> Lease:
        """Count one request of class `route` at `target` from now on."""
        ...

    def failed(self, target: str) -> None:
        """Note that a call found `target` unavailable."""
        ...

    def served(self, target: str) -> None:
        """Note that `target` gave a whole answer."""
        ...


class Ledger(Protocol):
    """Where records go: store and telemetry alike. Never raises into the corridor."""

    def append(self, record: Record) -> None:
        """Keep one record; returns before it is durable."""
        ...
