"""How fast a cloud has been of late, told by quantiles of what came back."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

WINDOW = 1000
"""Answers that are remembered: ten of them are slower than the p99."""

ENOUGH = 100
"""Answers after which what was seen is believed instead of what was expected."""


class Quantiles:
    """The last `WINDOW` values in order; the expected p99 stands in until there are enough."""

    def __init__(self, expected_p99: float) -> None:
        self._expected = expected_p99
        self._order: list[float] = []
        self._line: deque[float] = deque()

    def add(self, value: float) -> None:
        """Take in one value and forget the oldest beyond the window."""
        insort(self._order, value)
        self._line.append(value)
        if len(self._line) > WINDOW:
            del self._order[bisect_left(self._order, self._line.popleft())]

    def at(self, share: float) -> float:
        """Return the quantile `share` (0-1)."""
        if len(self._order) < ENOUGH:
            return self._expected * (1.0 if share > 0.5 else 0.5)  # noqa: PLR2004 - the median
        return self._order[int(share * (len(self._order) - 1))]


class CloudLatency:
    """TTFT and TPOT of one cloud target."""

    def __init__(self, expect_ttft_s: float, expect_tpot_s: float) -> None:
        self._ttft = Quantiles(expect_ttft_s)
        self._tpot = Quantiles(expect_tpot_s)
        self.inflight = 0

    def saw(self, ttft_s: float, tpot_s: float | None) -> None:
        """Take in one answer."""
        self._ttft.add(ttft_s)
        if tpot_s is not None:
            self._tpot.add(tpot_s)

    def ttft_s(self, share: float = 0.99) -> float:
        """Return the tracked quantile of TTFT."""
        return self._ttft.at(share)

    def tpot_s(self, share: float = 0.99) -> float:
        """Return the tracked quantile of TPOT."""
        return self._tpot.at(share)
