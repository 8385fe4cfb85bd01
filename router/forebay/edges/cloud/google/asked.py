"""A request in the terms of Gemini's `generateContent`.

The API knows two roles, `user` and `model`; what the system says stands apart, and a tool's result
is told by the tool's name. Log-probabilities, repetition penalties and least lengths are not sent.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from forebay.edges.cloud import prompts

if TYPE_CHECKING:
    from forebay.values import Call, Message, Request, Tool, ToolCall

UNSIGNED = "skip_thought_signature_validator"
"""What Gemini's documentation names for calls in a history that carry no signature of thought.

Gemini 3 and later refuse such a history without it. No client of ours could bring the signature
along: the doors' formats have no place for it, and another model may have made the call.
"""

_SIGNS_NOTHING = re.compile(r"gemini-[12]\b|gemini-[12]\.")


def body(call: Call, model: str) -> dict[str, Any]:
    """Return the body of a request for one call."""
    request, sampling = call.request, call.request.sampling
    held = form(request)
    drawn = {
        "maxOutputTokens": call.max_tokens,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "topK": sampling.top_k,
        "seed": sampling.seed,
        "presencePenalty": sampling.presence_penalty,
        "frequencyPenalty": sampling.frequency_penalty,
        "stopSequences": list(sampling.stop) or None,
        **(held or {}),
    }
    said: dict[str, Any] = {
        "contents": contents(request, model),
        "generationConfig": {name: value for name, value in drawn.items() if value is not None},
        **_tools(request),
    }
    if system := prompts.instructions(request, formed=held is not None):
        said["systemInstruction"] = {"parts": [{"text": system}]}
    return said


def contents(request: Request, model: str) -> list[dict[str, Any]]:
    """Return a prompt's turns without the system's, those of one role put together."""
    made: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    signed = _SIGNS_NOTHING.match(model.removeprefix("models/")) is not None
    for message in prompts.spoken(request):
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(message, names, signed=signed)
        if made and made[-1]["role"] == role:
            made[-1]["parts"] += parts
        elif parts:
            made.append({"role": role, "parts": parts})
    return made


def form(request: Request) -> dict[str, Any] | None:
    """Return the form that an answer is held to, None where it is free or asked for in words.

    Beside tools most models refuse a form.

    Raises:
        InvalidRequest: the guide is one that the API cannot express.
    """
    guide = prompts.guide(request)
    if guide is None:
        return None
    schema = prompts.schema(guide) if guide.kind == "json_schema" else None
    if prompts.offered(request):
        return None
    made: dict[str, Any] = {"responseMimeType": "application/json"}
    return made | {"responseJsonSchema": schema} if isinstance(schema, dict) else made


def _parts(message: Message, names: dict[str, str], *, signed: bool) -> list[dict[str, Any]]:
    """Return a message's parts; `names` remembers which tool each call was of."""
    if message.role == "tool":
        return [_result(message, names)]
    parts: list[dict[str, Any]] = [{"text": message.content}] if message.content else []
    for number, call in enumerate(message.tool_calls):
        names[call.id] = call.name
        part = _called(call)
        if number == 0 and not signed:  # only the first of several calls at once carries one
            part["thoughtSignature"] = UNSIGNED
        parts.append(part)
    return parts


def _called(call: ToolCall) -> dict[str, Any]:
    return {"functionCall": {"id": call.id, "name": call.name, "args": prompts.arguments(call)}}


def _result(message: Message, names: dict[str, str]) -> dict[str, Any]:
    """Return what a tool returned, as the object that the API wants."""
    try:
        read = json.loads(message.content)
    except (ValueError, RecursionError):
        read = message.content
    made = {"response": read if isinstance(read, dict) else {"result": read}}
    called = message.tool_call_id or ""
    return {"functionResponse": {"id": called, "name": names.get(called, called or "tool"), **made}}


def _tools(request: Request) -> dict[str, Any]:
    if not (tools := prompts.offered(request)):
        return {}
    choice = request.tool_choice
    config: dict[str, Any] = {"mode": {"auto": "AUTO"}.get(choice, "ANY")}
    if choice not in ("auto", "required"):
        config["allowedFunctionNames"] = [choice]
    return {
        "tools": [{"functionDeclarations": [_tool(tool) for tool in tools]}],
        "toolConfig": {"functionCallingConfig": config},
    }


def _tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters:
        told["parametersJsonSchema"] = tool.parameters
    return told
