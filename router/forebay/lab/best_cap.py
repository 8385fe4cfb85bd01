"""The static cap that hindsight would have chosen: the baseline at its best."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isqrt
from typing import Protocol

PATIENCE = 24
"""So many caps on either side of the best are played and no better when the search ends."""
_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Tried:
    """What a cap attained, None where its run was given up, and what it spent.

    `reached` says whether it ever stood in anybody's way.
    """

    attainment: float | None
    usd: float
    reached: bool


class Play(Protocol):
    """Plays a cap, and gives up once more requests were missed or more was spent."""

    def __call__(self, cap: int, *, missed_max: float, usd_max: float) -> Tried:
        """Return what came of it; attainment is at most the share that was not missed."""
        ...


def best_cap(play: Play, most: int, wanted: float, offered: int) -> int:
    """Return the cheapest cap with which `wanted` is attained; where none does, who attains most.

    Caps from one to `most` are played on the `offered` requests, from a good one outwards, and
    each is given up as soon as it cannot become the best any more.
    """
    search = _Search(play, wanted, offered)
    low, high = 1, most
    while low < high:
        # Not the search itself: a good first cap, so that others are given up the sooner.
        middle = max(low + 1, isqrt(low * high))
        low, high = (middle, high) if search.attains(middle) else (low, middle - 1)
    first = search.cap
    for side in (range(first - 1, 0, -1), range(first + 1, most + 1)):
        for cap in side:
            search.attains(cap)
            if abs(cap - search.cap) > PATIENCE:
                break
    return search.cap


class _Search:
    """The best cap so far. Attainment beyond what is wanted counts for nothing."""

    def __init__(self, play: Play, wanted: float, offered: int) -> None:
        self.cap = 1
        self._play, self._wanted, self._offered = play, wanted, offered
        self._attained, self._usd = -1.0, inf
        self._played: set[int] = set()
        self._unmet = inf

    def attains(self, cap: int) -> bool:
        """Play a cap, unless that is known; return whether it is seen to attain what is wanted."""
        if cap in self._played or cap > self._unmet:
            return False
        self._played.add(cap)
        tried = self._play(
            cap,
            missed_max=self._offered * (1.0 - self._attained) + _EPS,
            usd_max=self._usd if self._attained >= self._wanted else inf,
        )
        if not tried.reached:
            self._unmet = cap  # no request met it, so that all higher caps are the same run
        if tried.attainment is None:
            return False
        attained = min(tried.attainment, self._wanted)
        if (attained, -tried.usd) > (self._attained, -self._usd):
            self.cap, self._attained, self._usd = cap, attained, tried.usd
        return attained >= self._wanted
