"""Verifiers at the gate, at the strictest of their releases.

Those that change text come first, whatever the order a route lists them in: what is judged is
what leaves, never a text that is still to be changed. What a check withholds never leaves, and
an exception out of a check is not caught here: the request ends, and nothing is released.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from forebay.errors import InvalidRequest, NotBuilt
from forebay.policy.verifiers import json_schema, pii
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from forebay.policy.rules import Route
    from forebay.values import Request

BUILT: frozenset[str] = frozenset({json_schema.NAME, pii.NAME})
"""The verifiers that exist; `rules.VERIFIERS` are those that a policy may name."""

RELEASES: dict[str, Release] = {
    "json_schema": Release.FINAL,
    "pii_redaction": Release.WINDOW,
    "tool_call_schema": Release.FINAL,
    "citations_required": Release.FINAL,
    "grounding": Release.FINAL,
    "policy_rules": Release.FINAL,
    "refusal": Release.FINAL,
    "safety": Release.FINAL,
}
"""When text may leave under each verifier; `json_schema` is freer where an engine enforces it."""

CHANGING: frozenset[str] = frozenset({pii.NAME})
"""The verifiers that hand on another text than they were given."""

_ORDER = tuple(Release)


class Check(Protocol):
    """One verifier at work on one answer."""

    name: str
    release: Release

    def feed(self, text: str) -> str:
        """Return the text that this check lets go on."""
        ...

    def finish(self) -> tuple[str, Verdict]:
        """Return the rest of the text, and the verdict on all of it."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What verifiers may look at. `schema` is the request's or else the route's.

    `enforced` says that the engine keeps to the request's form while it decodes.
    """

    request: Request
    schema: dict[str, Any] | None
    enforced: bool
    compiled: json_schema.Compiled | None = None


def subject(route: Route, request: Request, *, enforced: bool) -> Subject:
    """Return what a route's verifiers will look at; to be called before any engine is.

    Raises:
        NotBuilt: the route names a verifier that this version does not have.
        InvalidRequest: the request's schema is none, or cannot be checked in bounded time.
    """
    for name in route.verify:
        if name not in BUILT:
            raise NotBuilt(f"verifier {name} is not built yet")
    if json_schema.NAME not in route.verify:
        return Subject(request, None, enforced)
    asked = _asked(request)
    source = asked if asked is not None else _written(route)
    if source is None:
        return Subject(request, None, enforced)
    ready = json_schema.compiled(source)
    # An engine can only enforce what the request carries, not what the route alone says.
    return Subject(request, ready.schema, enforced and asked is not None, ready)


def strictest(releases: tuple[Release, ...]) -> Release:
    """Return the release rule that keeps all of these; TOKEN where there are none."""
    return max(releases, key=_ORDER.index, default=Release.TOKEN)


class Gate:
    """Stands between one answer and its client."""

    def __init__(
        self, names: tuple[str, ...], subject: Subject, *, stream: Release | None = None
    ) -> None:
        self._names = names
        ranked = sorted(names, key=lambda name: name not in CHANGING)
        self._checks = tuple(_check(name, subject) for name in ranked)
        wanted = () if stream is None else (stream,)
        self.release = strictest((*(check.release for check in self._checks), *wanted))
        self._kept: list[str] = []

    def feed(self, text: str) -> str:
        """Return the text that may leave now."""
        for check in self._checks:
            text = check.feed(text)
        if self.release is Release.FINAL:
            self._kept.append(text)
            return ""
        return text

    def finish(self) -> tuple[str, tuple[Verdict, ...]]:
        """Return the text that has not left yet, and the verdicts as the route lists them.

        The caller lets that text go only if no verdict failed.
        """
        rest = ""
        verdicts: dict[str, Verdict] = {}
        for check in self._checks:
            passed = check.feed(rest) if rest else ""
            last, verdicts[check.name] = check.finish()
            rest = passed + last
        return "".join(self._kept) + rest, tuple(verdicts[name] for name in self._names)


def _check(name: str, subject: Subject) -> Check:
    if name == json_schema.NAME:
        return json_schema.SchemaCheck(subject.compiled, enforced=subject.enforced)
    if name == pii.NAME:
        return pii.Redactor()
    raise NotBuilt(f"verifier {name} is not built yet")


def _asked(request: Request) -> str | None:
    """Return the JSON text of the schema a request brings; any JSON where it says only JSON."""
    guide = request.guide
    if guide is None or guide.kind == "regex":
        return None
    if guide.kind == "json":
        return "{}"
    if not guide.source.strip():
        raise InvalidRequest("the JSON schema is empty")
    return guide.source


def _written(route: Route) -> str | None:
    return None if route.json_schema is None else json.dumps(route.json_schema)
