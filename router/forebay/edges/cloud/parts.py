"""What the answers of all providers have in common while they arrive: text, calls, an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from forebay.values import Chunk, ToolCall, Usage

if TYPE_CHECKING:
    from forebay.values import Finish

MOST_CALLS = 128
"""Calls in one answer; a model that makes more has lost its way."""

MOST_ARGUMENT_CHARS = 1 << 20
"""Arguments of all calls together."""

MOST_NAME_CHARS = 256

CHARACTERS_PER_TOKEN = 4
"""Bytes of UTF-8 per token, about: of English a little low, of Chinese and code a little high."""


class Malformed(ValueError):
    """What came is no part of an answer; the message says in what way."""


@dataclass(slots=True)
class _Call:
    """A call in the making."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Answer:
    """The state of one answer; each provider's reads its own events.

    After each `feed`, `error` holds what the server said if it said an error, and `declined`
    why the answer is withheld; `finish` is set once the answer is whole, and `done` once nothing
    more can come.
    """

    def __init__(self, request_id: str) -> None:
        self.finish: Finish | None = None
        self.declined: str | None = None
        self.error: object = None
        self.done = False
        self.usage: Usage | None = None
        self._id = request_id
        self._calls: dict[int | str, _Call] = {}
        self._argument_chars = 0

    def feed(self, data: bytes, *, failed: bool = False) -> Chunk | None:
        """Return what one event adds to the answer; None where it adds nothing.

        Args:
            data: The event's data.
            failed: The event is named as an error.

        Raises:
            Malformed: it is none.
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
        return self._read(told)

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
        usage = self._usage
        if self.finish == "length":
            return Chunk(finish="length", usage=usage)
        # Some servers end an answer that calls tools by "stop".
        return Chunk(finish="tool_calls" if calls else "stop", tool_calls=calls, usage=usage)

    def spent(self, said: int) -> Usage | None:
        """Return what is known to have been spent, should the answer be cut here.

        Args:
            said: Tokens of the answer as counted here, which a provider may tell only at its end.
        """
        if (usage := self._usage) is None:
            return None
        return Usage(usage.prompt_tokens, max(said, usage.completion_tokens), usage.cached_tokens)

    @property
    def _usage(self) -> Usage | None:
        # No prompt has no tokens: a server that says so does not count, and ours stands.
        return self.usage if self.usage and self.usage.prompt_tokens else None

    def _read(self, told: dict[str, Any]) -> Chunk | None:
        """Return what an event that is an object adds; each provider's says how."""
        raise NotImplementedError

    def _call(self, place: int | str, said_id: object, name: object) -> _Call:
        """Return the call at a place, a new one if need be."""
        if place not in self._calls and len(self._calls) >= MOST_CALLS:
            raise Malformed(f"it made more than {MOST_CALLS} tool calls")
        call = self._calls.setdefault(place, _Call())
        call.id, call.name = call.id or _short(said_id), call.name or _short(name)
        return call

    def _argue(self, call: _Call, arguments: object) -> None:
        """Add to a call's arguments, as text or as the object that some servers send."""
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        if not isinstance(arguments, str):
            raise Malformed("it sent arguments that are no text")
        self._argument_chars += len(arguments)
        if self._argument_chars > MOST_ARGUMENT_CHARS:
            raise Malformed("its tool calls are too long")
        if arguments:
            call.arguments.append(arguments)


def counted(told: object) -> int:
    """Return a count that a server told; 0 where it is none."""
    return max(0, told) if isinstance(told, int) else 0


def tokens_of(text: str) -> int:
    """Return about how many tokens a text took, at least one: a piece may hold several."""
    return max(1, len(text.encode(errors="replace")) // CHARACTERS_PER_TOKEN)


def text_of(told: object) -> str:
    """Return a text that a server told; empty where it told none."""
    if not isinstance(told, str | None):
        raise Malformed("it sent content that is no text")
    return told or ""


def object_of(told: object, what: str) -> dict[str, Any]:
    """Return an object that a server told; empty where it told none."""
    if not isinstance(told, dict | None):
        raise Malformed(f"it sent {what} that is no object")
    return told or {}


def _short(said: object) -> str:
    return said[:MOST_NAME_CHARS] if isinstance(said, str) else ""
