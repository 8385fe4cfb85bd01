"""What every adapter asks of a request: its size, the tools it offers, the form it demands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forebay.edges.cloud.parts import CHARACTERS_PER_TOKEN
from forebay.errors import InvalidRequest
from forebay.policy.context import fault
from forebay.values import Chat, Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.values import Guide, Request, Tool, ToolCall

MESSAGE_TOKENS = 4
"""What a template puts around each message, about."""

JSON_ONLY = "Answer with JSON only."


def turns(request: Request) -> tuple[Message, ...]:
    """Return a prompt as a chat; a plain text is one user message."""
    prompt = request.prompt
    return prompt.messages if isinstance(prompt, Chat) else (Message("user", prompt.text),)


def spoken(request: Request) -> tuple[Message, ...]:
    """Return what is not the system's, or all of it where there is nothing else to answer."""
    return tuple(one for one in turns(request) if not _is_system(one)) or turns(request)


def instructions(request: Request, *, formed: bool) -> str:
    """Return what the system says, and the form in words unless the answer is `formed` already."""
    said = [one.content for one in turns(request) if _is_system(one) and one.content.strip()]
    if all(map(_is_system, turns(request))):
        said = []  # they are `spoken`
    told = guide(request)
    if told is not None and not formed:
        said.append(in_words(told))
    return "\n\n".join(said)


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


def offered(request: Request) -> tuple[Tool, ...]:
    """Return the tools that the model may call."""
    return () if request.tool_choice == "none" else request.tools


def demands(request: Request) -> bool:
    """Return whether the answer has to call a tool: its form is then the tool's."""
    return bool(offered(request)) and request.tool_choice != "auto"


def guide(request: Request) -> Guide | None:
    """Return the form that an answer is asked to have in words of its own, None where it is free.

    Raises:
        InvalidRequest: it is one that no provider can be told.
    """
    if request.guide is None or demands(request):
        return None
    if request.guide.kind == "regex":
        raise fault("guide", "is a regular expression, which this target cannot be told")
    return request.guide


def schema(told: Guide) -> object:
    """Return the schema of a guide of that kind.

    Raises:
        InvalidRequest: it is no JSON.
    """
    try:
        read: object = json.loads(told.source)
    except (ValueError, RecursionError):
        raise fault("guide", "is a JSON schema that is no JSON") from None
    return read


def in_words(told: Guide) -> str:
    """Return a form as a sentence for the model, where the provider takes it in no other way."""
    return JSON_ONLY if told.kind == "json" else f"{JSON_ONLY} Its JSON Schema is: {told.source}"


def arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of an earlier call as the object that providers want.

    What some model wrote wrongly is still history: it is told as it was, under one name.
    """
    try:
        read = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        read = call.arguments
    return read if isinstance(read, dict) else {"arguments": read}


def function(tool: Tool) -> dict[str, Any]:
    """Return a tool as OpenAI describes a function."""
    told: dict[str, Any] = {"name": tool.name}
    if tool.description:
        told["description"] = tool.description
    if tool.parameters:
        told["parameters"] = tool.parameters
    return told


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
    return -(-size // CHARACTERS_PER_TOKEN) + MESSAGE_TOKENS * len(turns(request))


def _said(request: Request) -> Iterator[str]:
    """Yield every text of a prompt that the provider reads."""
    for message in turns(request):
        yield message.content
        for call in message.tool_calls:
            yield call.name
            yield call.arguments
    if isinstance(request.prompt, Chat):
        for tool in offered(request):
            yield json.dumps(function(tool), ensure_ascii=False)
