"""An answer in OpenAI's chunks, as they arrive: text, tool calls, how it ended, what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from forebay.values import Chunk, Finish, ToolCall, Usage

MOST_CALLS = 128
"""Calls in one answer; a model that makes more has lost its way."""

MOST_ARGUMENT_CHARS = 1 << 20
"""Arguments of all calls together."""

FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    # What some OpenAI-compatible servers say.
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
}

FILTERED = ("content_filter", "refusal")


class Malformed(ValueError):
    """What came is no chunk of an answer; the message says in what way."""


@dataclass(slots=True)
class _Call:
    """A call in the making."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """The state of one answer.

    After each `feed`, `error` holds what the server said if it said an error, and `declined`
    why the answer is withheld; `finish` is set once the answer is whole.
    """

    def __init__(self, request_id: str) -> None:
        self.finish: Finish | None = None
        self.declined: str | None = None
        self.error: object = None
        self._id = request_id
        self._calls: dict[int | str, _Call] = {}
        self._argument_chars = 0
        self._usage: Usage | None = None

    def feed(self, data: bytes, *, failed: bool = False) -> Chunk | None:
        """Return what one event adds to the answer; None where it adds nothing.

        Args:
            data: The event's data.
            failed: The event is named as an error.

        Raises:
            Malformed: it is no chunk.
        """
        try:
            told = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise Malformed("it sent what is no JSON") from None
        if not isinstance(told, dict):
            raise Malformed("it sent JSON that is no object")
        if failed or told.get("error"):
            self.error = told
            return None
        if isinstance(told.get("usage"), dict):
            self._usage = _usage(told["usage"])
        choices = told.get("choices")
        if not isinstance(choices, list):
            if self._usage is None:
                raise Malformed("it sent an object without choices")
            return None
        chunk = None
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
                chunk = self._choice(choice) or chunk
        return chunk

    def last(self) -> Chunk:
        """Return the chunk that ends the answer; calls that were cut short are left out.

        Raises:
            Malformed: the answer has not ended, or calls nothing.
        """
        if self.finish is None:
            raise Malformed("it ended the stream before the answer")
        calls = tuple(
            ToolCall(call.id or f"call_{self._id}_{n}", call.name, "".join(call.arguments) or "{}")
            for n, call in enumerate(self._calls.values())
        )
        if any(not call.name for call in calls):
            raise Malformed("it called a tool without a name")
        if self.finish == "length":
            return Chunk(finish="length", usage=self._usage)
        # Some servers end an answer that calls tools by "stop".
        return Chunk(finish="tool_calls" if calls else "stop", tool_calls=calls, usage=self._usage)

    def _choice(self, choice: dict[str, Any]) -> Chunk | None:
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise Malformed("it sent a delta that is no object")
        if delta.get("refusal"):
            self.declined = "its model refused"
        if reason := choice.get("finish_reason"):
            self._end(reason)
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise Malformed("it sent content that is no text")
        called = self._called(delta.get("tool_calls"))
        logprobs = _logprobs(choice.get("logprobs"))
        thought = bool(delta.get("reasoning_content") or delta.get("reasoning"))
        if not (text or called or thought or logprobs):
            return None
        return Chunk(text, len(logprobs) or 1, None, logprobs)

    def _end(self, reason: object) -> None:
        if reason in FILTERED:
            self.declined = "its content filter stopped the answer"
            return
        finish = FINISHES.get(reason) if isinstance(reason, str) else None
        if finish is None:
            raise Malformed(f"it ended the answer by {str(reason)[:40]!r}")
        self.finish = finish

    def _called(self, deltas: object) -> bool:
        """Add to the calls; a delta without an index is a call of its own, by its id."""
        if not isinstance(deltas, list):
            return False
        for delta in deltas:
            if not isinstance(delta, dict):
                raise Malformed("it sent a tool call that is no object")
            place = delta.get("index")
            if not isinstance(place, int):
                place = str(delta.get("id") or len(self._calls))
            if place not in self._calls and len(self._calls) >= MOST_CALLS:
                raise Malformed(f"it made more than {MOST_CALLS} tool calls")
            self._add(self._calls.setdefault(place, _Call()), delta)
        return bool(deltas)

    def _add(self, call: _Call, delta: dict[str, Any]) -> None:
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments") or ""
        if isinstance(arguments, dict):  # as some servers send them
            arguments = orjson.dumps(arguments).decode()
        if not isinstance(arguments, str):
            raise Malformed("it sent arguments that are no text")
        self._argument_chars += len(arguments)
        if self._argument_chars > MOST_ARGUMENT_CHARS:
            raise Malformed("its tool calls are too long")
        if arguments:
            call.arguments.append(arguments)
        call.id = call.id or _short(delta.get("id"))
        call.name = call.name or _short(function.get("name"))


def _short(said: object) -> str:
    return said[:256] if isinstance(said, str) else ""


def _usage(told: dict[str, Any]) -> Usage:
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        _count(told.get("prompt_tokens")), _count(told.get("completion_tokens")), _count(cached)
    )


def _count(told: object) -> int:
    return max(0, told) if isinstance(told, int) else 0


def _logprobs(told: object) -> tuple[float, ...]:
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return ()
    found = (one.get("logprob") for one in content if isinstance(one, dict))
    return tuple(float(one) for one in found if isinstance(one, int | float))
