"""Whether what a policy says of contents agrees: expressions, categories, who may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.around import blocked_at, lacks
from forebay.policy.finding import Finding, near, unknown
from forebay.policy.harm import CATEGORIES
from forebay.policy.rules import HUMAN, AnyOf
from forebay.policy.verifiers import policy_rules, refusal, safety
from forebay.policy.verifiers.policy_rules import OF_ANSWER, OF_REQUEST
from forebay.values import Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.policy.finding import Path
    from forebay.policy.rules import Document, Route


def expressions(document: Document) -> Iterator[Finding]:
    """Yield what is wrong with the expressions of `rules:`, at their lines and columns."""
    for name, rule in document.rules.items():
        for fault in policy_rules.faults(rule.expression):
            meant = near(fault.unknown, (*OF_REQUEST, *OF_ANSWER)) if fault.unknown else None
            at = ("rules", name, "expression")
            yield Finding(at, fault.message, meant, within=(fault.line, fault.column))


def targets(document: Document) -> Iterator[Finding]:
    """Yield the categories that targets name and nobody finds."""
    for name, target in document.models.items():
        at: Path = ("models", name)
        for position, category in enumerate(target.refuses):
            if category not in CATEGORIES:
                yield unknown((*at, "refuses", position), "category", category, CATEGORIES)
        for category in target.requires:
            if category not in CATEGORIES:
                path = (*at, "requires", category)
                yield unknown(path, "category", category, CATEGORIES, key=True)


def route(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    """Yield what is wrong with a route's `safety:`, and categories that none of its rungs takes."""
    said = route.safety.model_fields_set
    for side in sorted(said):
        for category in getattr(route.safety, side) or {}:
            if category not in CATEGORIES:
                path = (*at, "safety", side, category)
                yield unknown(path, "category", category, CATEGORIES, key=True)
    if said and safety.NAME not in route.verify:
        message = "safety: is checked by safety, which verify: does not list"
        yield Finding((*at, "safety"), message, key=True)
    yield from _unanswered(document, at, route)


def release(document: Document, route: Route, name: str) -> Release | None:
    """Return a verifier's release on one route, where it depends on what the policy says."""
    if name == refusal.NAME:
        return Release.WINDOW
    if name == safety.NAME:
        return safety.SafetyCheck(safety.Acts.of(route.safety), ()).release
    if name == policy_rules.NAME:
        names = route.rules or tuple(document.rules)
        said = (document.rules[one].expression for one in names if one in document.rules)
        reads = any(policy_rules.reads_answer(expression) for expression in said)
        return Release.FINAL if reads else Release.TOKEN
    return None


def _unanswered(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    """A category that the class does not block itself must have a target that may answer it."""
    first = route.model.any_of if isinstance(route.model, AnyOf) else (route.model,)
    rungs = (*first, *route.fallback)
    known = [rung for rung in rungs if rung in document.models]
    if HUMAN in rungs or len(known) < len(rungs):
        return
    for category in CATEGORIES:
        why = [lacks(document.models[rung], rung, route, (category,)) for rung in known]
        if all(why) and not blocked_at(route, category):
            message = (
                f"no target may answer {category} in this class: {'; '.join(w for w in why if w)}; "
                "add one that may, or block it with safety: input"
            )
            yield Finding((*at, "model"), message)
