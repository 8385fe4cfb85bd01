"""What the transport knows of a request: when it came, and until when its client waits."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpc import aio

    from forebay.ports import Clock

_ID: ContextVar[str] = ContextVar("forebay_request_id", default="")
"""The id of the request that the running task answers, for those who log and tell failures."""

_ANSWER_MARGIN_S = 0.01
"""Kept back from a client's deadline, so that ours passes first and is told with its reason."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request's arrival; `remaining_s` is what its deadline left then, None for none."""

    id: str
    received_s: float
    remaining_s: float | None


def arrival_of(context: aio.ServicerContext[Any, Any], clock: Clock) -> Arrival:
    """Return the arrival of the call at hand, as of now, under a new id."""
    remaining_s = context.time_remaining()
    if remaining_s is not None:
        remaining_s = max(remaining_s - _ANSWER_MARGIN_S, 0.0)
    _ID.set(uuid.uuid4().hex)
    return Arrival(_ID.get(), clock.now_s(), remaining_s)


def request_id() -> str:
    """Return the id of the request that this task answers; empty before it has arrived."""
    return _ID.get()
