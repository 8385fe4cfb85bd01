"""Holds the simulator against a sweep: the same requests, on an engine fitted to the real one.

Three fits, from the one that is told least to the one that is told most:

- `router`: the coefficients that the router itself had learnt, on a machine of one pace.
- `drawn`: a law fitted to the steps of the points without admission (the capacity's policy), and
  their pace, begun at other moments: what such a run is on such a machine.
- `replayed`: the same law, and the pace that the machine had in the very run.

None is told what became of a request: a pace is the time of steps over that of the law.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias

from forebay.lab.step_time import Noise
from loadtest.engine_fit import STEADY, Pace, at_jitter, jitter_of, law_of, pace_of, sigma_of
from loadtest.played import Fit, play
from loadtest.seen_steps import DELAYS_S, Seen
from loadtest.sweep_state import SweepError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forebay.policy.admission.model import Coefficients
    from loadtest.fitted_record import Point
    from loadtest.report import Report
    from loadtest.seen_steps import Step

FitName: TypeAlias = Literal["router", "drawn", "replayed"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a point; shares are of the requests offered, classes without any are left out.

    `unserved` were refused, failed or cut off at the end: a request whose engine is down fails for
    the router, which calls nobody, and is refused for the simulator. `spread` is the standard
    deviation of the attainment where it is the mean of several runs.
    """

    attainment: float
    by_class: Mapping[str, float]
    spilled: float
    unserved: float
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One point, observed and simulated by each fit."""

    point: str
    load: float
    policy: str
    repetition: int
    offered: int
    observed: Figures
    simulated: Mapping[FitName, Figures]

    def off(self, fit: FitName) -> float:
        """Return by how many points of attainment a fit is too high."""
        return 100.0 * (self.simulated[fit].attainment - self.observed.attainment)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The engine of one repetition: its law, its jitter, and the pace it had; from how many steps.

    `sigma` is of a lognormal factor on each step, `delay_s` how long requests take to reach it.
    """

    repetition: int
    law: Coefficients
    sigma: float
    delay_s: float
    steps: int
    not_sure: int
    pace: Pace


def compare(
    points: Sequence[Point], unbounded: str, draws: int, tell: Callable[[str], None]
) -> tuple[list[Fitted], list[Compared]]:
    """Return each repetition's engine, and every point played on it.

    Args:
        points: The sound points of a sweep.
        unbounded: The policy without admission, whose steps the law is fitted to.
        draws: How many moments the pace of `drawn` begins at.
        tell: Called with each point's name before it is played.

    Raises:
        SweepError: a repetition has no point of that policy yet.
    """
    fits: dict[int, Fitted] = {}
    made = []
    for point in points:
        if point.repetition not in fits:
            among = [p for p in points if p.repetition == point.repetition]
            fits[point.repetition] = _fitted(among, unbounded)
        tell(point.row["point"])
        made.append(_compared(point, fits[point.repetition], draws))
    return list(fits.values()), made


def _fitted(points: Sequence[Point], unbounded: str) -> Fitted:
    repetition = points[0].repetition
    learnt_from = [point for point in points if point.policy == unbounded]
    if not learnt_from:
        raise SweepError(
            f"repetition {repetition} has no sound point of {unbounded} yet; the engine is fitted "
            "to its steps"
        )
    seen = [_seen(point) for point in learnt_from]

    def doubts(delay_s: float) -> int:
        return sum(not step.sure for one in seen for step in one.steps(delay_s))

    delay_s = min(DELAYS_S, key=doubts)
    steps = [one.steps(delay_s) for one in seen]
    together = list(chain.from_iterable(steps))
    if not any(step.sure for step in together):
        raise SweepError(f"repetition {repetition}: the points of {unbounded} show no step")
    law = law_of(together)
    paces = [_pace(point, some, law) for point, some in zip(learnt_from, steps, strict=True)]
    jitter = [jitter_of(some, law, pace) for some, pace in zip(steps, paces, strict=True)]
    return Fitted(
        repetition,
        law,
        sigma_of(list(chain.from_iterable(jitter))),
        delay_s,
        len(together),
        doubts(delay_s),
        _joined(learnt_from, paces),
    )


def _joined(points: Sequence[Point], paces: Sequence[Pace]) -> Pace:
    """Return the paces of points after each other, of what is judged in them."""
    plans = [point.offered.plan for point in points]
    parts = [
        pace.between(plan.warmup_s, plan.duration_s)
        for plan, pace in zip(plans, paces, strict=True)
    ]
    return Pace(tuple(chain.from_iterable(part.factors for part in parts)))


def _seen(point: Point) -> Seen:
    """Return what a point's clients saw.

    Where those of the warm-up are not known, who began in it may be inside for as many steps as
    the longest answer has tokens.
    """
    longest = max((one.max_tokens for one in point.offered.schedule), default=0)
    return Seen(point.outcomes, point.router.limits, 0 if point.whole else longest)


def _pace(point: Point, steps: Sequence[Step], law: Coefficients) -> Pace:
    plan = point.offered.plan
    return pace_of(steps, law, plan.duration_s + plan.drain_s)


def _compared(point: Point, fitted: Fitted, draws: int) -> Compared:
    row, offered = point.row, point.row["offered"]
    observed = Figures(
        row["attainment"],
        {name: kept for name, kept in row["attainment_by_class"].items() if kept is not None},
        row["spilled"] / offered,
        (row["refused"] + row["failed"]) / offered,
    )
    simulated = {
        name: _mean([play(point.offered, point.router, fit, seed) for seed, fit in enumerate(fits)])
        for name, fits in _fits(point, fitted, draws).items()
    }
    return Compared(
        row["point"],
        row["load"],
        point.policy,
        point.repetition,
        offered,
        observed,
        simulated,
    )


def _fits(point: Point, fitted: Fitted, draws: int) -> dict[FitName, list[Fit]]:
    """Return the engines that a point is played on, by the name of the fit."""
    delay_s, pace, noise = fitted.delay_s, fitted.pace, Noise(sigma=fitted.sigma)
    law = at_jitter(fitted.law, fitted.sigma)
    own = _pace(point, _seen(point).steps(delay_s), fitted.law)
    starts = [at * len(pace.factors) // draws for at in range(draws)]
    speed = point.router.speed()
    learnt = point.router.prior if speed is None else speed.step
    return {
        "router": [Fit(learnt, Noise(), STEADY, delay_s)],
        "drawn": [Fit(law, noise, pace.begun_at(start), delay_s) for start in starts],
        "replayed": [Fit(law, noise, own, delay_s)] * draws,
    }


def _unserved(ended: Mapping[str, int]) -> int:
    return sum(ended.get(name, 0) for name in ("refused", "failed", "unfinished"))


def _mean(reports: Sequence[Report]) -> Figures:
    bodies = [made.body for made in reports]
    attained = [float(body["attainment"]) for body in bodies]
    return Figures(
        statistics.fmean(attained),
        {
            name: statistics.fmean(body["classes"][name]["attainment"] for body in bodies)
            for name, one in bodies[0]["classes"].items()
            if one["offered"]
        },
        statistics.fmean(body["spilled"] / body["offered"] for body in bodies),
        statistics.fmean(_unserved(body["ended"]) / body["offered"] for body in bodies),
        statistics.pstdev(attained),
    )
