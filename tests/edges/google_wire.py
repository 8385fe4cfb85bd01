"""Gemini's stream, written out."""

from __future__ import annotations

from edges.provider import serving, sse

from forebay.edges.cloud.google import GoogleEngine


def google(*script, model="gemini-3-flash", **more):
    return serving(GoogleEngine, *script, model=model, **more)


def piece(*parts, finish=None, said=None, **more):
    """Return one event: parts of the answer, its end, counts with `said` tokens so far."""
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    ended = {"finishReason": finish} if finish else {}
    counts = {} if said is None else {"usageMetadata": usage(said)}
    return sse({"candidates": [{"index": 0, **content, **ended}], **counts, **more})


def usage(said, **more):
    return {"promptTokenCount": 12, "candidatesTokenCount": said, **more}


def says(*texts):
    return b"".join(piece({"text": text}) for text in texts)


def asks(name, args=None, **more):
    return {"functionCall": {"name": name, "args": args or {}, **more}}


def failed(code, status, message="because", *details):
    more = {"details": list(details)} if details else {}
    return {"error": {"code": code, "status": status, "message": message, **more}}


STOP = piece(finish="STOP", said=7)
