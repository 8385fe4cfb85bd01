"""Rates over time: constant, ramps, steps, spikes; each a line of straight pieces.

A shape is what an arrival process is made of (`arrivals.py`). Times are seconds from the run's
start, rates requests per second. Pure: no clock, no randomness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch in which the rate goes straight from `from_rps` to `to_rps`."""

    start_s: float
    end_s: float
    from_rps: float
    to_rps: float

    @property
    def requests(self) -> float:
        """The expected number of arrivals in it."""
        return (self.end_s - self.start_s) * (self.from_rps + self.to_rps) / 2

    def rate_rps(self, at_s: float) -> float:
        """Return the rate at a moment of the piece."""
        along = (at_s - self.start_s) / (self.end_s - self.start_s)
        return self.from_rps + along * (self.to_rps - self.from_rps)

    def when(self, requests: float) -> float:
        """Return the moment by which `requests` of its arrivals are expected."""
        if requests <= 0:
            return self.start_s
        if self.requests <= 0:
            return self.end_s
        slope = (self.to_rps - self.from_rps) / (self.end_s - self.start_s)
        # The root of from*t + slope*t^2/2 = requests in the form that stands a slope near zero.
        root = math.sqrt(max(self.from_rps**2 + 2 * slope * requests, 0.0))
        return min(self.start_s + 2 * requests / (self.from_rps + root), self.end_s)


@dataclass(frozen=True, slots=True)
class Shape:
    """Pieces that follow each other without a gap, the first from zero."""

    pieces: tuple[Piece, ...]

    @property
    def duration_s(self) -> float:
        """When it ends."""
        return self.pieces[-1].end_s

    @property
    def requests(self) -> float:
        """The expected number of arrivals."""
        return sum(piece.requests for piece in self.pieces)

    def when(self, requests: float) -> float:
        """Return the moment by which `requests` arrivals are expected."""
        for piece in self.pieces:
            if requests <= piece.requests:
                return piece.when(requests)
            requests -= piece.requests
        return self.duration_s

    def times(self, factor: float) -> Shape:
        """Return the shape with every rate multiplied."""
        return Shape(
            tuple(
                Piece(p.start_s, p.end_s, p.from_rps * factor, p.to_rps * factor)
                for p in self.pieces
            )
        )


def joined(parts: Iterable[tuple[float, float, float]]) -> Shape:
    """Return the shape of `(seconds, from_rps, to_rps)` stretches, one after the other."""
    pieces: list[Piece] = []
    at_s = 0.0
    for for_s, from_rps, to_rps in parts:
        if for_s > 0:
            pieces.append(Piece(at_s, at_s + for_s, from_rps, to_rps))
            at_s += for_s
    if not pieces:
        raise ValueError("a shape needs at least one stretch of time")
    return Shape(tuple(pieces))


def constant(rate_rps: float, duration_s: float) -> Shape:
    """Return one rate for the whole time."""
    return joined([(duration_s, rate_rps, rate_rps)])


def ramp(from_rps: float, to_rps: float, duration_s: float) -> Shape:
    """Return a rate that rises or falls evenly."""
    return joined([(duration_s, from_rps, to_rps)])


def steps(parts: Iterable[tuple[float, float]]) -> Shape:
    """Return constant rates after each other, given as `(seconds, rps)`."""
    return joined((for_s, rps, rps) for for_s, rps in parts)


def spike(base_rps: float, spike_rps: float, at_s: float, for_s: float, duration_s: float) -> Shape:
    """Return a base rate with one spike in it; what lies beyond the end is cut off."""
    begins_s = min(at_s, duration_s)
    ends_s = min(at_s + for_s, duration_s)
    return steps(
        [(begins_s, base_rps), (ends_s - begins_s, spike_rps), (duration_s - ends_s, base_rps)]
    )
