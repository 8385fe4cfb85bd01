"""Every error that may leave Forebay, and the one table that gives each its status.

The type answers the caller's first question, "may I try elsewhere?"; the message is a
sentence for a person. Edges translate foreign exceptions into these, doors translate these
into gRPC and HTTP, and nobody else does either.
"""

from __future__ import annotations

from typing import NamedTuple


class ForebayError(Exception):
    """Root of all errors that a client may see. `param` names the request's field at fault."""

    retry_after_s: float | None = None
    param: str | None = None


class InvalidRequest(ForebayError):
    """The request itself is wrong; sending it again unchanged cannot work."""


class TooLarge(InvalidRequest):
    """The request is larger than a stated bound."""


class UnknownModel(ForebayError):
    """The model named is no route class, no target and no alias."""


class NotPermitted(ForebayError):
    """The call exists and the caller may not make it."""


class Blocked(ForebayError):
    """The policy forbids that anybody answers this request: a rule of its own, or its category."""


class Unmatched(ForebayError):
    """No route of the policy matches, and the policy has no default."""


class NotBuilt(ForebayError):
    """The policy names something that this version knows but cannot do yet."""


class Overloaded(ForebayError):
    """Admission refused: a stated limit would be broken. Try after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineUnavailable(ForebayError):
    """The engine gave no first chunk; the same request is safe to try elsewhere."""

    retry_after_s = 1.0


class EngineFailed(ForebayError):
    """The engine broke after its first chunk; tried elsewhere only if nothing had been sent."""


class AnswerRefused(ForebayError):
    """Every rung of the ladder answered and no answer passed its verifiers."""


class UnknownTicket(ForebayError):
    """No request waits, or has waited, under this ticket."""


class Declined(ForebayError):
    """A provider or its model would not answer this; another target may, the same one will not."""


class DeadlineExceeded(ForebayError):
    """The client's deadline passed, or could not be met."""


class SettingsError(ForebayError):
    """A policy, a setting or an engine is wrong; the message says what, where and what to do."""


class Status(NamedTuple):
    """How one error is told: a stable `reason`, the gRPC code's name, the HTTP status."""

    reason: str
    grpc: str
    http: int


STATUS: dict[type[ForebayError], Status] = {
    InvalidRequest: Status("invalid_request", "INVALID_ARGUMENT", 400),
    TooLarge: Status("too_large", "INVALID_ARGUMENT", 413),
    UnknownModel: Status("unknown_model", "NOT_FOUND", 404),
    NotPermitted: Status("not_permitted", "PERMISSION_DENIED", 403),
    Blocked: Status("blocked", "PERMISSION_DENIED", 403),
    Unmatched: Status("unmatched", "FAILED_PRECONDITION", 422),
    NotBuilt: Status("not_built", "UNIMPLEMENTED", 501),
    Overloaded: Status("overloaded", "RESOURCE_EXHAUSTED", 429),
    EngineUnavailable: Status("engine_unavailable", "UNAVAILABLE", 503),
    EngineFailed: Status("engine_failed", "ABORTED", 502),
    AnswerRefused: Status("answer_refused", "ABORTED", 502),
    UnknownTicket: Status("unknown_ticket", "NOT_FOUND", 404),
    Declined: Status("declined", "FAILED_PRECONDITION", 422),
    DeadlineExceeded: Status("deadline_exceeded", "DEADLINE_EXCEEDED", 504),
    SettingsError: Status("settings", "FAILED_PRECONDITION", 500),
}

BROKEN = Status("internal", "INTERNAL", 500)
"""What a client is told when an expectation of ours broke: no class name, no traceback."""

BROKEN_SENTENCE = "the router broke an expectation of its own; its log has the request id"


def status_of(error: BaseException) -> Status:
    """Return the status of an error; anything that is not ours is `BROKEN`."""
    return STATUS.get(type(error), BROKEN)  # type: ignore[arg-type]


def sentence_of(error: BaseException) -> str:
    """Return what a client may read of an error; a foreign error tells nothing of itself."""
    return str(error) if isinstance(error, ForebayError) else BROKEN_SENTENCE
