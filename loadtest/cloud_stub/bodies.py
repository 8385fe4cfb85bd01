"""What the stub reads of a request, and the bodies it answers with."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response

FAULTS = {
    "429": "full, with Retry-After: 2",
    "429-bare": "full, and does not say for how long",
    "500": "an internal error",
    "malformed": "200 with what is neither JSON nor a stream",
    "hang": "no byte, ever",
    "stall": "silence after the third token",
    "cut": "the connection breaks after the third token",
    "refusal": "the model declines",
    "content_filter": "the answer ends at the filter after the third token",
}

WORDS = (
    *("A", "forebay", "levels", "the", "flow", "that", "turbines", "get", "and", "its"),
    *("spillway", "carries", "off", "what", "they", "cannot", "take"),
)

DEFAULT_TOKENS = 128
_PAGE = b"<html><body>Bad Gateway</body></html>"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read."""

    model: str
    chat: bool
    stream: bool
    tokens: int
    usage: bool
    prompt_tokens: int
    fault: str | None

    @property
    def counted(self) -> dict[str, Any]:
        """The usage of the whole answer."""
        total = self.prompt_tokens + self.tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


def read(body: bytes, header: str | None, *, chat: bool) -> Asked:
    """Return a request, read; the fault is the header's or else the model's."""
    said = json.loads(body)
    model, _, named = str(said.get("model", "stub")).partition("+")
    tokens = said.get("max_completion_tokens") or said.get("max_tokens") or DEFAULT_TOKENS
    prompt = json.dumps(said.get("messages")) if chat else str(said.get("prompt"))
    return Asked(
        model=model,
        chat=chat,
        stream=bool(said.get("stream")),
        tokens=int(tokens),
        usage=bool((said.get("stream_options") or {}).get("include_usage")),
        prompt_tokens=max(1, len(prompt) // 4),
        fault=header or named or None,
    )


def refusal(fault: str | None) -> Response | None:
    """Return the response that stands in place of an answer."""
    if fault in ("429", "429-bare"):
        full = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
        return JSONResponse({"error": full}, 429, {"retry-after": "2"} if fault == "429" else None)
    if fault == "500":
        return JSONResponse({"error": {"message": "The server had an error"}}, 500)
    return Response(_PAGE, media_type="text/html") if fault == "malformed" else None


def _chunk(model: str, choice: dict[str, Any] | None, *, chat: bool, **more: object) -> bytes:
    made = {
        "id": "stub-1",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 0,
        "model": model,
        "choices": [] if choice is None else [{"index": 0, "finish_reason": None, **choice}],
        **more,
    }
    return b"data: " + json.dumps(made, separators=(",", ":")).encode() + b"\n\n"


@functools.lru_cache(64)
def pieces(model: str, *, chat: bool, refused: bool) -> list[bytes]:
    """Return the events of the words; tokens take them in turn."""
    field = "refusal" if refused else "content"
    said = [{"delta": {field: f"{w} "}} if chat else {"text": f"{w} "} for w in WORDS]
    return [_chunk(model, choice, chat=chat) for choice in said]


def end(asked: Asked, fault: str | None) -> bytes:
    """Return the events after the last token."""
    reason = {None: "length", "content_filter": "content_filter"}.get(fault, "stop")
    said: dict[str, Any] = {"delta": {}} if asked.chat else {"text": ""}
    last = _chunk(asked.model, {"finish_reason": reason, **said}, chat=asked.chat)
    usage = b""
    if asked.usage:
        usage = _chunk(asked.model, None, chat=asked.chat, usage=asked.counted)
    return last + usage + b"data: [DONE]\n\n"


def whole(asked: Asked, fault: str | None) -> dict[str, Any]:
    """Return an answer that is not streamed."""
    text = "".join(f"{WORDS[n % len(WORDS)]} " for n in range(asked.tokens))
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    reason = "content_filter" if fault == "content_filter" else "length"
    choice: dict[str, Any] = {"message": message} if asked.chat else {"text": text}
    return {
        "id": "stub-1",
        "object": "chat.completion" if asked.chat else "text_completion",
        "created": 0,
        "model": asked.model,
        "choices": [{"index": 0, "finish_reason": reason, **choice}],
        "usage": asked.counted,
    }
