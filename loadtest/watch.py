"""The stop-watch of one request: both doors' clients note the same moments in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loadtest.outcome import Ended, Move, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from loadtest.generator import RunClock
    from loadtest.work import Job


class Watch:
    """Notes what happens to a request from its moment on, and makes the outcome of it."""

    def __init__(self, job: Job, clock: RunClock) -> None:
        """Start at the moment the request is handed to the client's library."""
        self.job = job
        self._clock = clock
        self._sent_s = clock.now_s()
        self._first_s: float | None = None
        self._last_s = 0.0
        self._itl_ms: list[float] = []
        self.events = 0
        """Events that carried tokens."""
        self.tokens = 0
        self.prompt_tokens = 0
        self.moves: list[Move] = []
        self.predicted: dict[str, float] = {}
        """`predicted_ttft_ms`, `predicted_tpot_ms`, `queued_ms`, where the router told them."""
        self.router_ttft_ms: float | None = None

    def came(self, tokens: int) -> bool:
        """Note an event with tokens; return whether the client is to hang up now."""
        now_s = self._clock.now_s()
        if self._first_s is None:
            self._first_s = now_s
        else:
            self._itl_ms.append((now_s - self._last_s) * 1000)
        self._last_s = now_s
        self.events += 1
        self.tokens += tokens
        limit = self.job.hang_up_after
        return limit is not None and self.tokens >= limit

    def leaves_in_s(self) -> float | None:
        """Return how long its client still waits before it leaves as planned; None for ever."""
        leave_s = self.job.leave_after_s
        return None if leave_s is None else self.job.at_s + leave_s - self._clock.now_s()

    def outcome(self, ended: Ended, code: str = "OK", reason: str = "") -> Outcome:
        """Return how it ended, now."""
        job = self.job
        now_s = self._clock.now_s()
        first_s = self._first_s
        return Outcome(
            number=job.number,
            klass=job.klass,
            door=job.door,
            scheduled_s=job.at_s,
            sent_s=self._sent_s,
            ended=ended,
            mode=job.labels.get("mode", ""),
            tier=job.labels.get("tier", ""),
            code=code,
            reason=reason,
            moves=tuple(self.moves),
            prompt_tokens=self.prompt_tokens,
            asked_tokens=job.max_tokens if job.exact else 0,
            completion_tokens=self.tokens,
            ttft_ms=None if first_s is None else (first_s - job.at_s) * 1000,
            e2e_ms=(now_s - job.at_s) * 1000,
            itl_ms=tuple(self._itl_ms),
            slow=job.gap_s > 0,
            router_ttft_ms=self.router_ttft_ms,
            predicted_ttft_ms=self.predicted.get("predicted_ttft_ms"),
            predicted_tpot_ms=self.predicted.get("predicted_tpot_ms"),
            queued_ms=self.predicted.get("queued_ms"),
        )


async def watched(
    watch: Watch, reading: Awaitable[Outcome], patience_s: float | None = None
) -> Outcome:
    """Return the outcome that `reading` gives, or how its client or the run put an end to it.

    What came until then is kept. Cancellation is an outcome, too (`unfinished`): whoever calls
    in a loop must look for it.

    Args:
        watch: The request's.
        reading: Sends it and reads the answer.
        patience_s: How long the client waits, where the reading has no limit of its own.

    Raises:
        TimeoutError: somebody else's, as of a connection that is not answered.
    """
    try:
        async with (
            asyncio.timeout(watch.leaves_in_s()) as leaving,
            asyncio.timeout(patience_s) as limit,
        ):
            return await reading
    except TimeoutError:
        if leaving.expired():
            return watch.outcome("hung_up")
        if not limit.expired():
            raise
        return watch.outcome("failed", "CLIENT_TIMEOUT", f"after {patience_s:g} s")
    except asyncio.CancelledError:
        return watch.outcome("unfinished", "UNFINISHED")
