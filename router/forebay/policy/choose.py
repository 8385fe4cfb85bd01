"""Which route takes a request: the first whose match holds, then the default, then nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, count, product
from typing import TYPE_CHECKING

from forebay.errors import ForebayError, NotBuilt, NotPermitted, Unmatched
from forebay.policy.around import around
from forebay.policy.classify import Classifier, text_of
from forebay.policy.context import unknown_model
from forebay.policy.rules import HUMAN, AnyOf, Document, Match, Price, Route, Target
from forebay.policy.verifiers import policy_rules, safety
from forebay.policy.verifiers.policy_rules import Rules
from forebay.values import SENSITIVITIES, Labels, Reason, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

AUTO = "auto"

RESERVED = frozenset({AUTO, "ensemble", "tensorrt_llm", "tensorrt_llm_bls", "default", HUMAN})
"""Words that clients and Triton give a meaning to; no class and no target may bear them."""

_LABELS = ("task", "sensitivity", "tier", "language", "mode")
_FREE = ("task", "tier", "language", "mode")
_UNREAD = ("structure", "difficulty")


@dataclass(frozen=True, slots=True)
class Class:
    """A route under the name that metrics, records and clients use for it."""

    name: str
    route: Route

    @property
    def ladder(self) -> tuple[str, ...]:
        """The targets in the order of escalation: the model, then each fallback."""
        first = self.route.model
        return (first.any_of if isinstance(first, AnyOf) else (first,)) + self.route.fallback


@dataclass(frozen=True, slots=True)
class Chosen:
    """The class of a request, why it is that one, and the targets it may climb.

    `categories` are those of harm in what is asked, where the class or a target of it acts on any.
    """

    of: Class
    labels: Labels
    reason: Reason
    why: str
    ladder: tuple[str, ...]
    spill_to: str | None = None
    categories: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether the client named the target: then nobody else is asked in its place."""
        return self.reason is Reason.TARGET_NAMED


class Policy:
    """A checked document, its version (the content's hash), and its classes by name."""

    def __init__(self, document: Document, version: str) -> None:
        self.document = document
        self.version = version
        self.classes = name_classes(document.routes, RESERVED | document.models.keys())
        self.default = None if document.default is None else Class("default", document.default)
        self.classifier = Classifier(document.classify)
        everyone = (*self.classes, *((self.default,) if self.default else ()))
        self.by_name = {c.name: c for c in everyone}
        self.rules = {c.name: self._rules(c.route) for c in everyone}
        self._careful = {c.name: self._reads_categories(c) for c in everyone}

    @property
    def targets(self) -> dict[str, Target]:
        """The `models:` section."""
        return self.document.models

    def reprice(self, other: Policy) -> bool:
        """Take over the prices and the version of a policy that differs in nothing else.

        Returns whether it did; a policy that differs in more changes nothing here.
        """
        if _unpriced(self.document) != _unpriced(other.document):
            return False
        self.document = self.document.model_copy(update={"models": other.document.models})
        self.version = other.version
        return True

    def spill_target(self, chosen: Class) -> str | None:
        """Return where a class spills: `spill.to`, else its first cloud rung, else nowhere."""
        spill = chosen.route.spill
        if spill == "never":
            return None
        if spill is not None:
            return spill.to
        rungs = (rung for rung in chosen.route.fallback if rung in self.targets)
        return next((rung for rung in rungs if self.targets[rung].is_cloud), None)

    def categories(self, chosen: Class, request: Request) -> tuple[str, ...]:
        """Return the categories of harm that a request asks for, where anybody acts on them."""
        if not self._careful[chosen.name]:
            return ()
        return tuple(found.category for found in safety.asked(text_of(request)))

    def _reads_categories(self, one: Class) -> bool:
        hedge = one.route.hedge
        beside = (self.spill_target(one), one.route.downgrade, hedge.to if hedge else None)
        named = (*one.ladder, *(name for name in beside if name is not None))
        picky = (self.targets[name] for name in named if name in self.targets)
        return safety.NAME in one.route.verify or any(t.refuses or t.requires for t in picky)

    def _rules(self, route: Route) -> Rules:
        """Return the rules of a route: those it names, else all that the policy has."""
        if policy_rules.NAME not in route.verify:
            return Rules(())
        names = route.rules or tuple(self.document.rules)
        return Rules((name, self.document.rules[name]) for name in names)

    def names(self) -> tuple[str, ...]:
        """Return every name that a client may give as `model`."""
        return (AUTO, *self.by_name, *self.targets)


def _unpriced(document: Document) -> Document:
    """Return a document as if everything were free."""
    models = {
        name: target.model_copy(update={"price": Price()})
        for name, target in document.models.items()
    }
    return document.model_copy(update={"models": models})


def choose(policy: Policy, request: Request) -> Chosen | ForebayError:
    """Return the class that takes a request and the ladder it may climb, or why nobody does."""
    if request.model not in policy.names():
        return unknown_model(request.model, policy.names())
    labels = policy.classifier.labels(request)
    named = policy.by_name.get(request.model)
    chosen = _named(policy, named, labels) if named else _matched(policy, labels)
    if isinstance(chosen, ForebayError):
        return chosen
    chosen = replace(chosen, categories=policy.categories(chosen.of, request))
    if request.model in policy.targets:
        pinned = _pinned(chosen, request.model)
        return pinned if isinstance(pinned, ForebayError) else around(pinned, policy.targets)
    chosen = replace(chosen, spill_to=policy.spill_target(chosen.of))
    return around(chosen, policy.targets)


def _matched(policy: Policy, labels: Labels) -> Chosen | ForebayError:
    for candidate in policy.classes:
        if not _holds(candidate.route.match, labels):
            continue
        unread = [key for key in _UNREAD if getattr(candidate.route.match, key)]
        if unread:
            return NotBuilt(
                f"route {candidate.name} matches on {unread[0]}, which this version cannot read yet"
            )
        return Chosen(
            candidate, labels, Reason.ROUTE_MATCHED, f"matches {_said(labels)}", candidate.ladder
        )
    if policy.default is not None:
        why = f"no route matches {_said(labels)}"
        return Chosen(policy.default, labels, Reason.DEFAULT_ROUTE, why, policy.default.ladder)
    return Unmatched(
        f"no route matches {_said(labels)} and the policy has no default; "
        f"its routes are {', '.join(policy.by_name) or 'none'}"
    )


def _named(policy: Policy, named: Class, labels: Labels) -> Chosen | ForebayError:
    """A class may be asked for by name if labels of the client's would lead there as well.

    A name says what those labels may say: what the class matches on, and a sensitivity no lower
    than was found. So it opens no way round a route that takes what is more sensitive. The
    default is no exception: its name only says that no route is wanted where none matches.
    """
    match = named.route.match
    ways = (labels,) if named is policy.default else tuple(_ways(match, labels))
    for said in ways:
        found = _matched(policy, said)
        if isinstance(found, Chosen) and found.of is named:
            unsaid = {k: getattr(labels, k) for k in _FREE if not getattr(match, k)}
            told = replace(found.labels, **unsaid)
            return replace(found, labels=told, reason=Reason.CLASS_NAMED, why="asked for by name")
    return _elsewhere(named, ways[0], _matched(policy, ways[0]))


def _elsewhere(named: Class, labels: Labels, taken: Chosen | ForebayError) -> ForebayError:
    """Return why a class does not take a request for which it was named, and which class does."""
    allowed = named.route.match.sensitivity
    if not allowed or labels.sensitivity in allowed:
        why = f"does not take what is {_said(labels)}"
        if isinstance(taken, NotBuilt):
            return taken
    else:
        limits = " or ".join(allowed)
        why = f"takes sensitivity {limits}, and this request was found to be {labels.sensitivity}"
    whose = f"; class {taken.of.name} takes it" if isinstance(taken, Chosen) else ""
    return NotPermitted(f"class {named.name} {why}{whose}; ask for model auto")


def _ways(match: Match, labels: Labels) -> Iterator[Labels]:
    """Yield the labels that naming a class may stand for, those that were found before others.

    A free label that the class does not match on is as good as unsaid; sensitivity only rises.
    """
    found = labels.sensitivity or "low"
    higher = SENSITIVITIES[SENSITIVITIES.index(found) :]
    risen = [one for one in higher if not match.sensitivity or one in match.sensitivity]
    free = [_first(getattr(labels, key), getattr(match, key)) for key in _FREE]
    for sensitivity, *said in product(risen or [found], *free):
        yield Labels(sensitivity=sensitivity, **dict(zip(_FREE, said, strict=True)))


def _first(found: str | None, wanted: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return what a match takes, beginning with what was found if that is among it."""
    return tuple(sorted(wanted, key=lambda one: one != found)) or (None,)


def _pinned(chosen: Chosen, target: str) -> Chosen | ForebayError:
    """A target may be asked for by name if it stands on the ladder of the request's class."""
    if target not in chosen.ladder:
        return NotPermitted(
            f"class {chosen.of.name} may not use {target}; it may use {', '.join(chosen.ladder)}"
        )
    why = f"{chosen.why}; target asked for by name"
    return replace(chosen, reason=Reason.TARGET_NAMED, why=why, ladder=(target,))


def _holds(match: Match, labels: Labels) -> bool:
    return all(
        not wanted or getattr(labels, key) in wanted
        for key in _LABELS
        if (wanted := getattr(match, key)) is not None
    )


def _said(labels: Labels) -> str:
    said = [f"{key}={value}" for key in _LABELS if (value := getattr(labels, key)) is not None]
    return ", ".join(said)


def name_classes(routes: tuple[Route, ...], taken: frozenset[str] = RESERVED) -> tuple[Class, ...]:
    """Name routes that have no name of their own after what they match, in order, uniquely.

    The first value matched, else all of them joined, else either of the two with the route's
    position; what would collide with `taken` or with a name that is written is passed over.
    """
    classes: list[Class] = []
    used = {*taken, *(r.name for r in routes if r.name)}
    for position, route in enumerate(routes, start=1):
        said = [_slug(v) for key in (*_LABELS, *_UNREAD) for v in getattr(route.match, key)]
        stems = (said[0], "-".join(said)) if said else (f"route-{position}", "all")
        candidates = chain(stems, (f"{stems[0]}-{n}" for n in count(position)))
        name = route.name or next(c for c in candidates if c not in used)
        used.add(name)
        classes.append(Class(name, route))
    return tuple(classes)


def _slug(value: str) -> str:
    """Return a matched value as a name that routes, metrics and addresses can bear."""
    slug = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in value.lower())
    return slug[:48] if slug[:1].isalpha() else f"class-{slug[:42]}"
