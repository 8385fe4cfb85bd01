"""The SLO report's arithmetic: from outcomes to what was promised, kept, spent and predicted.

Every request that was offered counts, answered or not: a refusal, an error and an answer cut off
by the run's end are misses. Attainment = met / offered; goodput = met / seconds of arrivals.
Percentiles are of the requests that have the figure, linear between ranks; `ttft_offered_ms` is
of all, and one that got no first token waited for ever.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtest.checks import BUSY_MOST, checks
from loadtest.plan import Price, Slo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from loadtest.checks import Check
    from loadtest.outcome import Outcome
    from loadtest.plan import Plan

PERCENTILES = (50, 90, 95, 99)
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Generator:
    """What is known of the processes that offered the requests; None and () are not measured.

    `broken_off` says, of each that did not come to its own end, which and why.
    """

    loop_late_ms: Sequence[float] = ()
    busy: float | None = None
    broken_off: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All that is said of a run. `body` is what the JSON file holds."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    generator: Generator
    duration_s: float
    checks: tuple[Check, ...]
    body: Figures

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


def report(
    plan: Plan,
    outcomes: Iterable[Outcome],
    *,
    loop_late_ms: Sequence[float] = (),
    busy: float | None = None,
    until_s: float | None = None,
    broken_off: Sequence[str] = (),
) -> Report:
    """Return the report of a run.

    Args:
        plan: What was to happen.
        outcomes: All that was offered; what was due in the warm-up is left out.
        loop_late_ms: How late the generator's loop was; empty where nobody measured it.
        busy: The share of its time that the generator computed; None where nobody measured it.
        until_s: Of a run that goes on or was stopped: judge only what was due before this moment.
        broken_off: A sentence for each generator that did not come to its own end.
    """
    told = Generator(loop_late_ms, busy, broken_off)
    end_s = plan.duration_s if until_s is None else min(until_s, plan.duration_s)
    judged = tuple(o for o in outcomes if plan.warmup_s <= o.scheduled_s < end_s)
    duration_s = max(end_s - plan.warmup_s, 1e-9)
    slos = {one.name: one.slo for one in plan.classes}
    group = _Grouping(slos, duration_s)
    body: Figures = {
        "name": plan.name,
        "seed": plan.seed,
        "duration_s": duration_s,
        "until_s": end_s if end_s < plan.duration_s else None,
        **group.figures(judged),
        "classes": group.by(judged, lambda o: o.klass, _promised(slos)),
        "modes": group.by(judged, lambda o: o.mode),
        "tiers": group.by(judged, lambda o: o.tier),
        "doors": group.by(judged, lambda o: o.door),
        "decisions": _decisions(judged),
        "errors": _errors(judged),
        "spend": spend(judged, plan.prices),
        "prediction": prediction(judged),
        "generator": _generator(judged, plan.lag_ms, told),
    }
    body["usd"] = sum(one["usd"] for one in body["spend"].values())
    body["unpriced"] = sorted({o.target for o in judged if o.elsewhere} - plan.prices.keys())
    held = tuple(checks(plan, body))
    body["checks"] = [asdict(one) for one in held]
    body["passed"] = all(one.passed for one in held)
    return Report(plan, judged, told, duration_s, held, body)


def percentiles(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return count, p50, p90, p95, p99 and max; None where there is no value."""
    if not values:
        return {"count": 0, **{f"p{p}": None for p in PERCENTILES}, "max": None}
    found = np.percentile(np.asarray(values, dtype=float), PERCENTILES)
    said = {f"p{p}": round(float(v), 3) for p, v in zip(PERCENTILES, found, strict=True)}
    return {"count": len(values), **said, "max": round(max(values), 3)}


def offered_percentiles(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Return the same of all, where None never came: None is a rank that lies among those."""
    came = [value for value in values if value is not None]
    if not came:
        return {**percentiles([]), "count": len(values)}
    last = max(came)
    said = percentiles([last if value is None else value for value in values])
    never = [f"p{p}" for p in PERCENTILES if (len(values) - 1) * p / 100 > len(came) - 1]
    if len(came) < len(values):
        never.append("max")
    return said | dict.fromkeys(never)


@dataclass(frozen=True, slots=True)
class _Grouping:
    """What the figures of any group of requests need to know."""

    slos: Mapping[str, Slo]
    duration_s: float

    def by(
        self,
        outcomes: Sequence[Outcome],
        key: Callable[[Outcome], str],
        promised: Mapping[str, Figures] | None = None,
    ) -> dict[str, Figures]:
        """Return the figures of each group that `key` names; those without a name have none."""
        names = dict.fromkeys((*(promised or ()), *sorted({key(o) for o in outcomes} - {""})))
        return {
            name: (promised or {}).get(name, {})
            | self.figures([o for o in outcomes if key(o) == name])
            for name in names
        }

    def figures(self, outcomes: Sequence[Outcome]) -> Figures:
        """Return counts, attainment, goodput and percentiles of some requests."""
        missed = Counter(o.missed(self.slos[o.klass]) for o in outcomes)
        met, offered = missed.pop("", 0), len(outcomes)
        paced = [o for o in outcomes if not o.slow]
        return {
            "offered": offered,
            "offered_rps": offered / self.duration_s,
            "met": met,
            "attainment": met / offered if offered else None,
            "goodput_rps": met / self.duration_s,
            "ended": dict(sorted(Counter(o.ended for o in outcomes).items())),
            "missed": dict(sorted(missed.items())),
            "spilled": sum(o.spilled for o in outcomes),
            "completion_tokens": sum(o.completion_tokens for o in outcomes),
            "ttft_ms": percentiles([o.ttft_ms for o in outcomes if o.ttft_ms is not None]),
            "ttft_offered_ms": offered_percentiles([o.ttft_ms for o in outcomes]),
            "tpot_ms": percentiles([t for o in paced if (t := o.tpot_ms) is not None]),
            "itl_ms": percentiles([gap for o in paced for gap in o.itl_ms]),
            "e2e_ms": percentiles([o.e2e_ms for o in paced if o.ended == "served"]),
        }


def _promised(slos: Mapping[str, Slo]) -> dict[str, Figures]:
    return {name: {"slo": slo.model_dump(exclude_none=True)} for name, slo in slos.items()}


def _decisions(outcomes: Iterable[Outcome]) -> list[Figures]:
    """Return how often each decision fell, the most frequent first."""
    found = Counter((m.move, m.reason, m.target) for o in outcomes for m in o.moves)
    return [
        {"move": move, "reason": reason, "target": target, "count": count}
        for (move, reason, target), count in found.most_common()
    ]


def _errors(outcomes: Iterable[Outcome]) -> list[Figures]:
    """Return how often each code and reason ended a request, the most frequent first."""
    found = Counter(
        (o.code, o.reason) for o in outcomes if o.ended in ("refused", "failed", "unfinished")
    )
    return [
        {"code": code, "reason": reason, "count": count}
        for (code, reason), count in found.most_common()
    ]


def spend(outcomes: Iterable[Outcome], prices: Mapping[str, Price]) -> dict[str, Figures]:
    """Return tokens and dollars by target: usage times price, for all that got an answer.

    Of a stream that its client left, only the tokens that came are known and counted. Usage is
    the last target's: what earlier rungs cost stands in the router's record alone.
    """
    spent: dict[str, Figures] = {}
    for o in outcomes:
        if not o.target or o.completion_tokens == 0:
            continue
        one = spent.setdefault(
            o.target, {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0}
        )
        price = prices.get(o.target, Price())
        one["requests"] += 1
        one["prompt_tokens"] += o.prompt_tokens
        one["completion_tokens"] += o.completion_tokens
        one["usd"] += cost_usd(o, price)
    return spent


def cost_usd(outcome: Outcome, price: Price) -> float:
    """Return what one request cost at a price."""
    return (
        outcome.prompt_tokens * price.input_usd_per_mtok
        + outcome.completion_tokens * price.output_usd_per_mtok
    ) / 1e6


def calibration(outcomes: Iterable[Outcome]) -> list[tuple[float, float]]:
    """Return predicted and observed TTFT, in ms, of the requests that have both.

    Observed is the router's own TTFT where it tells one, so that a prediction is not blamed for
    the way to the client; else the client's, from the moment it sent.
    """
    pairs = []
    for o in outcomes:
        if o.predicted_ttft_ms is None or o.ttft_ms is None:
            continue
        sent_late_ms = (o.sent_s - o.scheduled_s) * 1000
        observed = o.ttft_ms - sent_late_ms if o.router_ttft_ms is None else o.router_ttft_ms
        pairs.append((o.predicted_ttft_ms, observed))
    return pairs


def prediction(outcomes: Sequence[Outcome]) -> Figures:
    """Return how far predicted TTFT and TPOT were from what was observed."""
    pairs = calibration(outcomes)
    tpots = [
        (o.predicted_tpot_ms, tpot_ms)
        for o in outcomes
        if o.predicted_tpot_ms is not None and not o.slow and (tpot_ms := o.tpot_ms) is not None
    ]
    return {
        "ttft_absolute_error_ms": percentiles([abs(p - seen) for p, seen in pairs]),
        "ttft_bias_ms": float(np.mean([p - seen for p, seen in pairs])) if pairs else None,
        "tpot_absolute_error_ms": percentiles([abs(p - seen) for p, seen in tpots]),
        "queued_ms": percentiles([o.queued_ms for o in outcomes if o.queued_ms is not None]),
    }


def _generator(outcomes: Sequence[Outcome], bound_ms: float, told: Generator) -> Figures:
    """Return how the generator kept up; a loop or a share that nobody measured has not."""
    lags: dict[str, list[float]] = {"": []}
    for o in outcomes:
        lags.setdefault(o.door, []).append((o.sent_s - o.scheduled_s) * 1000)
    # Of the worst door: in one figure for all a door that is always late drowns.
    lag = max(map(percentiles, lags.values()), key=lambda one: one["p99"] or 0.0)
    late = percentiles(told.loop_late_ms)
    busy = None if told.busy is None else round(told.busy, 3)
    measured = late["p99"] is not None and busy is not None
    return {
        "send_lag_ms": lag,
        "loop_late_ms": late,
        "bound_ms": bound_ms,
        "busy": busy,
        "broken_off": list(told.broken_off),
        "measured": measured,
        "kept_up": measured
        and max(lag["p99"] or 0, late["p99"] or 0) <= bound_ms
        and (busy or 0) <= BUSY_MOST,
    }
