"""How far each class distrusts its predictions: a factor that follows the misses themselves.

After each answer the factor's logarithm moves by `ETA * (miss - allowed)`. Over T answers, none
of them after a quiet time, the share of misses then exceeds what is allowed by at most
(log HIGHEST - log LOWEST)/(ETA * T), as long as factors within one step of HIGHEST stop misses;
it falls short only where LOWEST is trust enough. That is quantile tracking, as in adaptive
conformal inference: nothing about the engine need be known for it. Of misses within one second
no more than `BURST` count: when an engine stands still all its streams are late at once, and as
many answers in time as that would take back are hours of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ETA = 0.04
LOWEST = 0.9
HIGHEST = 4.0

SHARE = 0.6
"""What part of the misses a class may have is spent on prediction; the rest is left to chance."""

ENOUGH = 400
"""Answers after which their lengths are believed: the first to end are the short ones."""

USUAL, LONGEST = 0.9, 0.99
"""Who is to be begun in time no more surely than the first has an answer of the usual length, from
the second on one of the longest."""

BURST, BURST_S = 5, 1.0
"""Misses that count of so long a time."""

AWAY_S = 10.0
"""While every request goes elsewhere the factor forgets half of itself in so long: a distrust that
keeps them all away could never be disproved. Where nobody asks nothing is forgotten, or a class
that comes in bursts would meet each as if it were its first."""


@dataclass(slots=True)
class Margin:
    """The factor of one class and one kind of latency.

    Since `away_s` every request was sent elsewhere or refused, and no answer came.
    """

    log: float = 0.0
    away_s: float | None = None
    burst: int = 0
    burst_s: float = float("-inf")

    def factor(self, now_s: float) -> float:
        """Return what a prediction is multiplied by before it is held against its SLO."""
        return math.exp(self.log * _left(self.away_s, now_s) if self.log > 0 else self.log)

    def learn(self, now_s: float, *, missed: bool, allowed: float) -> None:
        """Take in one outcome; `allowed` is the share of misses that is aimed at."""
        self.log = math.log(self.factor(now_s))
        counts = missed and self._counts(now_s)
        self.log += ETA * (float(counts) - allowed)
        self.log = min(math.log(HIGHEST), max(math.log(LOWEST), self.log))
        self.away_s = None

    def _counts(self, now_s: float) -> bool:
        """Return whether a miss is one of the first of its second."""
        if now_s - self.burst_s >= BURST_S:
            self.burst, self.burst_s = 0, now_s
        self.burst += 1
        return self.burst <= BURST


@dataclass(slots=True)
class ClassFeedback:
    """What a class learnt: two margins, how long answers are, and how many spill.

    `output_tokens` follows the quantile of answers' lengths that the class's attainment asks for,
    `mean_tokens` their mean.
    """

    attainment: float = 0.99
    ttft: Margin = field(default_factory=Margin)
    rate: Margin = field(default_factory=Margin)
    output_tokens: float = 128.0
    mean_tokens: float = 128.0
    answers: int = 0
    spilled: float = 0.0
    cloud_missed: float = 0.0
    away_s: float | None = None

    def allowed(self) -> float:
        """Return the share of local misses that keeps the whole class at its attainment."""
        aimed = (1.0 - self.attainment) * SHARE
        local = (aimed - self.spilled * self.cloud_missed) / max(0.05, 1.0 - self.spilled)
        return max(aimed / 4.0, min(local, aimed * 2.0))

    def longest_tokens(self, now_s: float) -> float:
        """Return how long an answer may grow, by those that were.

        While every request goes elsewhere that fades to the mean, as distrust does: a few long ones
        that keep them all away could never be disproved.
        """
        if self.output_tokens <= self.mean_tokens:
            return self.output_tokens
        left = _left(self.away_s, now_s)
        return self.mean_tokens + (self.output_tokens - self.mean_tokens) * left

    def length(self, share: float) -> float:
        """Return how many tokens an answer may take, to be begun in time so surely (0-1).

        From the very longest to the usual; while few were seen nothing bounds the longest.
        """
        if share <= USUAL:
            return self.mean_tokens
        if share < LONGEST:
            return self.output_tokens
        longest = self.output_tokens if self.answers >= ENOUGH else math.inf
        return longest if share <= LONGEST else 2.0 * longest

    def placed(self, *, spilled: bool) -> None:
        """Take in that a request was placed, here or elsewhere."""
        self.spilled += 0.01 * (float(spilled) - self.spilled)

    def turned_away(self, now_s: float) -> None:
        """Take in that a request was sent elsewhere or refused."""
        for one in (self, self.ttft, self.rate):
            if one.away_s is None:
                one.away_s = now_s

    def answered(self, tokens: int) -> None:
        """Take in the length of an answer."""
        self.away_s = None
        self.answers += 1
        self.mean_tokens += 0.02 * (tokens - self.mean_tokens)
        step = 0.1 * max(16.0, self.output_tokens)
        # A quantile is where steps up by its share and down by the rest balance.
        share = self.attainment
        self.output_tokens += step * (share if tokens > self.output_tokens else share - 1.0)
        self.output_tokens = max(1.0, self.output_tokens)

    def cloud_answered(self, *, missed: bool) -> None:
        """Take in whether a cloud kept the class's SLO."""
        self.cloud_missed += 0.01 * (float(missed) - self.cloud_missed)


def _left(away_s: float | None, now_s: float) -> float:
    """Return what is left of distrust since when every request went elsewhere."""
    for_s = 0.0 if away_s is None else now_s - away_s
    return 0.5 ** (for_s / AWAY_S) if for_s > AWAY_S else 1.0
