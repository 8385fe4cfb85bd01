"""Fits the simulator's engine to steps that were seen: their law, and the machine's pace.

The law is the router's own form, `a + b * streams + c * context + d * prompt tokens`. The pace is
how much longer than by the law steps took in each few seconds: machines that are shared do not
keep theirs. The jitter is what single steps have beside that. None of them knows of requests,
promises or what became of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from forebay.lab.surroundings import Turn
from forebay.policy.admission.model import Coefficients

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadtest.seen_steps import Step

ROUNDS = 50
SHORTEST_S = 1e-3
"""No step is expected to take less: a weight would have no bound."""

WINDOW_S = 5.0
"""How long a pace holds: some steps with prompts in them, and less than a burst of requests."""

ENOUGH = 0.2
"""The share of a window that must have been stepped through for a pace of its own."""

USUAL = 1.0

LONG_S = 0.2
"""Steps that should take so long tell the jitter: in shorter ones it is their clients' lateness."""

NORMAL = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The machine's pace in windows of `WINDOW_S` from a run's start; at 2 steps take twice."""

    factors: tuple[float, ...]

    def begun_at(self, window: int) -> Pace:
        """Return the pace of a machine that is at `window` of this one when a run starts."""
        return Pace(self.factors[window:] + self.factors[:window])

    def between(self, from_s: float, until_s: float) -> Pace:
        """Return the part of it from one moment to another."""
        return Pace(self.factors[int(from_s / WINDOW_S) : int(until_s / WINDOW_S)])

    def at(self, at_s: float) -> float:
        """Return the pace at a moment."""
        return self.factors[int(at_s / WINDOW_S) % len(self.factors)]

    def turns(self, until_s: float) -> list[Turn]:
        """Return the changes that an engine goes through; after its end the pace begins anew."""
        moments_s = (at * WINDOW_S for at in range(int(until_s / WINDOW_S) + 1))
        return [Turn(at_s, engine_factor=self.at(at_s)) for at_s in moments_s]


STEADY = Pace((USUAL,))


def law_of(steps: Sequence[Step]) -> Coefficients:
    """Return the law of the steps that are sure: least squares with no coefficient below zero.

    Squares are weighted by one over the time that a step should take, so that all of them
    together take as long as by the law.
    """
    sure = [one for one in steps if one.sure]
    rows, took_s = _rows(sure), np.array([one.took_s for one in sure])
    found = _not_negative(rows, took_s)
    for _ in range(ROUNDS):
        weights = 1.0 / np.sqrt(np.maximum(rows @ found, SHORTEST_S))
        found = _not_negative(rows * weights[:, None], took_s * weights)
    return Coefficients(*(float(one) for one in found))


def _rows(steps: Sequence[Step]) -> NDArray[np.float64]:
    """Return how often each coefficient is in each step."""
    return np.array(
        [(s.count, s.count * s.streams, s.count * s.kv_tokens, s.prompt_tokens) for s in steps],
        dtype=np.float64,
    )


def _not_negative(rows: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least squares' solution; what would be negative is left out of it."""
    kept = list(range(rows.shape[1]))
    while kept:
        found = np.linalg.lstsq(rows[:, kept], wanted, rcond=None)[0]
        if found.min() >= 0.0:
            whole = np.zeros(rows.shape[1])
            whole[kept] = found
            return whole
        del kept[int(found.argmin())]
    raise AssertionError("steps took less than no time")


def pace_of(steps: Sequence[Step], law: Coefficients, until_s: float) -> Pace:
    """Return the pace from a run's start until then, usual where the engine rested.

    Steps that are not sure count here: what is put into one that its neighbour did is missing
    there.
    """
    windows = int(until_s / WINDOW_S) + 1
    took_s, due_s = np.zeros(windows), np.zeros(windows)
    for one in steps:
        window = int(one.start_s / WINDOW_S)
        if 0 <= window < windows:
            took_s[window] += one.took_s
            due_s[window] += _due_s(one, law)
    seen = took_s >= ENOUGH * WINDOW_S
    factors = np.where(seen, took_s / np.maximum(due_s, SHORTEST_S), USUAL)
    return Pace(tuple(float(one) for one in factors))


def jitter_of(steps: Sequence[Step], law: Coefficients, pace: Pace) -> list[float]:
    """Return the logarithm of what each long and sure step took over what it should have taken."""
    dues_s = ((one, _due_s(one, law) * pace.at(one.start_s)) for one in steps if one.sure)
    long = ((one.took_s, due_s) for one, due_s in dues_s if due_s >= LONG_S)
    return [log(took_s / due_s) for took_s, due_s in long if took_s > 0.0]


def sigma_of(jitter: Sequence[float]) -> float:
    """Return the standard deviation of the normal distribution that has this jitter's median."""
    return NORMAL * median(abs(one) for one in jitter) if jitter else 0.0


def at_jitter(law: Coefficients, sigma: float) -> Coefficients:
    """Return the law of steps that take by `law` on average once they have lognormal noise."""
    return law.scaled(exp(-sigma * sigma / 2))


def _due_s(step: Step, law: Coefficients) -> float:
    steady_s = law.step_s(step.streams, step.kv_tokens, 0)
    return step.count * steady_s + law.d_s * step.prompt_tokens
