"""Events to OpenAI's JSON: whole answers, and the frames of a stream.

A stream's frame for one token is a prefix made once, the text, and a suffix: the only thing
encoded for each token is its text.

Every answer says under `forebay` where it went; with `explain` also why, and what verifiers said.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from forebay.errors import BROKEN_SENTENCE, ForebayError, sentence_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.values import Decided, Done, Ticket, Token, ToolCall, Verdict

DONE = b"data: [DONE]\n\n"
_TEXT_AS_WRITTEN = orjson.dumps("\x00")
"""Where a token's text goes in a frame that is made once; nothing else in it is this string."""


@dataclass(slots=True)
class Told:
    """What has been said of one request so far, whole answers and streams alike."""

    request_id: str
    explain: bool
    decided: Decided | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    ticket: Ticket | None = None
    texts: list[str] = field(default_factory=list)
    logprobs: list[tuple[str, float]] = field(default_factory=list)

    def decide(self, decided: Decided) -> None:
        """Take the newest decision; what was judged of an earlier answer is void."""
        self.decided = decided
        self.verdicts.clear()

    @property
    def model(self) -> str:
        """The target that answers."""
        return self.decided.target if self.decided else ""

    def forebay(self) -> dict[str, Any]:
        """Return the `forebay` object of an answer."""
        said: dict[str, Any] = {"request_id": self.request_id}
        if self.decided is not None:
            whole = asdict(self.decided)
            kept = (
                whole
                if self.explain
                else {k: whole[k] for k in ("route", "target", "move", "reason")}
            )
            said.update(kept)
        return said

    def judged(self, done: Done) -> dict[str, Any]:
        """Return the `forebay` object that ends a stream: what was found of the answer."""
        said: dict[str, Any] = {"flagged": done.flagged}
        if self.ticket is not None:
            said["ticket"] = ticket_json(self.ticket)
        if self.explain:
            said |= {"verdicts": self.verdicts, "timing": done.timing}
        return said


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


def ticket_json(ticket: Ticket) -> dict[str, Any]:
    """Return a ticket as `GET /v1/tickets/{id}` tells it, with where that is."""
    return {
        "id": ticket.id,
        "object": "ticket",
        "state": ticket.state,
        "created": round(ticket.at_wall_s),
        "url": f"/v1/tickets/{ticket.id}",
    }


def parked(ticket: Ticket) -> str:
    """Return what stands in place of an answer that a person will give."""
    return f"A person will answer this. Ask again at /v1/tickets/{ticket.id}"


def finish_of(done: Done) -> str:
    """Return OpenAI's finish reason; it has none for an answer that a person withholds so far."""
    return "content_filter" if done.finish == "ticket" else done.finish


def paired(token: Token) -> list[tuple[str, float]]:
    """Return each log-probability with its text: the first has all, tokens share one text."""
    texts = (token.text, *("" for _ in token.logprobs[1:]))
    return list(zip(texts, token.logprobs, strict=False))


def usage(done: Done) -> dict[str, int]:
    """Return OpenAI's `usage` object."""
    read, written = done.usage.prompt_tokens, done.usage.completion_tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


_TYPES = {403: "permission_error", 429: "rate_limit_error"}


def error_body(error: BaseException) -> bytes:
    """Return an error in OpenAI's shape; `code` is the stable reason, `retry_after_s` is ours."""
    status = status_of(error)
    told = error_json(
        status.http,
        status.reason,
        sentence_of(error) or BROKEN_SENTENCE,
        error.param if isinstance(error, ForebayError) else None,
    )
    if (after_s := getattr(error, "retry_after_s", None)) is not None:
        told["error"]["retry_after_s"] = after_s
    return orjson.dumps(told)


def error_json(http: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the object that tells an error."""
    kind = "server_error" if http >= 500 else _TYPES.get(http, "invalid_request_error")  # noqa: PLR2004
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def error_frame(error: BaseException) -> bytes:
    """Return the event that ends a broken stream; neither a finish reason nor [DONE] follows."""
    return b"data: " + error_body(error) + b"\n\n"


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
