"""What must hold of a run, beside each request's own limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtest.plan import Plan

BUSY_MOST = 0.75
"""A generator that computes more of its time than this reads answers late: see README.md."""


@dataclass(frozen=True, slots=True)
class Check:
    """One stated condition, what was wanted, what was found; None is not measured, so not held."""

    what: str
    wanted: float
    found: float | None
    passed: bool


def checks(plan: Plan, body: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the checks of a report: of the generator, of each class, and those of the plan."""
    yield from _of_generator(plan, body["generator"])
    offered = body["offered"]
    yield _at_least("requests offered, at least", 1, offered)
    for name, one in body["classes"].items():
        if one["offered"]:
            yield _at_least(
                f"{name}: attainment, at least", one["slo"]["attainment"], one["attainment"]
            )
        elif body["until_s"] is None:  # of a run that was stopped, it may not have been due yet
            yield _at_least(f"{name}: requests offered, at least", 1, 0)
    said = plan.checks
    if said.goodput_rps_at_least is not None:
        yield _at_least(
            "goodput, requests/s at least", said.goodput_rps_at_least, body["goodput_rps"]
        )
    if said.errors_at_most is not None:
        ended = body["ended"]
        found = (ended.get("failed", 0) + ended.get("unfinished", 0)) / max(offered, 1)
        yield _at_most("errors, share at most", said.errors_at_most, found)
    if said.usd_at_most is not None:
        # What a target without a price was paid is not known, and so not little.
        usd = None if body["unpriced"] else body["usd"]
        yield _at_most("spend, USD at most", said.usd_at_most, usd)


def _of_generator(plan: Plan, generator: Mapping[str, Any]) -> Iterator[Check]:
    broken = len(generator["broken_off"])
    yield _at_most("generator: processes that broke off, at most", 0, broken)
    lag_ms = generator["send_lag_ms"]["p99"] or 0.0  # without a request there is none
    yield _at_most("generator: send lag p99, ms at most", plan.lag_ms, lag_ms)
    late_ms = generator["loop_late_ms"]["p99"]
    yield _at_most("generator: loop late p99, ms at most", plan.lag_ms, late_ms)
    yield _at_most("generator: busy, share of its time at most", BUSY_MOST, generator["busy"])


def _at_least(what: str, wanted: float, found: float) -> Check:
    return Check(what, wanted, found, found >= wanted)


def _at_most(what: str, wanted: float, found: float | None) -> Check:
    return Check(what, wanted, found, found is not None and found <= wanted)
