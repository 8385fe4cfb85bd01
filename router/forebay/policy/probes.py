"""Probes: what a policy must decide on examples, kept beside it and run by `policy check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from forebay.errors import ForebayError, status_of
from forebay.policy.choose import choose
from forebay.policy.rules import Name, Rule, Sensitivity
from forebay.values import Labels, Request, Text

if TYPE_CHECKING:
    from forebay.policy.choose import Policy


class Said(Rule):
    """The labels that a probe's client sends."""

    task: Name | None = None
    sensitivity: Sensitivity | None = None
    tier: Name | None = None
    language: Name | None = None
    mode: Name | None = None


class Expect(Rule):
    """What must come of it: each key that is said must hold."""

    route: Name | None = None
    target: Name | None = None
    sensitivity: Sensitivity | None = None
    error: Name | None = None


class Probe(Rule):
    """One request and the decision on it. `model` is what a client would name."""

    name: Name | None = None
    text: str = ""
    model: Name = "auto"
    labels: Said = Said()
    expect: Expect


class Probes(Rule):
    """A whole file of probes."""

    probes: tuple[Probe, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one probe ended; `wrong` says what was expected and what came, None if it held."""

    probe: str
    wrong: str | None


def check_probes(policy: Policy, probes: tuple[Probe, ...]) -> tuple[Outcome, ...]:
    """Return each probe's outcome under a policy, in order. Nothing is called."""
    return tuple(_outcome(policy, probe, n) for n, probe in enumerate(probes, start=1))


def _outcome(policy: Policy, probe: Probe, number: int) -> Outcome:
    request = Request(
        id=f"probe-{number}",
        model=probe.model,
        prompt=Text(probe.text),
        received_s=0.0,
        labels=Labels(**probe.labels.model_dump()),
    )
    chosen = choose(policy, request)
    if isinstance(chosen, ForebayError):
        got = {"error": status_of(chosen).reason}
    else:
        got = {
            "route": chosen.of.name,
            "target": chosen.ladder[0],
            "sensitivity": str(chosen.labels.sensitivity),
        }
    expected = probe.expect.model_dump(exclude_none=True)
    wrong = [
        f"expected {key} {value}, got {_got(got, key)}"
        for key, value in expected.items()
        if got.get(key) != value
    ]
    name = probe.name or f"{number}: {probe.text[:40] or probe.model}"
    return Outcome(name, "; ".join(wrong) or None)


def _got(got: dict[str, str], key: str) -> str:
    return got.get(key) or ", ".join(f"{said} {value}" for said, value in got.items())
