"""Metrics and the request log, both from the one record a request leaves.

Rate, errors and duration for each class and target; tokens; TTFT, TPOT and ITL as the glossary
defines them; decisions and verdicts by reason; SLOs met and missed. Nothing here holds a word
of a prompt or an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forebay.policy.choose import Policy
    from forebay.policy.rules import Route
    from forebay.values import Record, Timing

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)

_log = structlog.get_logger("forebay.requests")


class RequestMetrics:
    """The sink that turns records into Prometheus series."""

    def __init__(self, registry: CollectorRegistry, policy: Policy) -> None:
        where = ("route", "target")
        self._slos = {name: slos_of(c.route) for name, c in policy.by_name.items()}
        self._requests = Counter(
            "forebay_requests", "Requests ended", (*where, "status", "door"), registry=registry
        )
        self._tokens = Counter("forebay_tokens", "Tokens", (*where, "kind"), registry=registry)
        self._steps = Counter(
            "forebay_decisions",
            "Targets visited, by move, reason and how it ended",
            (*where, "move", "reason", "outcome"),
            registry=registry,
        )
        self._verdicts = Counter(
            "forebay_verdicts", "Verdicts", ("route", "verifier", "outcome"), registry=registry
        )
        self._attained = Counter(
            "forebay_slo",
            "Requests that met or missed an SLO of their class",
            ("route", "slo", "met"),
            registry=registry,
        )
        self._e2e, self._ttft, self._tpot, self._itl = (
            Histogram(f"forebay_{name}_seconds", text, where, buckets=b, registry=registry)
            for name, text, b in (
                ("e2e", "From request received to its end", _SECONDS),
                ("ttft", "From request received to first token sent", _SECONDS),
                ("tpot", "(E2E - TTFT) / (tokens - 1) of a request", _TOKEN_SECONDS),
                ("itl", "Each gap between tokens", _TOKEN_SECONDS),
            )
        )
        self._refused = Counter(
            "forebay_refused",
            "Requests that a door refused before they had a class",
            ("door", "reason"),
            registry=registry,
        )
        registry.register(_PolicyInfo(policy))

    def write(self, records: Sequence[Record]) -> None:
        """Count a batch."""
        for record in records:
            self._count(record)

    def refused(self, door: str, reason: str) -> None:
        """Count a request that never reached the corridor and so leaves no record."""
        self._refused.labels(door, reason).inc()

    def _count(self, record: Record) -> None:
        where = (record.route, record.target)
        self._requests.labels(*where, record.status, record.door).inc()
        self._tokens.labels(*where, "prompt").inc(record.usage.prompt_tokens)
        self._tokens.labels(*where, "completion").inc(record.usage.completion_tokens)
        for attempt in record.attempts:
            step = (attempt.move, attempt.reason, attempt.outcome)
            self._steps.labels(record.route, attempt.target, *step).inc()
            for verdict in attempt.verdicts:
                self._verdicts.labels(record.route, verdict.verifier, verdict.outcome).inc()
        timing = record.timing
        self._e2e.labels(*where).observe(timing.e2e_ms / 1000)
        if timing.ttft_ms is not None:
            self._ttft.labels(*where).observe(timing.ttft_ms / 1000)
        if timing.tpot_ms is not None:
            self._tpot.labels(*where).observe(timing.tpot_ms / 1000)
        itl = self._itl.labels(*where)
        for gap_ms in record.itl_ms:
            itl.observe(gap_ms / 1000)
        if record.status not in _NOT_JUDGED:
            for name, limit_ms in self._slos.get(record.route, {}).items():
                met = record.status == "ok" and _within(timing, name, limit_ms)
                self._attained.labels(record.route, name, str(met).lower()).inc()


class _PolicyInfo(Collector):
    """Names the policy in force; its prices, and so its version, may change while it serves."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield its version."""
        info = GaugeMetricFamily("forebay_policy_info", "The policy in force", labels=["version"])
        info.add_metric([self._policy.version], 1)
        yield info


_NOT_JUDGED = ("cancelled", "invalid_request", "too_large", "parked")
"""Ends that are the client's own, or a person's, and say nothing of the service's latency."""


def slos_of(route: Route) -> dict[str, int]:
    """Return a class's SLOs in milliseconds, by the name of what they bound."""
    slo, short = route.slo, route.constraints.max_latency_ms
    said = {"ttft": slo.ttft_ms, "tpot": slo.tpot_ms, "e2e": slo.e2e_ms or short}
    return {name: limit for name, limit in said.items() if limit is not None}


def _within(timing: Timing, name: str, limit_ms: int) -> bool:
    """Return whether a request kept an SLO; a time that never was (one token) is kept."""
    took = {"ttft": timing.ttft_ms, "tpot": timing.tpot_ms, "e2e": timing.e2e_ms}[name]
    return took is None or took <= limit_ms


class RequestLog:
    """The sink that logs one line for each request."""

    def write(self, records: Sequence[Record]) -> None:
        """Log a batch."""
        for r in records:
            _log.info(
                "request",
                id=r.id,
                door=r.door,
                route=r.route,
                target=r.target,
                status=r.status,
                steps=[f"{a.move}:{a.target}:{a.outcome}" for a in r.attempts],
                prompt_tokens=r.usage.prompt_tokens,
                completion_tokens=r.usage.completion_tokens,
                ttft_ms=r.timing.ttft_ms and round(r.timing.ttft_ms, 1),
                tpot_ms=r.timing.tpot_ms and round(r.timing.tpot_ms, 1),
                e2e_ms=round(r.timing.e2e_ms, 1),
            )


def page(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Return the metrics page and its content type."""
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
