"""OpenAI's bodies to requests of ours."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.edges.http_door.bodies import Body, ChatBody, CompletionBody
from forebay.policy.context import (
    MAX_CONTEXT_BYTES,
    MAX_DEADLINE_MS,
    MAX_TOOL_CALLS,
    NOTHING,
    Context,
    bounded,
    checked,
    checked_choice,
    checked_guide,
    context_of,
    earlier,
    fault,
    few,
    fit,
    unique,
    written,
)
from forebay.values import Chat, Guide, Message, Request, Sampling, Text, Tool, ToolCall

_ROLES = {"developer": "system"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came, what it was called, and the deadline its headers state."""

    id: str
    received_s: float
    deadline_ms: int | None
    size_bytes: int


def deadline_header(value: str | None) -> int | None:
    """Return the milliseconds of an `x-forebay-deadline-ms` header, None where there is none."""
    if value is None:
        return None
    digits = value.lstrip("0")
    whole = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_DEADLINE_MS))
    if not (whole and int(digits) <= MAX_DEADLINE_MS):
        wanted = f"must be a whole number of milliseconds from 1 to {MAX_DEADLINE_MS}"
        raise fault("x-forebay-deadline-ms", wanted)
    return int(digits)


def request_of(body: ChatBody | CompletionBody, arrival: Arrival) -> Request:
    """Return what a body asks.

    Raises:
        InvalidRequest: a value is out of its bounds; the sentence names the key.
    """
    brought, prompt = _context(body, arrival), _prompt(body)
    fit(prompt, brought.tools, "auto", "forebay.tools")
    tools, choice, several = brought.tools, "auto", True
    if isinstance(body, ChatBody):
        tools += tuple(
            [
                Tool(tool.function.name, tool.function.description, tool.function.parameters)
                for tool in body.tools
            ]
        )
        unique((tool.name for tool in tools), "tools")
        for position, tool in enumerate(body.tools):
            written(tool.function.parameters, f"tools[{position}].function.parameters")
        choice = checked_choice(body.tool_choice, tools)
        several = body.parallel_tool_calls
    limits_s = (ms / 1000 for ms in (arrival.deadline_ms, brought.deadline_ms) if ms is not None)
    return Request(
        id=arrival.id,
        model=body.model,
        prompt=prompt,
        received_s=arrival.received_s,
        sampling=_sampling(body),
        guide=_guide(body),
        labels=brought.labels,
        sources=brought.sources,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=several,
        deadline_s=earlier(arrival.received_s, *limits_s),
        stream=body.stream,
        explain=brought.explain,
        door="http",
    )


def _context(body: Body, arrival: Arrival) -> Context:
    if body.forebay is None:
        return NOTHING
    if arrival.size_bytes > MAX_CONTEXT_BYTES:
        bounded("forebay", len(written(body.forebay, "forebay")), MAX_CONTEXT_BYTES)
    return context_of(body.forebay)


def _prompt(body: ChatBody | CompletionBody) -> Chat | Text:
    if isinstance(body, CompletionBody):
        return Text(body.prompt)
    made = sum(len(turn.tool_calls) for turn in body.messages)
    few("messages", made, MAX_TOOL_CALLS, "tool calls")
    turns = []
    for turn in body.messages:
        calls = tuple(
            [ToolCall(c.id, c.function.name, c.function.arguments) for c in turn.tool_calls]
        )
        role = _ROLES.get(turn.role, turn.role)
        turns.append(Message(role, turn.content, calls, turn.tool_call_id))
    return Chat(tuple(turns))


def _sampling(body: ChatBody | CompletionBody) -> Sampling:
    most, called = body.max_tokens, {}
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        if most not in (None, body.max_completion_tokens):
            raise fault("max_tokens", "contradicts max_completion_tokens; send one of them")
        most, called = body.max_completion_tokens, {"max_tokens": "max_completion_tokens"}
    logprobs = body.logprobs if isinstance(body, ChatBody) else body.logprobs is not None
    return checked(
        Sampling(
            max_tokens=most,
            min_tokens=body.min_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            seed=body.seed,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            stop=tuple(body.stop),
            logprobs=logprobs,
        ),
        called,
    )


_ANY_OBJECT = '{"type":"object"}'
"""What `json_object` promises: an object, where a guide of kind `json` allows any value."""


def _guide(body: Body) -> Guide | None:
    said = body.response_format
    if said is None or said.type == "text":
        return None
    if said.type == "json_object":
        return Guide("json_schema", _ANY_OBJECT)
    if said.json_schema is None:
        raise fault("response_format.json_schema", "must be given with type json_schema")
    field = "response_format.json_schema.schema"
    return checked_guide(
        Guide("json_schema", written(said.json_schema.schema_, field).decode()), field
    )
