"""What a route adds to a request before a model sees it, and what it asks that is not built."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.policy import tools as tool_rules
from forebay.policy import verify
from forebay.policy.sources import shown
from forebay.policy.verifiers import citations
from forebay.values import Chat, Guide, Message, Tool

if TYPE_CHECKING:
    from forebay.policy.rules import Document, Route
    from forebay.values import Request


REPAIR = "That answer was not accepted. Answer again, in full, and mend this:"
"""What a model is told before the reason for which its answer failed."""


def completed(request: Request, route: Route, document: Document) -> Request:
    """Return the request with the route's tools and schema where it brought none of its own.

    A chat on a route that verifies what sources say shows them to the model. A text that goes to
    the model as it is cannot tell it of tools, so a route offers it none; what sources it shows
    is its writer's affair too.

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
    prompt = request.prompt
    if request.sources and isinstance(prompt, Chat) and verify.reads_sources(route):
        prompt = shown(prompt, request.sources, cite=citations.NAME in route.verify)
    return replace(request, prompt=prompt, tools=tools, guide=guide)


def repaired(request: Request, answer: str, why: str) -> Request | None:
    """Return the request once more, with the answer that failed and the verdict's reason.

    The reason is a verifier's, and the answer is already in the model's own words: neither tells
    it anything that a client did not bring. A plain text has nobody to say it to: None.
    """
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        return None
    said = Message("assistant", answer)
    asked = Message("user", f"{REPAIR} {why}")
    return replace(request, prompt=Chat((*prompt.messages, said, asked)))


def not_built(route: Route, request: Request | None = None) -> str | None:
    """Return the first thing that is asked for and this version cannot do, or None.

    A policy may name it, so that it can be written once; a request that reaches it is refused.

    Args:
        route: The class that takes the request.
        request: What it brings may go unread: sources where no verifier looks at them.
    """
    verifiers = (f"verifier {name}" for name in route.verify if name not in verify.BUILT)
    asked = {
        "budget": route.budget is not None,
        "retention": route.retention is not None,
    }
    features = [name for name, used in asked.items() if used]
    if request is not None and request.sources and not verify.reads_sources(route):
        features.append("sources")
    return next(verifiers, None) or next(iter(features), None)
