"""Verifiers at the gate, at the strictest of their releases.

Those that change text come first, whatever the order a route lists them in: what is judged is
what leaves, never a text that is still to be changed. What a check withholds never leaves. Each
stands under guard: one that raises, takes too long or returns nonsense ends in `failed`, and
once it broke nothing more is released before the verdict.

Calls that an engine makes itself come with its last chunk, behind all text. They are changed by
themselves, name and arguments, and then judged with the text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forebay.errors import InvalidRequest, NotBuilt
from forebay.policy.guard import BUDGET_S, Check, Guarded
from forebay.policy.known import Known
from forebay.policy.tools import is_json
from forebay.policy.verifiers import (
    citations,
    grounding,
    json_schema,
    pii,
    policy_rules,
    refusal,
    safety,
    tool_calls,
)
from forebay.policy.verifiers.support import Library, library
from forebay.values import Release, ToolCall, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forebay.policy.rules import Route
    from forebay.values import Request

BUILT: frozenset[str] = frozenset(
    {
        json_schema.NAME,
        pii.NAME,
        tool_calls.NAME,
        citations.NAME,
        grounding.NAME,
        policy_rules.NAME,
        refusal.NAME,
        safety.NAME,
    }
)
"""The verifiers that exist; `rules.VERIFIERS` are those that a policy may name."""

READS_SOURCES: frozenset[str] = frozenset({citations.NAME, grounding.NAME})
"""The verifiers that look up what the sources say: a model of their routes is shown these."""

LENGTHY = 16_384
"""Characters of sources that are read in about ten milliseconds."""

RELEASES: dict[str, Release] = {
    "json_schema": Release.FINAL,
    "pii_redaction": Release.WINDOW,
    "tool_call_schema": Release.FINAL,
    "citations_required": Release.FINAL,
    "grounding": Release.FINAL,
    "policy_rules": Release.FINAL,
    "refusal": Release.WINDOW,
    "safety": Release.FINAL,
}
"""When text may leave under each verifier; `json_schema` is freer where an engine enforces it,
`policy_rules` and `safety` where they do not look at the answer, or only to flag it."""

CHANGING: frozenset[str] = frozenset({pii.NAME})
"""The verifiers that hand on another text than they were given."""

_ORDER = tuple(Release)


@dataclass(frozen=True, slots=True)
class Subject:
    """What verifiers may look at. `schema` is the request's or else the route's.

    `enforced` says that the engine keeps to the request's form while it decodes. `tools` are the
    schemas of what each tool takes, `library` the sources; both are read only where a verifier of
    the route needs them. `known` is what `policy_rules` and `safety` look at beside the answer.
    """

    request: Request
    schema: dict[str, Any] | None
    enforced: bool
    compiled: json_schema.Compiled | None = None
    tools: Mapping[str, json_schema.Compiled] = field(default_factory=dict)
    library: Library = field(default_factory=lambda: library(()))
    known: Known = field(default_factory=Known)


def subject(
    route: Route, request: Request, *, enforced: bool, known: Known | None = None
) -> Subject:
    """Return what a route's verifiers will look at; to be called before any engine is.

    Raises:
        NotBuilt: the route names a verifier that this version does not have.
        InvalidRequest: the request's schema, or one of its tools', is none, or cannot be checked
            in bounded time.
    """
    for name in route.verify:
        if name not in BUILT:
            raise NotBuilt(f"verifier {name} is not built yet")
    made = Subject(request, None, enforced, known=known or Known(labels=request.labels))
    if tool_calls.NAME in route.verify:
        made = replace(made, tools=tool_calls.offered(request))
    if reads_sources(route):
        made = replace(made, library=library(request.sources))
    if json_schema.NAME not in route.verify:
        return made
    asked = _asked(request)
    source = asked if asked is not None else _written(route)
    if source is None:
        return made
    ready = json_schema.compiled(source)
    # An engine can only enforce what the request carries, not what the route alone says.
    enforced = enforced and asked is not None
    return replace(made, schema=ready.schema, enforced=enforced, compiled=ready)


def reads_sources(route: Route) -> bool:
    """Return whether a verifier of the route looks up what sources say."""
    return not READS_SOURCES.isdisjoint(route.verify)


def reads_at_length(route: Route, request: Request) -> bool:
    """Return whether reading a request's sources takes longer than others should wait for it."""
    return reads_sources(route) and sum(len(one.text) for one in request.sources) > LENGTHY


def strictest(releases: tuple[Release, ...]) -> Release:
    """Return the release rule that keeps all of these; TOKEN where there are none."""
    return max(releases, key=_ORDER.index, default=Release.TOKEN)


def check(name: str, subject: Subject) -> Check:
    """Return a verifier, ready for one answer."""
    request = subject.request
    if name == json_schema.NAME:
        demanded = request.tool_choice not in ("auto", "none")
        return json_schema.SchemaCheck(
            subject.compiled, enforced=subject.enforced, demanded=demanded
        )
    if name == pii.NAME:
        return pii.Redactor()
    if name == tool_calls.NAME:
        return tool_calls.ToolCallCheck(request, subject.tools)
    if name == citations.NAME:
        return citations.CitationCheck(subject.library)
    if name == grounding.NAME:
        return grounding.GroundingCheck(subject.library)
    return _of_contents(name, request, subject.known)


def _of_contents(name: str, request: Request, known: Known) -> Check:
    """Return a verifier of what an answer says, whatever its form."""
    if name == refusal.NAME:
        return refusal.RefusalCheck()
    if name == safety.NAME:
        safety.answered("")  # compiles its patterns here, once, and not within a verdict's budget
        return safety.SafetyCheck(known.acts, known.categories)
    if name == policy_rules.NAME:
        asked = policy_rules.Asked(request, known.route, known.labels)
        return policy_rules.RulesCheck(known.rules, asked, known.target)
    raise NotBuilt(f"verifier {name} is not built yet")


class Gate:
    """Stands between one answer and its client.

    Args:
        names: The verifiers, as the route lists them.
        subject: What they may look at.
        stream: The freest release that is wanted; None where the route does not say.
        now_s: The clock by which a verifier's budget is measured; by default none is.
        budget_s: What a verifier may take for one piece of an answer, and for its verdict.
        make: Makes a verifier by its name.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        subject: Subject,
        *,
        stream: Release | None = None,
        now_s: Callable[[], float] = lambda: 0.0,
        budget_s: float = BUDGET_S,
        make: Callable[[str, Subject], Check] = check,
    ) -> None:
        self._names = names

        def guarded(name: str) -> Guarded:
            return Guarded(
                make(name, subject),
                name,
                changing=name in CHANGING,
                now_s=now_s,
                budget_s=budget_s,
            )

        self._guarded = guarded
        self._offered = frozenset(tool.name for tool in subject.request.tools)
        ranked = sorted(names, key=lambda name: name not in CHANGING)
        self._checks = tuple(guarded(name) for name in ranked)
        wanted = () if stream is None else (stream,)
        self.release = strictest((*(check.release for check in self._checks), *wanted))
        self._kept: list[str] = []
        self._calls: tuple[ToolCall, ...] = ()
        self._of_calls: list[Verdict] = []

    def feed(self, text: str) -> str:
        """Return the text that may leave now."""
        for check in self._checks:
            text = check.feed(text)
        if self.release is Release.FINAL or any(check.broken for check in self._checks):
            self._kept.append(text)
            return ""
        return text

    def called(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        """Return the calls that an engine made itself as they may leave, with their own ids.

        What is said of them stands in the verdicts of `finish`; the caller lets them go only if
        none failed.
        """
        changing = [check.name for check in self._checks if check.changing]
        self._calls = tuple(
            self._changed(number, call, changing) for number, call in enumerate(calls, 1)
        )
        return self._calls

    def finish(self) -> tuple[str, tuple[Verdict, ...]]:
        """Return the text that has not left yet, and the verdicts as the route lists them.

        The caller lets that text go only if no verdict failed.
        """
        rest = ""
        verdicts: dict[str, Verdict] = {}
        for check in self._checks:
            passed = check.feed(rest) if rest else ""
            if not check.changing:
                for call in self._calls:
                    check.called(call)
            last, verdict = check.finish()
            of_calls = (one for one in self._of_calls if one.verifier == check.name)
            verdicts[check.name] = _worst(verdict, *of_calls)
            rest = passed + last
        return "".join(self._kept) + rest, tuple(verdicts[name] for name in self._names)

    def _changed(self, number: int, call: ToolCall, names: list[str]) -> ToolCall:
        """Return a call as the changing verifiers leave it: its arguments, and an unknown name."""
        name, arguments = call.name, call.arguments
        for one in names:
            if name not in self._offered:
                name = self._through(number, one, name)
            changed = self._through(number, one, arguments)
            if changed != arguments and not is_json(changed):
                why = f"call {number}: without what was redacted its arguments are not JSON"
                self._of_calls.append(Verdict(one, "failed", why))
            arguments = changed
        return replace(call, name=name, arguments=arguments)

    def _through(self, number: int, name: str, text: str) -> str:
        """Return a text of a call as a changing verifier leaves it, and keep its verdict."""
        check = self._guarded(name)
        begun = check.feed(text)
        rest, verdict = check.finish()
        told = f"call {number}: {verdict.reason}" if verdict.reason else ""
        self._of_calls.append(replace(verdict, reason=told, spans=()))
        return "" if verdict.outcome == "failed" else begun + rest


def _worst(*verdicts: Verdict) -> Verdict:
    """Return one verdict of several by the same verifier: of the worst outcome, all its reasons."""
    rank = {"failed": 4, "referred": 3, "flagged": 2, "redacted": 1}
    worst = max(rank.get(one.outcome, 0) for one in verdicts)
    if not worst:
        return verdicts[0]
    alike = [one for one in verdicts if rank.get(one.outcome, 0) == worst]
    reason = "; ".join(one.reason for one in alike if one.reason)[:500]
    return Verdict(alike[0].verifier, alike[0].outcome, reason, verdicts[0].spans)


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
