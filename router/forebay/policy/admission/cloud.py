"""How fast a cloud has been of late, told by quantiles of what came back."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

WINDOW = 1000
"""Answers that are remembered: ten of them are slower than the p99."""

ENOUGH = 100
"""Answers after which what was seen is believed instead of what was expected."""

LATELY = ENOUGH
"""Answers that the median is taken of: it needs few, and follows a cloud that slows or mends."""

FORGET_S = 900.0
"""Age at which an answer says no more of a cloud."""

QUIET_S = 10.0
"""Without answers a cloud's slowness is believed half as much after so long: one that seemed too
slow for every promise is not called, and could never disprove it."""

LIKELY = 0.5
"""The quantile that an answer likely keeps."""


class Quantiles:
    """The last `window` values in order; the expected p99 stands in until there are enough."""

    def __init__(self, expected_p99: float, window: int = WINDOW) -> None:
        self._expected = expected_p99
        self._window = window
        self._order: list[float] = []
        self._line: deque[tuple[float, float]] = deque()

    def add(self, value: float, now_s: float) -> None:
        """Take in one value and forget the oldest beyond the window."""
        insort(self._order, value)
        self._line.append((now_s, value))
        if len(self._line) > self._window:
            self._drop()

    def forget(self, before_s: float) -> None:
        """Forget what was seen before `before_s`."""
        while self._line and self._line[0][0] < before_s:
            self._drop()

    def _drop(self) -> None:
        _, value = self._line.popleft()
        del self._order[bisect_left(self._order, value)]

    @property
    def enough(self) -> bool:
        """Whether what was seen is believed."""
        return len(self._order) >= ENOUGH

    def soonest(self) -> float:
        """Return what hardly any value was below; nothing is too soon until enough were seen."""
        return self._order[len(self._order) // 100] if self.enough else 0.0

    def at(self, share: float) -> float:
        """Return what the next value is below with probability `share` (0-1).

        Of n values the k-th smallest is not exceeded by the next with k/(n + 1); the quantile of
        those seen would be exceeded more often, at n = 100 by two of a hundred instead of one.
        """
        if not self.enough:
            return self.expected(share)
        seen = len(self._order)
        return self._order[min(seen, math.ceil(share * (seen + 1))) - 1]

    def expected(self, share: float) -> float:
        """Return what was expected before anything was seen."""
        return self._expected * (1.0 if share > LIKELY else 0.5)

    def likely(self, belief: float) -> float:
        """Return the median of what was seen; of what it is above the expected, that `belief`."""
        seen, expected = self.at(LIKELY), self.expected(LIKELY)
        return seen if seen <= expected else expected + (seen - expected) * belief


class CloudLatency:
    """TTFT and TPOT of one cloud target."""

    def __init__(self, expect_ttft_s: float, expect_tpot_s: float, *, stated: bool = True) -> None:
        """Know a cloud by what is expected of it, `stated` by the policy or only assumed."""
        self._ttft = Quantiles(expect_ttft_s)
        self._tpot = Quantiles(expect_tpot_s)
        self._lately = Quantiles(expect_ttft_s, LATELY), Quantiles(expect_tpot_s, LATELY)
        self._stated = stated
        self._seen_s = float("-inf")
        self.inflight = 0

    @property
    def known(self) -> bool:
        """Whether its latency is stated, or was seen often enough."""
        return self._stated or self._ttft.enough

    def saw(self, ttft_s: float, tpot_s: float | None, now_s: float) -> None:
        """Take in one answer."""
        self._seen_s = now_s
        self._ttft.add(ttft_s, now_s)
        self._lately[0].add(ttft_s, now_s)
        if tpot_s is not None:
            self._tpot.add(tpot_s, now_s)
            self._lately[1].add(tpot_s, now_s)

    def forget(self, now_s: float) -> None:
        """Forget answers that are too old at `now_s`."""
        for seen in (self._ttft, self._tpot, *self._lately):
            seen.forget(now_s - FORGET_S)

    def soonest_s(self, now_s: float) -> float:
        """Return the TTFT that a deadline must leave room for: one of a hundred is faster."""
        return self._ttft.soonest() * self._belief(now_s)

    def likely(self, now_s: float) -> tuple[float, float]:
        """Return TTFT and TPOT that half of its latest answers kept."""
        belief = self._belief(now_s)
        ttft, tpot = self._lately
        return ttft.likely(belief), tpot.likely(belief)

    def _belief(self, now_s: float) -> float:
        """Return how much of its slowness is still believed (0-1)."""
        quiet_s = now_s - self._seen_s
        return 0.5 ** (quiet_s / QUIET_S) if quiet_s > QUIET_S else 1.0

    def ttft_s(self, share: float = 0.99) -> float:
        """Return the tracked quantile of TTFT."""
        return self._ttft.at(share)

    def tpot_s(self, share: float = 0.99) -> float:
        """Return the tracked quantile of TPOT."""
        return self._tpot.at(share)
