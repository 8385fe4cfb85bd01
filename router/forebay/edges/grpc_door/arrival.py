"""What the transport knows of a request: when it came, and until when its client waits."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpc import aio

    from forebay.ports import Clock

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
    return Arrival(uuid.uuid4().hex, clock.now_s(), remaining_s)
