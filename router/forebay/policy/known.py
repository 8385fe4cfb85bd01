"""What a policy knows of one request beside its text, and whether that bars it from an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forebay.policy.verifiers import policy_rules, safety
from forebay.policy.verifiers.policy_rules import Asked, Rules
from forebay.policy.verifiers.safety import Acts
from forebay.values import Labels

if TYPE_CHECKING:
    from forebay.policy.choose import Chosen, Policy
    from forebay.values import Request, Verdict


@dataclass(frozen=True, slots=True)
class Known:
    """A request's class, what the class demands of contents, and the harm that is asked for.

    `target` is the one whose answer is judged; empty before one is called.
    """

    route: str = ""
    labels: Labels = field(default_factory=Labels)
    rules: Rules = field(default_factory=lambda: Rules(()))
    acts: Acts = field(default_factory=Acts)
    categories: tuple[str, ...] = ()
    target: str = ""


def known(policy: Policy, chosen: Chosen, target: str = "") -> Known:
    """Return what is known of a request that a class takes."""
    return Known(
        chosen.of.name,
        chosen.labels,
        policy.rules[chosen.of.name],
        Acts.of(chosen.of.route.safety),
        chosen.categories,
        target,
    )


def barred(names: tuple[str, ...], request: Request, known: Known) -> Verdict | None:
    """Return why nobody may answer a request, or None; decided before any engine is called.

    Args:
        names: The verifiers of its class.
        request: What users wrote is read.
        known: What the policy knows of it.
    """
    if safety.NAME in names and (verdict := safety.barred(known.acts, known.categories)):
        return verdict
    if policy_rules.NAME in names:
        return known.rules.asked(Asked(request, known.route, known.labels))
    return None


def for_a_person(names: tuple[str, ...], known: Known) -> tuple[str, ...]:
    """Return the categories of a request that its class leaves to a person."""
    if safety.NAME not in names:
        return ()
    return tuple(name for name in known.categories if known.acts.asked.get(name) == "human")
