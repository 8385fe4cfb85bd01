"""An open loop of requests over every door, and what is counted of it."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

from attacks.clients import DOORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attacks.routers import Router

SLACK_S = 0.25
"""How late after its deadline a client may hear of it, as a median."""

AT_MOST_S = 2.0
"""How late at most, where the machine may stand still; one that is held hears seconds later."""


@dataclass(frozen=True)
class Ended:
    """One request: what its client heard last, and by how much it then missed its deadline."""

    door: str
    model: str
    status: str
    late_s: float


@dataclass
class Load:
    """Requests that come at a pace, whatever becomes of those before; `models` take turns.

    `ended` has all of them so far.
    """

    models: Sequence[str]
    rate: float = 20.0
    deadline_ms: int = 1500
    text: str = "Tell me of the river."
    ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turns: Iterator[tuple[str, str]] = (
            (door, model) for model in cycle(self.models) for door in DOORS
        )

    async def run(self, router: Router, seconds: float) -> list[Ended]:
        """Return the requests that came in so many seconds, once all have ended."""
        loop = asyncio.get_running_loop()
        begun_s, asking = loop.time(), []
        for number in range(round(self.rate * seconds)):
            await asyncio.sleep(begun_s + number / self.rate - loop.time())
            asking.append(asyncio.create_task(self._one(router, *next(self._turns))))
        found = await asyncio.gather(*asking)
        self.ended += found
        return found

    def in_time(self) -> None:
        """Assert that clients heard of their deadlines when they passed."""
        late_s = [one.late_s for one in self.ended]
        assert statistics.median(late_s) <= SLACK_S
        assert max(late_s) <= AT_MOST_S

    async def _one(self, router: Router, door: str, model: str) -> Ended:
        loop, deadline_ms = asyncio.get_running_loop(), self.deadline_ms
        begun_s = loop.time()
        heard = await router.clients.ask(door, self.text, model=model, deadline_ms=deadline_ms)
        return Ended(door, model, heard.status, loop.time() - begun_s - deadline_ms / 1000)


def statuses(ended: Sequence[Ended]) -> Counter[str]:
    """Return how many requests ended in each way."""
    return Counter(one.status for one in ended)


async def recovered_s(router: Router, load: Load, *, within_s: float, slice_s: float) -> float:
    """Return after how long every request is answered again and every circuit closed."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while loop.time() - begun_s < within_s:
        answered = set(statuses(await load.run(router, slice_s))) == {"ok"}
        closed = set((await router.circuits()).values()) == {"closed"}
        if answered and closed and not await router.full():
            return loop.time() - begun_s
    raise AssertionError(f"not within {within_s} s: {statuses(load.ended[-50:])}")
