"""A request in the terms of OpenAI's chat completions.

A prompt that is plain text is sent as one user message: providers serve their models as chats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.edges.cloud import prompts
from forebay.edges.cloud.schemas import OPENAI, is_closed

if TYPE_CHECKING:
    from forebay.values import Call, Message, Request, Sampling

_JSON_ONLY = {"role": "system", "content": prompts.JSON_ONLY}
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
    chat = prompts.turns(request)
    made = [_message(message) for message in chat]
    guide = prompts.guide(request)
    json_asked = guide is not None and guide.kind == "json"
    if json_asked and not any("json" in message.content.lower() for message in chat):
        made.insert(0, _JSON_ONLY)
    return made


def response_format(request: Request) -> dict[str, Any] | None:
    """Return the form that an answer is asked to have, None where it is free.

    A demanded tool call has a form too; it is asked for by `tool_choice` instead. A schema that
    OpenAI cannot enforce is advice: the verifier judges the answer either way.

    Raises:
        InvalidRequest: the guide is one that the API cannot express.
    """
    if (guide := prompts.guide(request)) is None:
        return None
    if guide.kind == "json":
        return {"type": "json_object"}
    schema = prompts.schema(guide)
    strict = is_closed(schema, OPENAI, required=True)
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }


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


def _tools(request: Request) -> dict[str, Any]:
    if not (tools := prompts.offered(request)):
        return {}
    choice: Any = request.tool_choice
    if choice not in ("auto", "required"):
        choice = {"type": "function", "function": {"name": choice}}
    told = [{"type": "function", "function": prompts.function(tool)} for tool in tools]
    single = {} if request.parallel_tool_calls else {"parallel_tool_calls": False}
    return {"tools": told, "tool_choice": choice, **single}


def _beyond(sampling: Sampling) -> dict[str, Any]:
    return {
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "min_tokens": sampling.min_tokens,
        "bad_words": list(sampling.bad) or None,
    }
