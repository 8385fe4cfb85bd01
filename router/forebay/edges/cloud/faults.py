"""What a provider's refusals and breakages mean to the router; the same for every provider.

Whose fault it is decides: a request that is wrong (InvalidRequest) never counts against the
target, a target that is full (Overloaded) spills, one that is broken or set up wrongly
(EngineUnavailable, EngineFailed) fails over, and one that will not answer this (Declined) is
gone round. Foreign words are bounded, and told without the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from forebay.errors import (
    Declined,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
    TooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.edges.cloud.keys import Key

SENTENCE_CHARS = 300
"""As much of a provider's own words is passed on."""

RETRY_S = 1.0
"""When to come back to a provider that is full and does not say."""

MOST_RETRY_S = 3600.0
"""A provider that says longer is taken at this."""

MOST_DETAILS = 16
"""Details of an error that are read."""

DECLINES = frozenset({"content_filter", "content_policy_violation"})
"""Codes by which a provider says that it will not answer this prompt."""

SPENT = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
)
"""Codes of a 429 or 400 that waiting does not mend: somebody has to pay."""

BAD_KEY = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})
"""Google's reasons of a 400 that is no fault of the request's."""

UNSUITED = "FAILED_PRECONDITION"
"""Google's status of a 400 about the account: its region, its billing."""

OVERLOADED = 529
"""Anthropic's status for capacity that is gone; no standard names it."""

_LOCKED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_FULL = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, OVERLOADED)
_WRONG: dict[int, type[InvalidRequest]] = {400: InvalidRequest, 413: TooLarge, 422: InvalidRequest}


@dataclass(frozen=True, slots=True)
class Told:
    """What a provider said in place of an answer; `status` 0 where it gave no number."""

    status: int = 0
    code: str = ""
    sentence: str = ""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """Names one target and its key in every error that its provider causes."""

    target: str
    key: Key | None = None

    def sentence(self, words: object) -> str:
        """Return a provider's words as one bounded line without the key."""
        if not isinstance(words, str):
            return ""
        # Cut before the key is looked for, with room to spare, so that no huge text is searched.
        line = " ".join(words[: 8 * SENTENCE_CHARS].split())
        line = "".join(c for c in line if c.isprintable())
        line = line if self.key is None else self.key.hidden(line)
        return line if len(line) <= SENTENCE_CHARS else line[: SENTENCE_CHARS - 1] + "…"

    def told(self, status: int, body: object, retry_after_s: float | None = None) -> Told:
        """Return what the JSON of an error says, in whichever of the usual shapes it comes."""
        body = body[0] if isinstance(body, list) and body else body  # as Google tells some
        error = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return Told(status, "", self.sentence(error), retry_after_s)
        code, kind = error.get("code"), error.get("type") or error.get("status")
        reason, later_s = _detailed(error.get("details"))
        if not status and isinstance(code, int) and not isinstance(code, bool):
            status = code  # as OpenRouter tells a failure inside a stream
        said = reason or (code if isinstance(code, str) else kind)
        sentence = self.sentence(error.get("message"))
        later_s = later_s if retry_after_s is None else retry_after_s
        return Told(status, said if isinstance(said, str) else "", sentence, later_s)

    def refused(self, told: Told) -> ForebayError:
        """Return our error for a provider that answered with an error before any text."""
        status = told.status or _OF_CODE.get(told.code, 0)
        if told.code in DECLINES:
            return Declined(f"the provider of {self.target} will not answer this")
        if status in _LOCKED or told.code in BAD_KEY:
            return self._locked_out(status)
        words = f": {told.sentence}" if told.sentence else ""
        if status in _FULL and told.code not in SPENT:
            later_s = RETRY_S if told.retry_after_s is None else told.retry_after_s
            return Overloaded(f"{self.target} takes no more now{words}", later_s)
        if status in _WRONG and told.code not in (UNSUITED, *SPENT):
            return _WRONG[status](f"{self.target} refuses the request{words}")
        error = self.unavailable(_why(status, told.code) + words)
        if told.retry_after_s is not None:
            error.retry_after_s = told.retry_after_s
        return error

    def broke(self, why: str, *, begun: bool) -> ForebayError:
        """Return our error for a breakage; `begun` once a part of the answer was handed on."""
        return EngineFailed(f"{self.target} broke off: {why}") if begun else self.unavailable(why)

    def unavailable(self, why: str) -> EngineUnavailable:
        """Return our error for a target that does not answer."""
        return EngineUnavailable(f"{self.target} does not answer: {why}")

    def declined(self, why: str) -> Declined:
        """Return our error for an answer that was withheld."""
        return Declined(f"{self.target} declined to answer: {why}")

    def _locked_out(self, status: int) -> EngineUnavailable:
        # Not the provider's own words: they quote the key.
        if self.key is None:
            return self.unavailable(
                f"its provider wants a key ({status}); name one as `key` in the policy"
            )
        return self.unavailable(
            f"its provider does not accept the key {self.key.source} ({status}); replace the key"
        )


def _why(status: int, code: str) -> str:
    if status == HTTPStatus.NOT_FOUND:
        return "the model or address is unknown there (404)"
    if status == HTTPStatus.PAYMENT_REQUIRED or code in SPENT:
        return "its provider's account has nothing left"
    if status in range(300, 400):
        return f"its address redirects ({status}); write the final one as `base_url`"
    return f"its provider failed ({status})" if status else "its provider failed"


_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": OVERLOADED,
}
"""The status that a code stands for where an error comes without one, inside a stream."""


def retry_after_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Return in how many seconds a provider wants to be asked again, or None if it does not say.

    `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3); some also send `retry-after-ms`.
    """
    said = headers.get("retry-after-ms")
    if (seconds := _number(said, 1000.0)) is None:
        said = headers.get("retry-after")
        seconds = _number(said, 1.0)
    if seconds is None and said is not None:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - wall_s
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return None if seconds is None else min(max(seconds, 0.0), MOST_RETRY_S)


def _detailed(details: object) -> tuple[str | None, float | None]:
    """Return what Google adds to an error: a reason that says more, when to come back."""
    reason = later_s = None
    for one in details[:MOST_DETAILS] if isinstance(details, list) else ():
        if not isinstance(one, dict):
            continue
        if one.get("reason") in BAD_KEY:
            reason = one["reason"]
        delay = one.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            seconds = _number(delay[:-1], 1.0)
            later_s = None if seconds is None else min(max(seconds, 0.0), MOST_RETRY_S)
    return reason, later_s


def _number(said: str | None, per_second: float) -> float | None:
    try:
        seconds = float(said or "") / per_second
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None
