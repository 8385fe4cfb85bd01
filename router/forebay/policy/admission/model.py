"""How long one step of an engine takes, and the fit that learns it from what was seen.

A step serves every running stream with one token and takes in a part of the prompts that wait:

    step = a + b * running + c * kv_tokens + d * prefill_tokens

`a` is the step's fixed cost, `b` that of one more stream, `c` that of one more token of context
to attend to, `d` that of one more token of a prompt. The form is that of DistServe's and
Sarathi's measurements; what an engine's true form adds to it, the feedback of `feedback.py` pays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HALF_LIFE = 256
"""Samples after which one weighs half as much as the newest: an engine's speed changes."""

RIDGE = 24.0
"""How many samples' weight the previous fit has: it decides what the samples leave open."""

ROUNDS = 4
"""Rounds of Huber's reweighting; the fifth changes nothing that matters."""

LEAST = 0.05
"""No coefficient falls below this share of itself in one fit."""

FLOOR = 0.01
"""No coefficient falls below this share of what its engine was described with: a fit moves each
in proportion, and one that is nothing would never move again."""

DELTA = 1.5
"""A sample further off than so many times the typical miss counts by its distance alone."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds of a step: fixed, for each stream, each token of context, each prompt token."""

    a_s: float
    b_s: float
    c_s: float
    d_s: float

    def step_s(self, running: float, kv_tokens: float, prefill_tokens: float) -> float:
        """Return the seconds of one step."""
        return self.a_s + self.b_s * running + self.c_s * kv_tokens + self.d_s * prefill_tokens

    def scaled(self, factor: float) -> Coefficients:
        """Return those of an engine `factor` times as slow."""
        return Coefficients(
            self.a_s * factor, self.b_s * factor, self.c_s * factor, self.d_s * factor
        )

    def halfway(self, described: Coefficients) -> Coefficients:
        """Return those of an engine half as much slower than `described`, where it is slower."""
        return Coefficients(
            min(self.a_s, (self.a_s + described.a_s) / 2),
            min(self.b_s, (self.b_s + described.b_s) / 2),
            min(self.c_s, (self.c_s + described.c_s) / 2),
            min(self.d_s, (self.d_s + described.d_s) / 2),
        )


UNKNOWN = Coefficients(0.01, 0.0005, 1e-7, 0.0002)
"""What is assumed of an engine that nobody described: a small model on a middling GPU."""

Sample = tuple[float, float, float, float]
"""Seconds of a step, and its streams, tokens of context and prompt tokens."""


def fit(samples: Sequence[Sample], previous: Coefficients, prior: Coefficients) -> Coefficients:
    """Return coefficients that explain `samples`, oldest first, and stay near `previous`.

    Least squares with Huber's weights, newer samples before older ones, and a ridge that holds
    each coefficient to its previous value by its share of a step: what the samples leave open
    moves in proportion, so that one stream alone does not make many streams look slow. None
    falls below `FLOOR` of the `prior`. With no samples it is the previous fit.
    """
    if not samples:
        return previous
    seen = np.asarray(samples, dtype=np.float64)
    before = np.array([previous.a_s, previous.b_s, previous.c_s, previous.d_s])
    # In units of the previous fit: a column holds the seconds that it explained before.
    shares = np.column_stack((np.ones(len(seen)), seen[:, 1:])) * before
    recency = 0.5 ** (np.arange(len(seen) - 1, -1, -1) / HALF_LIFE)
    factors = 1.0 + _robust(shares, seen[:, 0] - shares.sum(axis=1), recency)
    floor = FLOOR * np.array([prior.a_s, prior.b_s, prior.c_s, prior.d_s])
    found = np.maximum(before * np.maximum(factors, LEAST), floor)
    a_s, b_s, c_s, d_s = (float(one) for one in found)
    return Coefficients(a_s, b_s, c_s, d_s)


def _robust(
    shares: NDArray[np.float64], misses: NDArray[np.float64], recency: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much of itself each coefficient changes, by reweighted least squares."""
    change = np.zeros(shares.shape[1])
    weights: NDArray[Any] = recency
    ridge = np.eye(len(change)) * RIDGE * float(np.average(shares.sum(axis=1) ** 2))
    ridge *= 1.0 / len(change)
    for _ in range(ROUNDS):
        weighted = shares * weights[:, None]
        change = np.linalg.solve(shares.T @ weighted + ridge, weighted.T @ misses)
        off = np.abs(misses - shares @ change)
        typical = 1.4826 * float(np.median(off)) or 1e-9
        weights = recency * np.minimum(1.0, DELTA * typical / np.maximum(off, 1e-12))
    return change


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine turned out to be, and how wrong predictions of it were.

    `lag_s` is what every first token takes beside its steps; `ttft_spread_s` the mean error of a
    predicted TTFT, `tpot_spread` by what share a TPOT exceeds its prediction on average.
    """

    step: Coefficients
    lag_s: float = 0.0
    ttft_spread_s: float = 0.0
    tpot_spread: float = 0.0

    def halfway(self, described: Coefficients) -> Speed:
        """Return that of an engine half as much slower than `described`, and half as uncertain."""
        step = self.step.halfway(described)
        return Speed(step, self.lag_s / 2, self.ttft_spread_s / 2, self.tpot_spread / 2)


def mean(found: Sequence[Speed]) -> Speed:
    """Return the mean of several engines: what a further one of them starts with."""
    count = len(found)
    steps = [one.step for one in found]
    return Speed(
        Coefficients(
            sum(one.a_s for one in steps) / count,
            sum(one.b_s for one in steps) / count,
            sum(one.c_s for one in steps) / count,
            sum(one.d_s for one in steps) / count,
        ),
        sum(one.lag_s for one in found) / count,
        sum(one.ttft_spread_s for one in found) / count,
        sum(one.tpot_spread for one in found) / count,
    )


def steps_to_first_token(prefill_tokens: float, running: float, step_tokens: float) -> float:
    """Return the steps that take in so many prompt tokens beside `running` streams."""
    return max(1.0, math.ceil(prefill_tokens / max(1.0, step_tokens - running)))
