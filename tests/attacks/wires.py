"""The three providers' APIs as a server writes them: answers in pieces, ends, errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edges import anthropic_wire, google_wire
from edges import provider as openai_wire

if TYPE_CHECKING:
    from collections.abc import Callable

WORD = "water "
PROMPT_TOKENS = 40
"""What every provider here counts of a prompt, whatever ours is estimated at."""

CACHED_TOKENS = 30
"""Those of them that it says were cached."""


@dataclass(frozen=True, slots=True)
class Wire:
    """How one provider writes: `path` begins where it is called, `base` is what a policy is told.

    `piece(n)` is the n-th token, from 1; `end(n)` is all that follows the n-th; `told` is whether
    the prompt's tokens are counted before the answer's end. `error` is the body of a status.
    """

    adapter: str
    base: str
    path: str
    told: bool
    start: bytes
    piece: Callable[[int], bytes]
    end: Callable[[int], bytes]
    error: Callable[[int, str], dict[str, Any]]


def _openai_end(said: int) -> bytes:
    counts = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": said,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }
    usage = {"choices": [], "usage": counts}
    return openai_wire.sse(openai_wire.STOP, usage, openai_wire.DONE)


def _openai_error(status: int, words: str) -> dict[str, Any]:
    return openai_wire.said("rate_limit_exceeded" if status == 429 else "server_error", words)


def _anthropic_end(said: int) -> bytes:
    ended = {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": said}}
    return anthropic_wire.event("message_delta", **ended) + anthropic_wire.STOP


def _anthropic_error(status: int, words: str) -> dict[str, Any]:
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": words}}


def _google_piece(said: int) -> bytes:
    return google_wire.piece({"text": WORD}, **_google_counts(said))


def _google_counts(said: int) -> dict[str, Any]:
    told = {"promptTokenCount": PROMPT_TOKENS, "cachedContentTokenCount": CACHED_TOKENS}
    return {"usageMetadata": told | {"candidatesTokenCount": said}}


def _google_error(status: int, words: str) -> dict[str, Any]:
    kind = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}.get(status, "INTERNAL")
    return google_wire.failed(status, kind, words)


OPENAI = Wire(
    adapter="openai",
    base="/v1",
    path="/v1/chat/completions",
    told=False,
    start=openai_wire.sse(openai_wire.delta(role="assistant", content="")),
    piece=lambda _: openai_wire.sse(openai_wire.says(WORD)),
    end=_openai_end,
    error=_openai_error,
)
ANTHROPIC = Wire(
    adapter="anthropic",
    base="",
    path="/v1/messages",
    told=True,
    start=anthropic_wire.start(
        input_tokens=PROMPT_TOKENS - CACHED_TOKENS, cache_read_input_tokens=CACHED_TOKENS
    )
    + anthropic_wire.PING
    + anthropic_wire.block(0, text=""),
    piece=lambda _: anthropic_wire.delta(0, text=WORD),
    end=_anthropic_end,
    error=_anthropic_error,
)
GOOGLE = Wire(
    adapter="google",
    base="",
    path="/v1beta/models/",
    told=True,
    start=b"",
    piece=_google_piece,
    end=lambda said: google_wire.piece(finish="STOP", **_google_counts(said)),
    error=_google_error,
)
WIRES = (OPENAI, ANTHROPIC, GOOGLE)


def text_in(body: dict[str, Any]) -> str:
    """Return what the user says in a request of any of them."""
    return json.dumps(body.get("messages") or body.get("contents"))
