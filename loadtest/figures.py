"""The five figures of a run's report, as charts: what is drawn, not how."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadtest.charts import Chart, Series
from loadtest.plan import Price
from loadtest.report import calibration, cost_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtest.outcome import Outcome
    from loadtest.report import Report

BINS = 60
DOTS_MOST = 1500
"""More dots than this make a file heavy and a figure no clearer; every n-th is drawn."""


def figures(report: Report) -> list[Chart]:
    """Return the figures of a run, in the order of the report."""
    return [
        timeline(report),
        ecdf(report),
        goodput_by_load(report),
        spill_by_cost(report),
        calibrated(report),
    ]


def timeline(report: Report) -> Chart:
    """Return requests/s offered, inside their SLOs, spilled and refused, over time."""
    slots = _binned(report)
    wide = _width_s(report)
    slos = {one.name: one.slo for one in report.plan.classes}
    named: dict[str, Callable[[Outcome], bool]] = {
        "offered": lambda o: True,  # noqa: ARG005 - every request was offered
        "within SLO": lambda o: not o.missed(slos[o.klass]),
        "spilled": lambda o: o.spilled,
        "refused": lambda o: o.ended == "refused",
        "failed": lambda o: o.ended in ("failed", "unfinished"),
    }
    series = [
        Series(name, [(at_s, sum(map(counts, slot)) / wide) for at_s, slot in slots])
        for name, counts in named.items()
    ]
    return Chart("Timeline", "seconds from the start, by scheduled moment", "requests/s", series)


def ecdf(report: Report) -> Chart:
    """Return the share of offered requests whose TTFT was at most x, class by class.

    A request without a first token never arrives at the top: the line ends below 1.
    """
    series, marks = [], {}
    for one in report.plan.classes:
        of_class = [o for o in report.outcomes if o.klass == one.name]
        found = sorted(o.ttft_ms for o in of_class if o.ttft_ms is not None)
        points = [(ms, (n + 1) / len(of_class)) for n, ms in enumerate(found)]
        series.append(Series(one.name, _thinned(points)))
        if one.slo.ttft_ms is not None:
            marks[one.slo.ttft_ms] = f"SLO {one.name}" if one.slo.ttft_ms not in marks else "SLO"
    return Chart(
        "TTFT of all offered requests (ECDF)",
        "TTFT from the scheduled moment, ms",
        "share of offered",
        series,
        log_x=True,
        y_most=1.0,
        marks_x=list(marks.items()),
    )


def goodput_by_load(report: Report) -> Chart:
    """Return goodput against offered load, a dot for each stretch of the run."""
    wide = _width_s(report)
    slos = {one.name: one.slo for one in report.plan.classes}
    dots = [
        (len(slot) / wide, sum(not o.missed(slos[o.klass]) for o in slot) / wide)
        for _, slot in _binned(report)
    ]
    most = max((load for load, _ in dots), default=1.0)
    return Chart(
        f"Goodput against load, stretches of {wide:.0f} s",
        "offered, requests/s",
        "goodput, requests/s",
        [
            Series("a stretch", dots, "dots"),
            Series("all within SLO", [(0, 0), (most, most)], dashed=True),
        ],
    )


def spill_by_cost(report: Report) -> Chart:
    """Return what the run had spent when it had spilled so many requests."""
    prices = report.plan.prices
    spilled, spent, points = 0, 0.0, [(0.0, 0.0)]
    for o in sorted(report.outcomes, key=lambda o: o.scheduled_s):
        cost = cost_usd(o, prices.get(o.target, Price())) if o.completion_tokens else 0.0
        spilled += o.spilled
        spent += cost
        if o.spilled or cost:
            points.append((float(spilled), spent * 1000))
    return Chart(
        "Spill against cost",
        "requests spilled so far",
        "spent so far, thousandths of a USD",
        [Series("this run", _thinned(points))] if len(points) > 1 else [],
    )


def calibrated(report: Report) -> Chart:
    """Return predicted against observed TTFT."""
    pairs = [(p, seen) for p, seen in calibration(report.outcomes) if p > 0]
    if not pairs:
        return Chart("Predicted against observed TTFT: no predictions were told", "", "", [])
    most = max(max(pair) for pair in pairs)
    return Chart(
        "Predicted against observed TTFT",
        "predicted, ms",
        "observed, ms",
        [
            Series("a request", _thinned(pairs), "dots"),
            Series("exact", [(0, 0), (most, most)], dashed=True),
        ],
    )


def _width_s(report: Report) -> float:
    return max(1.0, math.ceil(report.duration_s / BINS))


def _binned(report: Report) -> list[tuple[float, list[Outcome]]]:
    """Return the requests of each whole stretch, with its beginning."""
    wide, start_s = _width_s(report), report.plan.warmup_s
    count = max(1, int(report.duration_s / wide))
    slots: list[list[Outcome]] = [[] for _ in range(count)]
    for o in report.outcomes:
        at = int((o.scheduled_s - start_s) / wide)
        if at < count:
            slots[at].append(o)
    return [(start_s + wide * at, slot) for at, slot in enumerate(slots)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    every = max(1, math.ceil(len(points) / DOTS_MOST))
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
