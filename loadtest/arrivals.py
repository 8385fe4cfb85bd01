"""When requests are due: Poisson over a shape, a trace at another speed, or a sample of one.

Open loop: a moment depends on the seed and the plan alone, never on an answer. Pure.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtest.shapes import Shape
    from loadtest.traces import Row


def stream(name: str) -> random.Random:
    """Return the random numbers of one concern; the same name gives the same numbers."""
    return random.Random(name)  # noqa: S311 - a load is to be repeatable, not secret


def poisson(shape: Shape, seed: int) -> list[float]:
    """Return the moments, in seconds and in order, of a Poisson process with the shape's rate.

    Gaps are drawn in expected arrivals, exponential with mean 1, and mapped to time through the
    shape's integral, so that a rate that changes is as exact as one that does not.
    """
    draw = stream(f"{seed}/arrivals")
    due: list[float] = []
    passed = draw.expovariate(1.0)
    while passed < shape.requests:
        due.append(shape.when(passed))
        passed += draw.expovariate(1.0)
    return due


def replay(
    rows: Sequence[Row], speed: float, duration_s: float, start_s: float = 0.0
) -> list[tuple[float, Row]]:
    """Return each row of a trace with the moment it is due, `speed` times faster than it was.

    Args:
        rows: The trace, in order.
        speed: 2 halves every gap; gaps keep their proportions, so bursts stay bursts.
        duration_s: How long the replay lasts; rows beyond it are left out.
        start_s: Where in the trace, on its own clock, the replay begins.

    Raises:
        ValueError: the trace ends before the run: it would be silent for longer than the trace
            ever was.
    """
    due = [((row.at_s - start_s) / speed, row) for row in rows if row.at_s >= start_s]
    last_s = due[-1][0] if due else 0.0
    longest_s = max((later - at_s for (at_s, _), (later, _) in pairwise(due)), default=0.0)
    if duration_s - last_s > longest_s:
        raise ValueError(
            f"the trace ends after {last_s:.4g} s at {speed:g} times its speed, and the run takes "
            f"{duration_s:g} s; lower speed or the duration"
        )
    return [(at_s, row) for at_s, row in due if at_s < duration_s]


def sample(
    rows: Sequence[Row], rate_rps: float, duration_s: float, seed: int
) -> list[tuple[float, Row]]:
    """Return requests drawn from a whole trace, pressed into the duration, each with its moment.

    Each row is kept with the same chance, so that their mix and the rise and fall of their rate
    are the whole trace's, however few there are.

    Args:
        rows: The trace, in order, from its start.
        rate_rps: How many are expected each second.
        duration_s: How long the whole trace lasts then.
        seed: Another seed draws other rows.

    Raises:
        ValueError: the trace holds fewer rows than that needs.
    """
    chance = rate_rps * duration_s / len(rows)
    if chance > 1:
        raise ValueError(
            f"the trace has {len(rows)} rows, and {rate_rps:g} requests/s for {duration_s:g} s "
            "need more; lower the rate or the duration"
        )
    draw, pressed = stream(f"{seed}/sample"), duration_s / (rows[-1].at_s + 1e-9)
    return [(row.at_s * pressed, row) for row in rows if draw.random() < chance]


def speed_for(
    rows: Sequence[Row], rate_rps: float, duration_s: float, start_s: float = 0.0
) -> float:
    """Return the speed at which the replay has a mean rate over the duration.

    Raises:
        ValueError: the trace after `start_s` holds fewer rows than that needs.
    """
    wanted = round(rate_rps * duration_s)
    later = [row.at_s - start_s for row in rows if row.at_s >= start_s]
    if len(later) <= wanted:
        raise ValueError(
            f"the trace has {len(later)} rows after {start_s:g} s, and {rate_rps:g} requests/s "
            f"for {duration_s:g} s need {wanted}; lower the rate or the duration"
        )
    return max(later[wanted], 1e-9) / duration_s
