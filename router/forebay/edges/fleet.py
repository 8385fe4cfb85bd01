"""The load of every target: our own requests counted exactly, the engine's as last scraped.

Several targets may be one engine under different limits: what one of them has inside, all of
them meet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forebay.values import EngineLoad

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.ports import Clock
    from forebay.values import Scrape


DOWN_AFTER = 3
"""Failures in a row after which an engine counts as down; one may be the request's own."""


@dataclass(slots=True)
class _Engine:
    """What is known of one engine."""

    own: int = 0
    scrape: Scrape | None = None
    own_at_poll: int = 0
    failures: int = 0
    failed_s: float | None = None
    proven: bool = False


@dataclass(slots=True)
class _Slot:
    """One reserved place; releasing it twice is releasing it once."""

    fleet: CountedFleet
    target: str
    route: str
    held: bool = field(default=True)

    def release(self) -> None:
        if self.held:
            self.held = False
            self.fleet.count(self.target, self.route, -1)


class CountedFleet:
    """A `Fleet` for one router; only its event loop may call it."""

    def __init__(self, clock: Clock, engine_of: Mapping[str, str]) -> None:
        """Know the targets in `engine_of`; targets of the same value share an engine."""
        self._clock = clock
        self._engine_of = engine_of
        self._engines = {name: _Engine() for name in engine_of.values()}
        self._targets: Counter[str] = Counter()
        self._classes: Counter[str] = Counter()

    def load(self, target: str, route: str) -> EngineLoad:
        """Return the load of `target` as a request of class `route` meets it now."""
        now_s = self._clock.now_s()
        engine = self._engine(target)
        scrape = engine.scrape
        own, own_of_class = engine.own, self._classes[route]
        down_for_s = None if engine.failed_s is None else now_s - engine.failed_s
        if scrape is None:
            return EngineLoad(own=own, own_of_class=own_of_class, down_for_s=down_for_s)
        return EngineLoad(
            own=own,
            own_of_class=own_of_class,
            own_at_poll=engine.own_at_poll,
            polled_active=scrape.active,
            polled_waiting=scrape.waiting,
            kv_used=scrape.kv_used,
            age_s=now_s - scrape.at_s,
            down_for_s=down_for_s,
        )

    def reserve(self, target: str, route: str) -> _Slot:
        """Count one request of class `route` at `target` from now on."""
        self.count(target, route, 1)
        return _Slot(self, target, route)

    def count(self, target: str, route: str, change: int) -> None:
        """Add to the requests in flight."""
        self._targets[target] += change
        self._classes[route] += change
        self._engine(target).own += change

    def failed(self, target: str) -> None:
        """Note that a call found `target` unavailable."""
        engine = self._engine(target)
        engine.failures += 1
        if engine.failures >= DOWN_AFTER:
            engine.failed_s, engine.proven = self._clock.now_s(), False

    def served(self, target: str) -> None:
        """Note that `target` answered."""
        engine = self._engine(target)
        engine.failures, engine.failed_s, engine.proven = 0, None, True

    def own(self, engine: str) -> int:
        """Return our own requests in an engine, by whichever target."""
        return self._engines[engine].own

    def scraped(self, engine: str, scrape: Scrape, own_at_poll: int) -> None:
        """Take in what an engine's metrics said, and how many of its requests were ours."""
        known = self._engines[engine]
        known.scrape, known.own_at_poll = scrape, own_at_poll

    def scrapes(self) -> dict[str, Scrape]:
        """Return the last scrape of each engine that has been scraped, by the engine's name."""
        return {name: e.scrape for name, e in self._engines.items() if e.scrape is not None}

    def inflight(self) -> dict[str, int]:
        """Return our requests in flight at each target."""
        return {target: self._targets[target] for target in self._engine_of}

    def unproven(self) -> tuple[str, ...]:
        """Return one target of each engine that is down or has never answered."""
        targets = {engine: target for target, engine in self._engine_of.items()}
        return tuple(targets[name] for name, e in self._engines.items() if not e.proven)

    def _engine(self, target: str) -> _Engine:
        return self._engines[self._engine_of[target]]
