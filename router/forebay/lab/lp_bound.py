"""A lower bound on spill cost: a linear programme's value, bounded from below by its dual.

**The programme.** Let a clairvoyant serve any fraction y of each request, in pieces, anywhere in
a pooled fleet, preempting at will. A request brings two pieces of work, in engine seconds:

- its prompt, `in * (d + a/step_tokens)`, due between its arrival and its TTFT promise;
- its decoding, `sum over tokens of (b + c*context + a/step_tokens)`, due before its last token:
  TTFT promise plus TPOT promise times the tokens after the first, or its E2E promise if sooner.

Minimise the price of what is not served, subject to the fleet's seconds in each slot of time.

**Why no router can be cheaper.** Take a run in which every request either spilled or kept its
promise in an engine. A step takes at least `a + b*streams + c*context + d*prompt tokens`, with
one of a law's `floors`, and holds at most `step_tokens` tokens, so that its `a` is at least
`a/step_tokens` for each of them: the work above is no more than the time really spent on that
request. All of it was spent inside the windows above, and a replica spends a second in a second.
Windows are widened to whole slots, which only adds room. So the run is a solution of the
programme, with y of 0 and 1. A run with misses is covered once each missed request is charged
what the cloud would have taken for it: what is bounded is the sum of `Stage.charged_usd`, and
spill alone only where nothing is missed. Noise is not part of it: seeds whose steps come out
shorter than nominal could beat it by as much as their mean differs from 1, which for the
scenario's noise is nowhere below.

**Why any prices give a bound.** With a price u(t) >= 0 for an engine second in slot t,

    bound(u) = sum_x min(usd_x, w1_x * min u over its prompt's slots
                              + w2_x * min u over its decoding's slots)  -  sum_t capacity_t * u(t)

is no more than the programme's value (weak duality): whatever the programme serves, it pays at
least these minima, and all it pays at most the last sum. The ascent below looks for good prices;
were it to stop early, the bound would be looser and never wrong.

Requests that may not leave are priced `FORCED` times the cloud's price, as their misses are
charged: dear enough that the programme serves them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from forebay.lab.engine_sim import EngineLimits, Job
    from forebay.lab.surroundings import Cloud, Promise, Turn
    from forebay.policy.admission.model import Coefficients

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SLOTS_MAX = 20_000
"""Slots at most until the last request is due: those of a long run are wider."""
ROUNDS = 1000
LOOK_EVERY = 25
_RATE, _RATE_END = 0.05, 0.0001
_SOFT, _SOFT_END = 0.08, 0.0003
_FADE, _FADE_SQUARE, _TINY = 0.9, 0.99, 1e-12


@dataclass(frozen=True, slots=True)
class Fleet:
    """The pooled fleet: a linear floor of its steps, limits of a replica, what changes when."""

    floor: Coefficients
    limits: EngineLimits
    replicas: int
    turns: Sequence[Turn] = ()


@dataclass(frozen=True, slots=True)
class Programme:
    """The programme in slots; windows are inclusive. The last slot is "never", and free."""

    usd: Floats
    work: tuple[Floats, Floats]
    first: Ints
    last: tuple[Ints, Ints]
    capacity: Floats


def programme(
    jobs: Sequence[Job], promises: Sequence[Promise], fleet: Fleet, cloud: Cloud, slot_s: float
) -> Programme:
    """Return the programme of a row, in slots of `slot_s` seconds or as `SLOTS_MAX` widens them."""
    c, limits = fleet.floor, fleet.limits
    arrived = np.array([job.arrived_s for job in jobs])
    tokens_in = np.array([job.input_tokens for job in jobs], dtype=np.float64)
    decoded = np.array([job.output_tokens - 1 for job in jobs], dtype=np.float64)
    told = np.array([(p.ttft_s, p.tpot_s, p.e2e_s, p.miss_factor) for p in promises])
    ttft_s, tpot_s, e2e_s, miss_factor = told[[job.label for job in jobs]].T
    due1 = arrived + np.minimum(ttft_s, e2e_s)
    # An answer of one token is over with its prompt; infinity times nothing would be no number.
    rest_s = np.where(decoded > 0, tpot_s * np.maximum(decoded, 1.0), 0.0)
    due2 = arrived + np.minimum(ttft_s + rest_s, e2e_s)
    share = c.a_s / limits.step_tokens
    prompt = tokens_in * (c.d_s + share)
    decode = decoded * (c.b_s + share + c.c_s * tokens_in) + c.c_s * decoded * (decoded + 1) / 2
    usd = np.array([cloud.usd(job) for job in jobs]) * miss_factor
    for turn in fleet.turns:
        usd *= np.where(arrived > turn.at_s, turn.price_factor, min(1.0, turn.price_factor))
    finite = [due[np.isfinite(due)] for due in (due1, due2)]
    end_s = max((float(due.max()) for due in finite if due.size), default=float(arrived[-1]))
    slot_s = max(slot_s, end_s / SLOTS_MAX)
    slots = int(end_s / slot_s) + 1

    def slot(at_s: Floats) -> Ints:
        return np.minimum(np.where(np.isinf(at_s), slots, at_s / slot_s), slots).astype(np.int64)

    last = slot(due1), slot(due2)
    return Programme(usd, (prompt, decode), slot(arrived), last, _capacity(fleet, slots, slot_s))


def _capacity(fleet: Fleet, slots: int, slot_s: float) -> Floats:
    """Return the engine seconds in each slot, counted in those of an undisturbed engine.

    A step that is under way at a change ends at its old pace, maybe in the slot that comes next:
    so both slots have the room of before or after, whichever is more.
    """
    capacity = np.full(slots + 1, slot_s * fleet.replicas)
    begins = np.arange(slots + 1) * slot_s
    for turn in fleet.turns:
        room = slot_s * (fleet.replicas - turn.dies) / turn.engine_factor
        touched = (begins + slot_s > turn.at_s) & (begins < turn.at_s + slot_s)
        capacity[touched] = np.maximum(capacity[touched], room)
        capacity[begins >= turn.at_s + slot_s] = room
    capacity[slots] = 0.0
    return capacity


def lower_bound_usd(problem: Programme, rounds: int = ROUNDS) -> float:
    """Return a bound in USD that no router can beat, as tight as the rounds make it.

    Ascends a smoothed `bound(u)` (soft minima, ever harder) by Adam's steps and keeps the best
    exact value met.
    """
    scale = float(np.median(problem.usd / (problem.work[0] + problem.work[1])))
    windows = [_Windows(problem.first, last, problem.capacity.size) for last in problem.last]
    prices = np.zeros(problem.capacity.size)
    mean, square = np.zeros_like(prices), np.zeros_like(prices)
    best = 0.0
    for turn in range(rounds):
        along = turn / rounds
        soft = _SOFT * (_SOFT_END / _SOFT) ** along
        up = _slope(problem, windows, prices * scale, soft * scale) / problem.capacity.max()
        mean += (1 - _FADE) * (up - mean)
        square += (1 - _FADE_SQUARE) * (up * up - square)
        step = mean / (1 - _FADE ** (turn + 1))
        step /= np.sqrt(square / (1 - _FADE_SQUARE ** (turn + 1))) + _TINY
        prices = np.maximum(0.0, prices + _RATE * (_RATE_END / _RATE) ** along * step)
        prices[-1] = 0.0
        if turn % LOOK_EVERY == LOOK_EVERY - 1:
            best = max(best, _bound(problem, windows, prices * scale))
    return best


def _bound(problem: Programme, windows: list[_Windows], prices: Floats) -> float:
    """Return the exact bound of some prices."""
    here = sum(
        work * window.least(prices) for work, window in zip(problem.work, windows, strict=True)
    )
    return float(np.minimum(problem.usd, here).sum() - problem.capacity @ prices)


def _slope(problem: Programme, windows: list[_Windows], prices: Floats, soft: float) -> Floats:
    """Return the gradient of the smoothed bound: what would be bought, less what there is."""
    least = [window.soft_least(prices, soft) for window in windows]
    here = sum(work * one for work, one in zip(problem.work, least, strict=True))
    over = (here - problem.usd) / (soft * (problem.work[0] + problem.work[1]))
    served = 1.0 / (1.0 + np.exp(np.clip(over, -40.0, 40.0)))
    slope = -problem.capacity.copy()
    for work, window in zip(problem.work, windows, strict=True):
        slope += window.spread(served * work)
    return slope


class _Windows:
    """Minima over many windows of one array: each is two runs of a power of two of slots."""

    def __init__(self, first: Ints, last: Ints, slots: int) -> None:
        self._slots = slots
        length = last - first + 1
        self._level = np.int64(np.floor(np.log2(length)))
        self._runs = (first, last - (1 << self._level) + 1)
        self._levels = int(self._level.max()) + 1
        self._of_level = [np.flatnonzero(self._level == level) for level in range(self._levels)]
        self._tables: list[Floats] = []
        self._share: Floats = np.empty(0)

    def least(self, prices: Floats) -> Floats:
        """Return each window's minimum."""
        tables = [prices]
        for level in range(1, self._levels):
            tables.append(self._doubled(tables[-1], level, np.minimum))
        return np.minimum(*(self._read(tables, run) for run in self._runs))

    def soft_least(self, prices: Floats, soft: float) -> Floats:
        """Return each window's soft minimum, and keep what `spread` needs of it."""
        self._tables = [-prices / soft]
        for level in range(1, self._levels):
            self._tables.append(self._doubled(self._tables[-1], level, np.logaddexp))
        left, right = (self._read(self._tables, run) for run in self._runs)
        self._share = 1.0 / (1.0 + np.exp(np.clip(right - left, -40.0, 40.0)))
        return -soft * np.logaddexp(left, right)

    def spread(self, amounts: Floats) -> Floats:
        """Return the amounts, each spread over its window by how low the soft minimum found it."""
        pushed = [np.zeros(self._slots) for _ in range(self._levels)]
        parts = (amounts * self._share, amounts * (1.0 - self._share))
        for run, part in zip(self._runs, parts, strict=True):
            for level, members in enumerate(self._of_level):
                if members.size:
                    pushed[level] += np.bincount(run[members], part[members], self._slots)
        for level in range(self._levels - 1, 0, -1):
            half, table, whole = 1 << (level - 1), self._tables[level - 1], self._tables[level]
            down = pushed[level]
            pushed[level - 1] += down * np.exp(table - whole)
            pushed[level - 1][half:] += down[:-half] * np.exp(table[half:] - whole[:-half])
        return pushed[0]

    def _doubled(self, table: Floats, level: int, join: np.ufunc) -> Floats:
        """Return runs twice as long; those that would pass the end stay as they were."""
        half = 1 << (level - 1)
        whole = table.copy()
        whole[:-half] = join(table[:-half], table[half:])
        return whole

    def _read(self, tables: list[Floats], run: Ints) -> Floats:
        found = np.empty(run.size)
        for level, members in enumerate(self._of_level):
            if members.size:
                found[members] = tables[level][run[members]]
        return found


__all__ = ["Fleet", "Programme", "lower_bound_usd", "programme"]
