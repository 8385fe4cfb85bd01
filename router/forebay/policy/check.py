"""Whether the parts of a policy agree: names that exist, rungs that may be used, routes reached.

Everything that one key alone can get wrong is in `rules`; here a whole document is at hand.
Findings are values with a path into the document; the edge that read it knows the lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forebay.policy import check_content, verify
from forebay.policy.choose import RESERVED
from forebay.policy.finding import Finding, Path, near, unknown
from forebay.policy.regex import fault as pattern_fault
from forebay.policy.replicas import address_fault, host_fault, misread, page_fault
from forebay.policy.rules import (
    ADAPTERS,
    DEVICE,
    HUMAN,
    VERIFIERS,
    AnyOf,
    Document,
    Lookup,
    Route,
    Spill,
    Triton,
)
from forebay.policy.verifiers.json_schema import fault as schema_fault
from forebay.values import Release

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "Path", "check", "near", "unknown"]


def check(document: Document) -> tuple[Finding, ...]:
    """Return all that is wrong with a policy; none if it can be served."""
    return (
        *_models(document),
        *_sections(document),
        *_classify(document),
        *check_content.expressions(document),
        *check_content.targets(document),
        *_names(document),
        *_unreached(document),
        *(f for path, route in _routes(document) for f in _route(document, path, route)),
    )


def _routes(document: Document) -> Iterator[tuple[Path, Route]]:
    for position, route in enumerate(document.routes):
        yield ("routes", position), route
    if document.default is not None:
        yield ("default",), document.default


# ---- sections of their own ----------------------------------------------------------------


_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")


def _models(document: Document) -> Iterator[Finding]:
    if not document.models:
        yield Finding(("models",), "models: names no target")
    for name, target in document.models.items():
        at: Path = ("models", name)
        if name in RESERVED:
            yield Finding(at, f"{name} has a meaning of its own and cannot name a target", key=True)
        elif not _TARGET.fullmatch(name):
            yield Finding(at, "a target's name is letters, digits and _ . : / -", key=True)
        said = [adapter for adapter in ADAPTERS if getattr(target, adapter) is not None]
        if len(said) != 1:
            found = f"has {' and '.join(said)}" if said else "has none"
            yield Finding(
                at, f"a target has exactly one of {', '.join(ADAPTERS)}; {name} {found}", key=True
            )
        for category, names in target.requires.items():
            yield from _verifiers((*at, "requires", category), names)
        if target.triton is not None:
            yield from _replicas((*at, "triton"), target.triton)
            if target.limits.context_tokens is not None:
                told = "an engine tells its own context; say context_tokens for clouds only"
                yield Finding((*at, "limits", "context_tokens"), told)
        api = target.openai or target.anthropic or target.google
        if api is not None and api.base_url is None and target.is_edge:
            told = f"{DEVICE} is a server of your own, and {name} has no base_url: that says where"
            yield Finding((*at, "residency"), told)


def _replicas(at: Path, rule: Triton) -> Iterator[Finding]:
    """Where an engine is: said once, in a form that can be called and scraped."""
    if rule.address is not None and (wrong := address_fault(rule.address)):
        yield Finding((*at, "address"), wrong)
    if rule.metrics is not None and (wrong := page_fault(rule.metrics)):
        yield Finding((*at, "metrics"), wrong)
    if rule.replicas is None:
        return
    for key in ("address", "metrics"):
        if getattr(rule, key) is not None:
            yield Finding(
                (*at, key), f"replicas: says where the engine is; {key}: goes there", key=True
            )
    if rule.engine is None:
        needed = "replicas: needs engine:, the directory with their tokenizer and limits"
        yield Finding((*at, "replicas"), needed, key=True)
    if isinstance(rule.replicas, Lookup):
        yield from _lookup((*at, "replicas"), rule.replicas)
        return
    for said in misread((replica.address, replica.metrics) for replica in rule.replicas):
        yield Finding((*at, "replicas", said.item, said.key), said.message)


def _lookup(at: Path, rule: Lookup) -> Iterator[Finding]:
    if (rule.dns is None) == (rule.file is None):
        found = "has none" if rule.dns is None else "has both"
        yield Finding(at, f"replicas: is a list, or has exactly one of dns, file; it {found}")
    if rule.dns is not None and (fault := host_fault(rule.dns)):
        yield Finding((*at, "dns"), fault)
    if rule.dns is None:
        for key in ("port", "metrics_port", "family"):
            if key in rule.model_fields_set:
                yield Finding((*at, key), f"{key}: belongs to dns:", key=True)


def _sections(document: Document) -> Iterator[Finding]:
    for name, tool in document.tools.items():
        if tool.parameters and (wrong := schema_fault(tool.parameters)):
            yield Finding(("tools", name, "parameters"), wrong)
    if not document.routes and document.default is None:
        yield Finding((), "a policy needs routes: or a default:, or it refuses everything")


def _classify(document: Document) -> Iterator[Finding]:
    for position, rule in enumerate(document.classify):
        at: Path = ("classify", position)
        if not rule.when.words and rule.when.pattern is None:
            yield Finding((*at, "when"), "when: is empty; say words: or pattern:")
        if rule.when.pattern is not None:
            wrong = "it is empty" if not rule.when.pattern else pattern_fault(rule.when.pattern)
            if wrong:
                yield Finding((*at, "when", "pattern"), f"not a pattern of RE2: {wrong}")
        if not any(rule.set.model_dump().values()):
            yield Finding((*at, "set"), "set: is empty; say at least one label")


def _names(document: Document) -> Iterator[Finding]:
    seen: set[str] = set()
    for position, route in enumerate(document.routes):
        at: Path = ("routes", position, "name")
        if route.name is None:
            continue
        if route.name in RESERVED:
            yield Finding(at, f"{route.name} has a meaning of its own and cannot name a route")
        elif route.name in document.models:
            yield Finding(at, f"{route.name} names a target already; a route needs another name")
        elif route.name in seen:
            yield Finding(at, f"two routes are called {route.name}")
        seen.add(route.name)
    default = document.default
    if default is not None and default.name not in (None, "default"):
        yield Finding(("default", "name"), "the default route is always called default")
    if default is not None and default.match.model_fields_set:
        said = "default: takes what no route matches; it has no match: of its own"
        yield Finding(("default", "match"), said, key=True)


def _unreached(document: Document) -> Iterator[Finding]:
    for later, route in enumerate(document.routes):
        for earlier in range(later):
            if _covers(document.routes[earlier], route):
                said = "never reached: an earlier route takes all that this one matches"
                yield Finding(("routes", later), said, other=("routes", earlier))
                break


def _covers(earlier: Route, later: Route) -> bool:
    """Return whether all that `later` matches is matched by `earlier`."""
    return all(
        not wide or (narrow and set(narrow) <= set(wide))
        for key in type(later.match).model_fields
        for wide, narrow in [(getattr(earlier.match, key), getattr(later.match, key))]
    )


# ---- one route ------------------------------------------------------------------------------


def _route(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    yield from _ladder(document, at, route)
    yield from _beside(document, at, route)
    yield from _verifiers((*at, "verify"), route.verify)
    yield from _repeated((*at, "verify"), route.verify)
    yield from _release(document, at, route)
    yield from _contents(document, at, route)
    yield from check_content.route(document, at, route)
    yield from _times(at, route)


def _rungs(at: Path, route: Route) -> list[tuple[Path, str]]:
    """Return each rung with its place in the document."""
    if isinstance(route.model, AnyOf):
        first = [((*at, "model", "any_of", n), name) for n, name in enumerate(route.model.any_of)]
    else:
        first = [((*at, "model"), route.model)]
    return [*first, *(((*at, "fallback", n), name) for n, name in enumerate(route.fallback))]


def _ladder(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    rungs = _rungs(at, route)
    seen: set[str] = set()
    for position, (path, name) in enumerate(rungs):
        yield from _target(document, path, name)
        if name in seen:
            yield Finding(path, f"{name} stands on this ladder already")
        seen.add(name)
        if name != HUMAN:
            yield from _inside(document, route, path, name)
        elif position < len(rungs) - 1:
            yield Finding(path, f"{HUMAN} can only be the last rung")


def _target(document: Document, path: Path, name: str) -> Iterator[Finding]:
    if name not in document.models and name != HUMAN:
        yield unknown(path, "target", name, (*document.models, HUMAN))


def _inside(document: Document, route: Route, path: Path, name: str) -> Iterator[Finding]:
    """A route with `residency` may only use targets that say they are there."""
    target = document.models.get(name)
    if not route.residency or target is None or target.residency in route.residency:
        return
    where = f"is in {target.residency}" if target.residency else "does not say where it is"
    yield Finding(path, f"{name} {where}, and the route stays in {', '.join(route.residency)}")


def _beside(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    """Targets beside the ladder: where a route spills, what it hedges with, steps down to."""
    beside = []
    if isinstance(route.spill, Spill):
        beside.append(((*at, "spill", "to"), route.spill.to, "spill"))
    if route.hedge is not None:
        beside.append(((*at, "hedge", "to"), route.hedge.to, "hedge"))
    if route.downgrade is not None:
        beside.append(((*at, "downgrade"), route.downgrade, "downgrade"))
        weaker = document.models.get(route.downgrade)
        if weaker is not None and not weaker.is_engine:
            said = f"{route.downgrade} is no engine in Triton; a class steps down to one"
            yield Finding((*at, "downgrade"), said)
    for path, name, word in beside:
        if name == HUMAN:
            yield Finding(path, f"{HUMAN} is never a {word} target")
            continue
        yield from _target(document, path, name)
        yield from _inside(document, route, path, name)
        if name == route.model:
            yield Finding(path, f"{name} is the route's model already; a {word} goes elsewhere")


def _verifiers(path: Path, names: tuple[str, ...]) -> Iterator[Finding]:
    for position, name in enumerate(names):
        if name not in VERIFIERS:
            yield unknown((*path, position), "verifier", name, VERIFIERS)


def _repeated(path: Path, names: tuple[str, ...]) -> Iterator[Finding]:
    for position, name in enumerate(names):
        if name in names[:position]:
            yield Finding((*path, position), f"{name} is listed twice")


def _release(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    """A stream may not be asked to run freer than its verifiers let it."""
    if route.stream is None:
        return
    for name in route.verify:
        needs = check_content.release(document, route, name) or verify.RELEASES.get(
            name, Release.TOKEN
        )
        if name == "json_schema" and _enforceable(document, route):
            needs = Release.TOKEN
        if verify.strictest((needs, route.stream)) is not route.stream:
            said = (
                f"{name} releases text at {needs.value}, and stream: demands {route.stream.value}"
            )
            yield Finding((*at, "stream"), said)


def _enforceable(document: Document, route: Route) -> bool:
    """Return whether every rung decodes under a guide, so that a schema holds from its start."""
    rungs = [name for _, name in _rungs((), route)]
    return all(name in document.models and document.models[name].is_engine for name in rungs)


def _contents(document: Document, at: Path, route: Route) -> Iterator[Finding]:
    # Without a tools: section, tools are those that requests bring; a route only names them.
    if "tools" in document.model_fields_set:
        for position, name in enumerate(route.tools):
            if name not in document.tools:
                yield unknown((*at, "tools", position), "tool", name, document.tools)
    for position, name in enumerate(route.rules):
        if name not in document.rules:
            yield unknown((*at, "rules", position), "content rule", name, document.rules)
    if route.rules and "policy_rules" not in route.verify:
        said = "rules: are checked by policy_rules, which verify: does not list"
        yield Finding((*at, "rules"), said, key=True)
    if route.json_schema is None:
        return
    if wrong := schema_fault(route.json_schema):
        yield Finding((*at, "schema"), wrong)
    if "json_schema" not in route.verify:
        said = "schema: is checked by json_schema, which verify: does not list"
        yield Finding((*at, "schema"), said, key=True)


def _times(at: Path, route: Route) -> Iterator[Finding]:
    slo, longest = route.slo, route.constraints.max_latency_ms
    if longest is not None and slo.e2e_ms is not None and longest != slo.e2e_ms:
        said = f"max_latency_ms is an e2e_ms, and slo: says {slo.e2e_ms}; keep one"
        yield Finding((*at, "constraints", "max_latency_ms"), said)
    whole = slo.e2e_ms or longest
    if whole is None:
        return
    if slo.ttft_ms is not None and slo.ttft_ms > whole:
        said = f"the first token may take longer than the whole answer ({whole} ms)"
        yield Finding((*at, "slo", "ttft_ms"), said)
    if route.hedge is not None and route.hedge.after_ms >= whole:
        said = f"the hedge starts when the answer is due ({whole} ms)"
        yield Finding((*at, "hedge", "after_ms"), said)
