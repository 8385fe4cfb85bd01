"""A request in the terms of Anthropic's messages.

Their API knows two roles: what the system says stands apart, and what a tool returned is said by
the user. How tokens are drawn cannot be said: the API's version of 2026-10-21, which the SDK
speaks, refuses `temperature`, `top_p` and `top_k`, and never had seeds, penalties or logprobs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forebay.edges.cloud import prompts
from forebay.edges.cloud.schemas import ANTHROPIC, is_closed

if TYPE_CHECKING:
    from forebay.values import Call, Message, Request, Tool

_BEGIN = {"role": "user", "content": [{"type": "text", "text": "Begin."}]}
"""A chat has to begin with its user."""

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def params(call: Call, model: str) -> dict[str, Any]:
    """Return the body of a message for one call."""
    request, form = call.request, output_config(call.request)
    said: dict[str, Any] = {
        "model": model,
        "max_tokens": call.max_tokens,
        "stream": True,
        "system": prompts.instructions(request, formed=form is not None) or None,
        "messages": messages(request),
        "stop_sequences": [stop for stop in request.sampling.stop if stop.strip()] or None,
        "output_config": form,
        **_tools(request),
    }
    return {name: value for name, value in said.items() if value is not None}


def messages(request: Request) -> list[dict[str, Any]]:
    """Return a prompt's messages without the system's, those of one role put together.

    All results of calls have to stand in the one message after the calls.
    """
    made: list[dict[str, Any]] = []
    for message in prompts.spoken(request):
        role = "assistant" if message.role == "assistant" else "user"
        if not (blocks := _blocks(message)):
            continue
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        else:
            made.append({"role": role, "content": blocks})
    return made if made and made[0]["role"] == "user" else [_BEGIN, *made]


def output_config(request: Request) -> dict[str, Any] | None:
    """Return the form that an answer is held to, None where it is free or asked for in words.

    Raises:
        InvalidRequest: the guide is one that the API cannot express.
    """
    guide = prompts.guide(request)
    if guide is None or guide.kind == "json":
        return None
    schema = prompts.schema(guide)
    if not is_closed(schema, ANTHROPIC, required=False):
        return None
    return {"format": {"type": "json_schema", "schema": schema}}


def _blocks(message: Message) -> list[dict[str, Any]]:
    """Return a message's parts; an empty text is none."""
    text = [{"type": "text", "text": message.content}] if message.content.strip() else []
    if message.role == "tool":
        told: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id)}
        return [told | {"content": text} if text else told]
    called = [
        {
            "type": "tool_use",
            "id": _id(call.id),
            "name": call.name,
            "input": prompts.arguments(call),
        }
        for call in message.tool_calls
    ]
    return text + called


def _id(said: str | None) -> str:
    return _NOT_IN_IDS.sub("_", said or "") or "call"


def _tools(request: Request) -> dict[str, Any]:
    """Return the tools, also those that may not be called now: earlier calls need them."""
    tools = [_tool(tool) for tool in request.tools]
    if not tools:
        names = {c.name: None for m in prompts.turns(request) for c in m.tool_calls}
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in names]
    if not tools:
        return {}
    choice = request.tool_choice if request.tools else "none"
    kind = {"auto": "auto", "required": "any", "none": "none"}.get(choice)
    told: dict[str, Any] = {"type": kind} if kind else {"type": "tool", "name": choice}
    if choice != "none" and not request.parallel_tool_calls:
        told["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": told}


def _tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": tool.name,
        "input_schema": {"type": "object", **tool.parameters},
    }
    if tool.description:
        told["description"] = tool.description
    return told
