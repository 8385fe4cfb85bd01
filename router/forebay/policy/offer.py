"""What a route adds to a request before a model sees it, and what it asks that is not built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.policy import tools as tool_rules
from forebay.policy import verify
from forebay.policy.rules import AnyOf, Document, Hedge, Route, Spill
from forebay.values import Chat, Guide, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forebay.policy.rules import Target
    from forebay.values import Request


def completed(request: Request, route: Route, document: Document) -> Request:
    """Return the request with the route's tools and schema where it brought none of its own.

    A text that goes to the model as it is cannot tell it of tools, so a route offers it none.

    Raises:
        InvalidRequest: the request demands a call of a tool that it is not offered.
    """
    tools = request.tools
    if not tools and isinstance(request.prompt, Chat):
        tools = tuple(
            Tool(name, document.tools[name].description, document.tools[name].parameters)
            for name in route.tools
            if name in document.tools
        )
    demanded = tool_rules.guide(tools, request.tool_choice)
    guide = demanded or request.guide
    if guide is None and route.json_schema is not None and "json_schema" in route.verify:
        guide = Guide("json_schema", json.dumps(route.json_schema))
    return replace(request, tools=tools, guide=guide)


def not_built(
    route: Route, request: Request | None = None, targets: Mapping[str, Target] | None = None
) -> str | None:
    """Return the first thing that is asked for and this version cannot do, or None.

    A policy may name it, so that it can be written once; a request that reaches it is refused.

    Args:
        route: The class that takes the request.
        request: What it brings may be unread yet: no verifier looks at sources so far.
        targets: The policy's `models:`; those that the route may use are looked at.
    """
    verifiers = (f"verifier {name}" for name in route.verify if name not in verify.BUILT)
    asked = {
        "hedge": route.hedge is not None,
        "budget": route.budget is not None,
        "repair": route.repair > 0,
        "retention": route.retention is not None,
    }
    features = [name for name, used in asked.items() if used]
    features += _of_targets(route, targets or {})
    if request is not None and request.sources:
        features.append("sources")
    return next(verifiers, None) or next(iter(features), None)


def _of_targets(route: Route, targets: Mapping[str, Target]) -> Iterator[str]:
    """Yield what the targets that a route may use say and nobody keeps yet."""
    first = route.model.any_of if isinstance(route.model, AnyOf) else (route.model,)
    beside = [one.to for one in (route.spill, route.hedge) if isinstance(one, Spill | Hedge)]
    for name in (*first, *route.fallback, *beside):
        if (target := targets.get(name)) is None:
            continue
        if target.requires:
            yield f"models.{name}.requires"
        if target.refuses:
            yield f"models.{name}.refuses"
