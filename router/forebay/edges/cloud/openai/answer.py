"""An answer in OpenAI's chunks, as they arrive: text, tool calls, how it ended, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.edges.cloud.parts import Answer, Malformed, counted, text_of
from forebay.values import Chunk, Usage

if TYPE_CHECKING:
    from forebay.values import Finish

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


class OpenAIAnswer(Answer):
    """An answer in chunks of a chat completion; the server's `[DONE]` says that nothing follows."""

    def _read(self, told: dict[str, Any]) -> Chunk | None:
        if isinstance(told.get("usage"), dict):
            self.usage = _usage(told["usage"])
        choices = told.get("choices")
        if not isinstance(choices, list):
            if self.usage is None:
                raise Malformed("it sent an object without choices")
            return None
        chunk = None
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) in (0, None):
                chunk = self._choice(choice) or chunk
        return chunk

    def _choice(self, choice: dict[str, Any]) -> Chunk | None:
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            raise Malformed("it sent a delta that is no object")
        if delta.get("refusal"):
            self.declined = "its model refused"
        if reason := choice.get("finish_reason"):
            self._end(reason)
        text = text_of(delta.get("content"))
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
            function = delta.get("function")
            function = function if isinstance(function, dict) else {}
            call = self._call(place, delta.get("id"), function.get("name"))
            self._argue(call, function.get("arguments") or "")
        return bool(deltas)


def _usage(told: dict[str, Any]) -> Usage:
    details = told.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        counted(told.get("prompt_tokens")), counted(told.get("completion_tokens")), counted(cached)
    )


def _logprobs(told: object) -> tuple[float, ...]:
    content = told.get("content") if isinstance(told, dict) else None
    if not isinstance(content, list):
        return ()
    found = (one.get("logprob") for one in content if isinstance(one, dict))
    return tuple(float(one) for one in found if isinstance(one, int | float))
