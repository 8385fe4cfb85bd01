"""Anthropic's stream, written out."""

from __future__ import annotations

from edges.provider import serving, sse

from forebay.edges.cloud.anthropic import AnthropicEngine


def anthropic(*script, **more):
    return serving(AnthropicEngine, *script, **more)


def event(kind, **told):
    return b"event: " + kind.encode() + b"\n" + sse({"type": kind, **told})


def start(**usage):
    counts = {"input_tokens": 5, "output_tokens": 1, **usage}
    return event("message_start", message={"id": "msg_1", "role": "assistant", "usage": counts})


def block(index, kind="text", **more):
    return event("content_block_start", index=index, content_block={"type": kind, **more})


def delta(index, kind="text_delta", **more):
    return event("content_block_delta", index=index, delta={"type": kind, **more})


def says(*texts):
    """Return one block of text."""
    pieces = b"".join(delta(0, text=text) for text in texts)
    return block(0, text="") + pieces + event("content_block_stop", index=0)


def end(reason="end_turn", **more):
    usage = {"output_tokens": 7}
    return event("message_delta", delta={"stop_reason": reason, **more}, usage=usage)


def failed(kind, message="because"):
    return event("error", error={"type": kind, "message": message})


STOP = event("message_stop")
PING = event("ping")
