"""A request in the terms of OpenAI's chat completions.

A prompt that is plain text is sent as one user message: providers serve their models as chats.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forebay.errors import InvalidRequest
from forebay.policy.context import fault
from forebay.values import Chat, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.values import Call, Guide, Request, Sampling, Tool

CHARACTERS_PER_TOKEN = 4
"""Bytes of UTF-8 per token, about: of English a little low, of Chinese and code a little high."""

MESSAGE_TOKENS = 4
"""What a template puts around each message, about."""

_JSON_ONLY = {"role": "system", "content": "Answer with JSON only."}
"""OpenAI refuses `json_object` where no message says the word."""


def params(call: Call, model: str, *, compatible: bool) -> dict[str, Any]:
    """Return the body of a chat completion for one call.

    Args:
        call: The attempt.
        model: The model's name at the provider.
        compatible: The server is not OpenAI's own but one that speaks its API. It is told
            `max_tokens`, which all of them know and OpenAI's reasoning models refuse, and what
            open-model servers take beyond the API (vLLM's names); OpenAI would refuse those.
    """
    request, sampling = call.request, call.request.sampling
    said: dict[str, Any] = {
        "model": model,
        "messages": messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens" if compatible else "max_completion_tokens": call.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
        "logprobs": sampling.logprobs or None,
        "response_format": response_format(request),
        **_tools(request),
    }
    if compatible:
        said |= _beyond(sampling)
    return {name: value for name, value in said.items() if value is not None}


def messages(request: Request) -> list[dict[str, Any]]:
    """Return a prompt's messages as OpenAI writes them."""
    prompt = request.prompt
    chat = prompt.messages if isinstance(prompt, Chat) else (Message("user", prompt.text),)
    made = [_message(message) for message in chat]
    json_asked = request.guide is not None and request.guide.kind == "json"
    if json_asked and not _demands(request) and not any("json" in m.content.lower() for m in chat):
        made.insert(0, _JSON_ONLY)
    return made


def response_format(request: Request) -> dict[str, Any] | None:
    """Return the form that an answer is asked to have, None where it is free.

    A demanded tool call has a form too; it is asked for by `tool_choice` instead.

    Raises:
        InvalidRequest: the guide is one that the API cannot express.
    """
    guide = request.guide
    if guide is None or _demands(request):
        return None
    if guide.kind == "json":
        return {"type": "json_object"}
    if guide.kind == "regex":
        raise fault("guide", "is a regular expression, which this target cannot be told")
    schema = _schema(guide)
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": is_strict(schema)},
    }


def is_strict(schema: object) -> bool:
    """Return whether a schema keeps to the subset that OpenAI enforces while it decodes.

    Every object says all its properties, requires them and allows no others; the root is such an
    object; only some keywords exist. Elsewhere `strict` would be an error, so it is left out and
    the schema is advice: the verifier judges the answer either way.
    """
    try:
        return isinstance(schema, dict) and schema.get("type") == "object" and _is_closed(schema)
    except (TypeError, AttributeError, RecursionError):  # it is no schema that a check can walk
        return False


def estimated_tokens(request: Request) -> int:
    """Return about how many tokens a prompt has: there is no tokenizer here.

    The provider's own count replaces it when the answer ends.

    Raises:
        InvalidRequest: there is nothing to answer, or it is no text.
    """
    said = list(_said(request))
    try:
        size = sum(len(part.encode()) for part in said)
    except UnicodeEncodeError:
        raise InvalidRequest("the prompt holds half a surrogate pair") from None
    if not size:
        raise InvalidRequest("the prompt is empty")
    prompt = request.prompt
    turns = len(prompt.messages) if isinstance(prompt, Chat) else 1
    return -(-size // CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS * turns


def _said(request: Request) -> Iterator[str]:
    """Yield every text of a prompt that the provider reads."""
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        yield prompt.text
        return
    for message in prompt.messages:
        yield message.content
        for call in message.tool_calls:
            yield call.name
            yield call.arguments
    for tool in _offered(request):
        yield json.dumps(_function(tool), ensure_ascii=False)


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["content"] = message.content or None
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return made


def _offered(request: Request) -> tuple[Tool, ...]:
    return () if request.tool_choice == "none" else request.tools


def _demands(request: Request) -> bool:
    return bool(_offered(request)) and request.tool_choice != "auto"


def _tools(request: Request) -> dict[str, Any]:
    if not (tools := _offered(request)):
        return {}
    choice: Any = request.tool_choice
    if choice not in ("auto", "required"):
        choice = {"type": "function", "function": {"name": choice}}
    told = [{"type": "function", "function": _function(tool)} for tool in tools]
    return {"tools": told, "tool_choice": choice}


def _function(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name}
    if tool.description:
        told["description"] = tool.description
    if tool.parameters:
        told["parameters"] = tool.parameters
    return told


def _beyond(sampling: Sampling) -> dict[str, Any]:
    return {
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "min_tokens": sampling.min_tokens,
        "bad_words": list(sampling.bad) or None,
    }


def _schema(guide: Guide) -> object:
    try:
        schema: object = json.loads(guide.source)
    except (ValueError, RecursionError):
        raise fault("guide", "is a JSON schema that is no JSON") from None
    return schema


_STRICT_WORDS = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const"}
    | {"$ref", "$defs", "definitions", "title", "description", "pattern", "format", "minimum"}
    | {"maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"}
)

_BY_NAME = ("properties", "$defs", "definitions")


def _is_closed(schema: object) -> bool:
    if not isinstance(schema, dict) or not set(schema) <= _STRICT_WORDS:
        return False
    if schema.get("type") == "object" or "properties" in schema:
        names = schema.get("properties")
        required = schema.get("required", [])
        if not isinstance(names, dict) or not isinstance(required, list):
            return False
        if schema.get("additionalProperties") is not False or set(names) != set(required):
            return False
    inner: list[object] = [part for word in _BY_NAME for part in schema.get(word, {}).values()]
    inner += schema.get("anyOf", [])
    inner += [schema["items"]] if "items" in schema else []
    return all(map(_is_closed, inner))
