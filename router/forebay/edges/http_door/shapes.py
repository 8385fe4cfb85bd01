"""Events to OpenAI's JSON: whole answers, and the frames of a stream.

A stream's frame for one token is a prefix made once, the text, and a suffix: the only thing
encoded for each token is its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import orjson

from forebay.edges.http_door.answers import finish_of, paired, parked, usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.edges.http_door.answers import Told
    from forebay.values import Done, Token, ToolCall

DONE = b"data: [DONE]\n\n"
_TEXT_AS_WRITTEN = orjson.dumps("\x00")
"""Where a token's text goes in a frame that is made once; nothing else in it is this string."""


class Shape(Protocol):
    """How one of OpenAI's endpoints writes what happens."""

    def whole(self, told: Told, done: Done) -> bytes:
        """Return the body of a whole answer."""
        ...

    def first(self, told: Told) -> bytes:
        """Return what stands before a stream's first text."""
        ...

    def text(self, token: Token) -> bytes:
        """Return the frame of one token."""
        ...

    def last(self, told: Told, done: Done) -> bytes:
        """Return what ends a whole stream."""
        ...


class ChatShape:
    """`chat.completion` and its chunks."""

    def __init__(self, created_s: int, *, logprobs: bool, usage: bool) -> None:
        self._created_s = created_s
        self._logprobs = logprobs
        self._usage = usage
        self._head: dict[str, Any] = {}
        self._before = self._after = b""

    def whole(self, told: Told, done: Done) -> bytes:
        """Return one `chat.completion`."""
        text = "".join(told.texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if told.ticket is not None:
            message |= {"content": None, "refusal": parked(told.ticket)}
        if done.tool_calls:
            message["content"] = text or None
            message["tool_calls"] = [_call(call) for call in done.tool_calls]
        probs = _content_probs(told.logprobs) if self._logprobs else None
        return orjson.dumps(
            {
                "id": f"chatcmpl-{told.request_id}",
                "object": "chat.completion",
                "created": self._created_s,
                "model": told.model,
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "logprobs": probs,
                        "finish_reason": finish_of(done),
                    }
                ],
                "usage": usage(done),
                "forebay": told.forebay() | told.judged(done),
            }
        )

    def first(self, told: Told) -> bytes:
        """Return the chunk that names the role and the decision."""
        self._head = {
            "id": f"chatcmpl-{told.request_id}",
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": told.model,
        }
        if self._usage:
            self._head["usage"] = None
        written = _frame(self._chunk({"content": "\x00"}))
        self._before, self._after = written.split(_TEXT_AS_WRITTEN)
        opening = {"role": "assistant", "content": "", "refusal": None}
        return _frame(self._chunk(opening) | {"forebay": told.forebay()})

    def text(self, token: Token) -> bytes:
        """Return one chunk of text."""
        if self._logprobs:
            probs = _content_probs(paired(token))
            return _frame(self._chunk({"content": token.text}, logprobs=probs))
        return self._before + orjson.dumps(token.text) + self._after

    def last(self, told: Told, done: Done) -> bytes:
        """Return the tool calls, the finish reason, the usage where asked for, and [DONE]."""
        delta: dict[str, Any] = {}
        if done.tool_calls:
            calls = enumerate(done.tool_calls)
            delta["tool_calls"] = [{"index": i} | _call(call) for i, call in calls]
        if told.ticket is not None:
            delta["refusal"] = parked(told.ticket)
        end = self._chunk(delta, finish=finish_of(done)) | {"forebay": told.judged(done)}
        frames = [_frame(end)]
        if self._usage:
            frames.append(_frame(self._head | {"choices": [], "usage": usage(done)}))
        return b"".join((*frames, DONE))

    def _chunk(
        self, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._head | {"choices": [choice]}


class CompletionShape:
    """`text_completion`, whole and in chunks."""

    def __init__(self, created_s: int, *, logprobs: bool, usage: bool) -> None:
        self._created_s = created_s
        self._logprobs = logprobs
        self._usage = usage
        self._head: dict[str, Any] = {}
        self._before = self._after = b""
        self._offset = 0

    def whole(self, told: Told, done: Done) -> bytes:
        """Return one `text_completion`."""
        self._begin(told)
        probs = self._probs(told.logprobs) if self._logprobs else None
        choice = _choice("".join(told.texts), probs, finish_of(done))
        said = told.forebay() | told.judged(done)
        return orjson.dumps(
            self._head | {"choices": [choice], "usage": usage(done), "forebay": said}
        )

    def first(self, told: Told) -> bytes:
        """Return the chunk that names the decision."""
        self._begin(told)
        if self._usage:
            self._head["usage"] = None
        written = _frame(self._head | {"choices": [_choice("\x00", None, None)]})
        self._before, self._after = written.split(_TEXT_AS_WRITTEN)
        return _frame(
            self._head | {"choices": [_choice("", None, None)], "forebay": told.forebay()}
        )

    def text(self, token: Token) -> bytes:
        """Return one chunk of text."""
        if self._logprobs:
            choice = _choice(token.text, self._probs(paired(token)), None)
            return _frame(self._head | {"choices": [choice]})
        return self._before + orjson.dumps(token.text) + self._after

    def last(self, told: Told, done: Done) -> bytes:
        """Return the finish reason, the usage where asked for, and [DONE]."""
        end = {"choices": [_choice("", None, finish_of(done))], "forebay": told.judged(done)}
        frames = [_frame(self._head | end)]
        if self._usage:
            frames.append(_frame(self._head | {"choices": [], "usage": usage(done)}))
        return b"".join((*frames, DONE))

    def _begin(self, told: Told) -> None:
        self._head = {
            "id": f"cmpl-{told.request_id}",
            "object": "text_completion",
            "created": self._created_s,
            "model": told.model,
        }

    def _probs(self, pairs: Iterable[tuple[str, float]]) -> dict[str, Any]:
        tokens, probs, offsets = [], [], []
        for text, prob in pairs:
            tokens.append(text)
            probs.append(prob)
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": tokens,
            "token_logprobs": probs,
            "top_logprobs": None,
            "text_offset": offsets,
        }


def _choice(text: str, probs: Any, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": probs, "finish_reason": finish}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _content_probs(pairs: Iterable[tuple[str, float]]) -> dict[str, Any]:
    content = [
        {"token": text, "logprob": prob, "bytes": list(text.encode()), "top_logprobs": []}
        for text, prob in pairs
    ]
    return {"content": content, "refusal": None}


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
