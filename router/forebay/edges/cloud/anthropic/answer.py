"""An answer in Anthropic's events: blocks of text, thought and calls, an end, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.edges.cloud.parts import (
    Answer,
    Malformed,
    counted,
    object_of,
    text_of,
    tokens_of,
)
from forebay.values import Chunk, Usage

if TYPE_CHECKING:
    from forebay.values import Finish

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


class AnthropicAnswer(Answer):
    """An answer in blocks; events that are not known here add nothing, as the API asks for."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self._counts: dict[str, int] = {}

    def _read(self, told: dict[str, Any]) -> Chunk | None:
        kind = told.get("type")
        if kind == "content_block_delta":
            return self._delta(told.get("index"), object_of(told.get("delta"), "a delta"))
        if kind == "content_block_start":
            return self._block(told.get("index"), object_of(told.get("content_block"), "a block"))
        if kind == "message_start":
            self._count(object_of(told.get("message"), "a message").get("usage"))
        elif kind == "message_delta":
            self._count(told.get("usage"))
            self._end(object_of(told.get("delta"), "a delta"))
        elif kind == "message_stop":
            self.done = True
        elif not isinstance(kind, str):
            raise Malformed("it sent an event without a type")
        return None

    def _block(self, place: object, block: dict[str, Any]) -> Chunk | None:
        if block.get("type") == "tool_use":
            call = self._call(_place(place), block.get("id"), block.get("name"))
            self._argue(call, block.get("input") or "")
            return Chunk("", 1)
        text = text_of(block.get("text"))
        return Chunk(text, tokens_of(text)) if text else None

    def _delta(self, place: object, delta: dict[str, Any]) -> Chunk | None:
        kind = delta.get("type")
        if kind == "text_delta":
            text = text_of(delta.get("text"))
            return Chunk(text, tokens_of(text)) if text else None
        if kind == "input_json_delta":
            said = text_of(delta.get("partial_json"))
            self._argue(self._call(_place(place), None, None), said)
            return Chunk("", tokens_of(said)) if said else None
        if kind == "thinking_delta":
            return Chunk("", tokens_of(text_of(delta.get("thinking"))))
        return None

    def _end(self, delta: dict[str, Any]) -> None:
        reason = delta.get("stop_reason")
        if reason == "refusal":
            told = delta.get("stop_details")
            category = told.get("category") if isinstance(told, dict) else None
            word = f" ({category[:40]})" if isinstance(category, str) else ""
            self.declined = f"its model refused{word}"
            return
        finish = FINISHES.get(reason) if isinstance(reason, str) else None
        if finish is None:
            raise Malformed(f"it ended the answer by {str(reason)[:40]!r}")
        self.finish = finish

    def _count(self, told: object) -> None:
        """Take in counts; each event tells those it knows, and the latest of each holds."""
        if not isinstance(told, dict):
            return
        self._counts |= {name: counted(value) for name, value in told.items() if value is not None}
        counts = self._counts
        cached = counts.get("cache_read_input_tokens", 0)
        # `input_tokens` leaves out what was read from a cache or written to it.
        prompt = counts.get("input_tokens", 0) + counts.get("cache_creation_input_tokens", 0)
        self.usage = Usage(prompt + cached, counts.get("output_tokens", 0), cached)


def _place(said: object) -> int:
    if not isinstance(said, int):
        raise Malformed("it sent a block without a place")
    return said
