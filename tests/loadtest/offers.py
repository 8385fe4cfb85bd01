"""Plans and outcomes for tests, with only what a test says different from the usual."""

from __future__ import annotations

from typing import Any

from loadtest.outcome import Move, Outcome
from loadtest.plan import Plan
from loadtest.report import Report, report

CHAT: dict[str, Any] = {
    "name": "chat",
    "share": 1,
    "slo": {"ttft_ms": 1000, "tpot_ms": 100, "attainment": 0.5},
    "prompt_tokens": 8,
    "output_tokens": 4,
}

FAST: dict[str, Any] = {
    "duration_s": 1.0,
    "drain_s": 2.0,
    "arrivals": {"kind": "poisson", "rate_rps": 30},
}
"""About thirty requests in a second."""


def plan(**changed: Any) -> Plan:
    """Return ten seconds of one class at two requests a second, changed as a test says."""
    said = {
        "name": "test",
        "duration_s": 10,
        "drain_s": 5,
        "arrivals": {"kind": "poisson", "rate_rps": 2},
        "classes": [CHAT],
    }
    return Plan.model_validate({**said, **changed})


def judged(said: Plan, outcomes: list[Outcome], **known: Any) -> Report:
    """Return the report of a generator that kept up, but for what a test says."""
    return report(said, outcomes, **{"loop_late_ms": [1.0], "busy": 0.1, **known})


def outcome(**changed: Any) -> Outcome:
    """Return a request that was served well inside `CHAT`'s SLOs, changed as a test says."""
    said: dict[str, Any] = {
        "number": 0,
        "klass": "chat",
        "door": "grpc",
        "scheduled_s": 1.0,
        "sent_s": 1.001,
        "ended": "served",
        "mode": "fast",
        "code": "OK",
        "moves": (Move("first", "local", "headroom"),),
        "prompt_tokens": 10,
        "completion_tokens": 11,
        "ttft_ms": 200.0,
        "e2e_ms": 700.0,
        "itl_ms": (50.0,) * 10,
    }
    return Outcome(**{**said, **changed})
