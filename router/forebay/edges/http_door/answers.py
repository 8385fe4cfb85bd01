"""What is told of one request in OpenAI's terms: its answer's parts, a ticket, an error.

Every answer says under `forebay` where it went; with `explain` also why, and what verifiers said.
`shapes.py` puts the parts together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from forebay.errors import BROKEN_SENTENCE, ForebayError, sentence_of, status_of

if TYPE_CHECKING:
    from forebay.values import Decided, Done, Ticket, Token, Verdict


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
