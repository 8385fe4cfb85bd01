"""What a route adds to a request before a model sees it, and what it asks that is not built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.policy import tools as tool_rules
from forebay.policy import verify
from forebay.policy.rules import AnyOf, Document, Route, Spill
from forebay.values import Guide, Tool

if TYPE_CHECKING:
    from forebay.values import Request


def completed(request: Request, route: Route, document: Document) -> Request:
    """Return the request with the route's tools and schema where it brought none of its own."""
    tools = request.tools or tuple(
        Tool(name, document.tools[name].description, document.tools[name].parameters)
        for name in route.tools
        if name in document.tools
    )
    guide = request.guide or tool_rules.guide(tools, request.tool_choice)
    if guide is None and route.json_schema is not None and "json_schema" in route.verify:
        guide = Guide("json_schema", json.dumps(route.json_schema))
    return replace(request, tools=tools, guide=guide)


def not_built(route: Route) -> str | None:
    """Return the first thing a route asks for that this version cannot do, or None.

    A policy may name it, so that it can be written once; a request that reaches it is refused.
    """
    verifiers = (f"verifier {name}" for name in route.verify if name not in verify.BUILT)
    asked = {
        "model.any_of": isinstance(route.model, AnyOf),
        "hedge": route.hedge is not None,
        "budget": route.budget is not None,
        "repair": route.repair > 0,
        "retention": route.retention is not None,
        "constraints.max_cost_usd": route.constraints.max_cost_usd is not None,
        "spill.when slo_at_risk": isinstance(route.spill, Spill)
        and route.spill.when != "saturated",
        "spill.max_cost": isinstance(route.spill, Spill) and route.spill.max_cost_usd is not None,
    }
    features = (name for name, used in asked.items() if used)
    return next(verifiers, None) or next(features, None)
