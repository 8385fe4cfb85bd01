"""An answer in Gemini's pieces: parts of text, thought and calls, an end, what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.edges.cloud.parts import Answer, Malformed, counted, object_of, text_of, tokens_of
from forebay.values import Chunk, Usage

if TYPE_CHECKING:
    from forebay.values import Finish

FINISHES: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    # What some servers that speak the API say.
    "FUNCTION_CALL": "tool_calls",
}

WITHHELD = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION"}
    | {"IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"}
)
"""Ends by which Gemini says that it will not answer this, or not in these words."""


class GoogleAnswer(Answer):
    """An answer in parts; counts come with each piece, and the latest hold."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self._said = 0

    def _read(self, told: dict[str, Any]) -> Chunk | None:
        fresh = self._count(told.get("usageMetadata"))
        blocked = object_of(told.get("promptFeedback"), "feedback").get("blockReason")
        if blocked:
            self.declined = f"its filter stopped the prompt ({str(blocked)[:40]})"
            return None
        text, thought, called = "", "", False
        for candidate in _listed(told.get("candidates"), "candidates"):
            if candidate.get("index", 0) not in (0, None):
                continue
            content = object_of(candidate.get("content"), "content")
            for part in _listed(content.get("parts"), "parts"):
                said = text_of(part.get("text"))
                if part.get("thought"):
                    thought += said
                else:
                    text += said
                called = self._part(part) or called
            if reason := candidate.get("finishReason"):
                self._end(reason)
        self.done = self.finish is not None and self.usage is not None
        if not (text or thought or called):
            return None
        return Chunk(text, fresh or tokens_of(text + thought))

    def _part(self, part: dict[str, Any]) -> bool:
        """Take in a part that calls a tool; each is a call of its own, and whole."""
        made = part.get("functionCall")
        if made is None:
            return False
        made = object_of(made, "a call")
        call = self._call(len(self._calls), made.get("id"), made.get("name"))
        self._argue(call, made.get("args") or "")
        return True

    def _end(self, reason: object) -> None:
        if reason in WITHHELD:
            self.declined = f"its filter stopped the answer ({reason})"
            return
        finish = FINISHES.get(reason) if isinstance(reason, str) else None
        if finish is None:
            raise Malformed(f"it ended the answer by {str(reason)[:40]!r}")
        self.finish = finish

    def _count(self, told: object) -> int:
        """Take in counts and return how many tokens were said since the last ones."""
        if not isinstance(told, dict):
            return 0
        said = counted(told.get("candidatesTokenCount"))
        prompt = counted(told.get("promptTokenCount")) + counted(
            told.get("toolUsePromptTokenCount")
        )
        thought, cached = told.get("thoughtsTokenCount"), told.get("cachedContentTokenCount")
        self.usage = Usage(prompt, said + counted(thought), counted(cached))
        fresh, self._said = said - self._said, max(said, self._said)
        return max(0, fresh)


def _listed(told: object, what: str) -> list[dict[str, Any]]:
    """Return a list of objects that a server told; empty where it told none."""
    if told is None:
        return []
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise Malformed(f"it sent {what} that are no list of objects")
    return told
