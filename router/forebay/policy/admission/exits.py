"""The ways out of a queue: when a request must leave it, and whether a cloud may take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.admission.cloud import CloudLatency
from forebay.values import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.admission.feedback import ClassFeedback
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Outcome, Place

SURE = (0.995, 0.99, 0.98, 0.97, 0.95, 0.9, 0.75, 0.5)
"""Quantiles of a cloud's latency that a request leaves in time for: the first that still can be.

They lie close, for where one just cannot be kept the request waits for the next, and what lies
between them is lost. With each goes a length of answer, the longest first (`ClassFeedback.length`):
what a class promises for a whole answer may be too short for its longest ones, wherever they are
made.
"""

PACE_WAIT_S = 1.0
"""How long a request waits whose class is promised a pace and no beginning."""

HANDOVER_S = 0.05
"""What it takes to ask another engine of our own, beside what that engine takes."""

PROMISE_S = 5.0
"""How long a cloud's place is kept for a request that was sent there and has not asked yet."""

SILENT = 3.0
"""A call that ended without a word, whoever ended it, is a cloud's fault beyond so many times the
slowest of a hundred first tokens: a deadline or a client cuts short what would never have come."""

SILENT_LEAST_S = 1.0
"""No silence shorter than this says anything."""

PASSING = frozenset({None, Reason.TARGET_FULL, Reason.BREAKER_OPEN})
"""What may stand against a cloud now and not when a request must leave."""

SHORT = 0.25
"""How long a short answer is, of the mean one: at the end the hope for one is worth its price."""


class Exits:
    """What is known of the clouds."""

    def __init__(self, places: Mapping[str, Place], outside: Outside) -> None:
        self._places = places
        self._outside = outside
        self.clouds = {
            place.target: CloudLatency(
                place.expect_ttft_s, place.expect_tpot_s, stated=place.expect_stated
            )
            for place in places.values()
            if not place.pool
        }
        self._promised: dict[str, dict[str, float]] = {target: {} for target in self.clouds}

    def leave_s(
        self,
        ask: Ask,
        learnt: ClassFeedback,
        idle: tuple[float, float],
        now_s: float,
        spare: tuple[float, float] | None = None,
    ) -> float:
        """Return when a request waits no longer, on the clock of `now_s`.

        That is the last moment at which a cloud that would take it could still keep the promise,
        as surely as can be, or the engine of our own that it may spill to, with `spare`, its TTFT
        and TPOT; where neither can, the last at which an idle engine of its own would, with
        `idle`. A class that bounds its wait leaves by then; one that is promised a pace alone
        waits `PACE_WAIT_S`, and one that is promised nothing does not wait. A client's deadline
        bounds a wait and never makes one.
        """
        terms, latest_s = ask.terms, self._promised_s(ask, learnt, idle, now_s, spare)
        wait_s = PACE_WAIT_S if terms.wait_s is None and terms.promised else terms.wait_s
        if latest_s is None or terms.wait_s is not None:
            bound_s = ask.arrived_s + (wait_s or 0.0)
            latest_s = bound_s if latest_s is None else min(bound_s, latest_s)
        if ask.deadline_s is not None:
            latest_s = min(latest_s, ask.deadline_s - idle[0])
        return max(now_s, latest_s)

    def unpromised_s(self, ask: Ask, wait_s: float, idle_s: float, now_s: float) -> float:
        """Return when one that is promised nothing, and waits for `wait_s`, leaves.

        Its client's deadline leaves time for the first token of an idle engine of its own, which
        takes `idle_s`, or of the cloud that it may leave for.
        """
        latest_s, cloud = ask.arrived_s + wait_s, self.clouds.get(ask.terms.spill_to or "")
        if ask.deadline_s is not None:
            first_s = idle_s if cloud is None else max(idle_s, cloud.ttft_s())
            latest_s = min(latest_s, ask.deadline_s - first_s)
        return max(now_s, latest_s)

    def _promised_s(
        self,
        ask: Ask,
        learnt: ClassFeedback,
        idle: tuple[float, float],
        now_s: float,
        spare: tuple[float, float] | None,
    ) -> float | None:
        spill_to = ask.terms.spill_to
        cloud = self.clouds.get(spill_to) if spill_to is not None else None
        if spare is not None:
            leave_s = _last_s(ask, learnt.mean_tokens, *spare)
            if leave_s is not None and leave_s - HANDOVER_S > now_s:
                return leave_s - HANDOVER_S
        if cloud is not None and spill_to is not None and self._open(ask, learnt, spill_to, now_s):
            for share in SURE:
                tokens = learnt.length(share)
                leave_s = _last_s(ask, tokens, cloud.ttft_s(share), cloud.tpot_s(share))
                if leave_s is not None and leave_s > now_s:
                    return leave_s
        return _last_s(ask, learnt.mean_tokens, *idle)

    def _open(self, ask: Ask, learnt: ClassFeedback, target: str, now_s: float) -> bool:
        """Return whether a cloud takes a request, or may once somebody there has ended."""
        usd = self.usd(ask, learnt, target)
        return self.barred(ask, learnt, target, usd, now_s) in PASSING

    def usd(self, ask: Ask, learnt: ClassFeedback, target: str) -> float:
        """Return what the answer is expected to cost at a target."""
        place = self._places.get(target)
        tokens = min(float(ask.max_tokens), learnt.mean_tokens)
        return 0.0 if place is None else place.usd(ask.prompt_tokens, tokens)

    def barred(
        self, ask: Ask, learnt: ClassFeedback, target: str, usd: float, now_s: float
    ) -> Reason | None:
        """Return why a request may not spill to `target`, or None.

        An engine of our own, and a target that cannot be called yet, speak for themselves when
        the request comes to them.
        """
        most = ask.terms.spill_max_usd
        if most is not None and usd > most:
            return Reason.COST_CAP
        if (cloud := self.clouds.get(target)) is None:
            return None
        if (reason := self.closed(ask, target, usd, now_s)) is not None:
            return reason
        if not cloud.known:
            return None  # nobody said how slow it is, and it was not called often enough to tell
        # What is likely must still fit at the end; else the answer would be late and dear.
        last_s = _last_s(ask, SHORT * learnt.mean_tokens, *cloud.likely(now_s))
        return Reason.CLOUD_TOO_SLOW if last_s is not None and last_s < now_s else None

    def closed(self, ask: Ask, target: str, usd: float, now_s: float) -> Reason | None:
        """Return what stands against calling a cloud, fast enough or not."""
        place, cloud = self._places[target], self.clouds[target]
        if ask.prompt_tokens > ask.room_tokens and ask.target == target:
            return Reason.PROMPT_TOO_LONG
        if self.too_dear(ask, usd):
            return Reason.COST_CAP
        cloud.forget(now_s)
        if ask.deadline_s is not None and now_s + cloud.soonest_s(now_s) > ask.deadline_s:
            return Reason.DEADLINE_AT_RISK
        coming = self._coming(target, ask, now_s)
        if place.max_inflight is not None and cloud.inflight + coming >= place.max_inflight:
            return Reason.TARGET_FULL
        if coming and self._outside.doubts(target, now_s):
            return Reason.BREAKER_OPEN
        return self._outside.bars(target, ask, usd, now_s)

    def promise(self, ask: Ask, target: str, now_s: float) -> None:
        """Keep a place at a cloud for a request that was told to go there."""
        if target in self.clouds:
            self._promised[target][ask.id] = now_s + PROMISE_S

    def _coming(self, target: str, ask: Ask, now_s: float) -> int:
        """Return how many others were told to go to a cloud and have not come yet."""
        promised = self._promised[target]
        for one in [one for one, until_s in promised.items() if until_s <= now_s]:
            del promised[one]
        return len(promised) - (ask.id in promised)

    def too_dear(self, ask: Ask, usd: float) -> bool:
        """Return whether a request would cost more than its class lets it, all rungs together."""
        most = ask.terms.max_usd
        return most is not None and usd > 0 and ask.spent_usd + usd > most

    def sent(self, ask: Ask, target: str, usd: float, now_s: float) -> None:
        """Note that a request goes to a cloud now."""
        self._promised[target].pop(ask.id, None)
        self.clouds[target].inflight += 1
        self._outside.sent(target, ask, usd, now_s)

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Note how a request ended that went to a cloud at `sent_s`."""
        self.clouds[target].inflight -= 1
        self._outside.ended(target, outcome, sent_s, now_s)

    def spoke(self, target: str, sent_s: float, now_s: float) -> None:
        """Note that the first token came of a request that went to a cloud at `sent_s`."""
        self._outside.spoke(target, sent_s, now_s)

    def silent(self, target: str, sent_s: float, now_s: float) -> None:
        """Note that a call sent at `sent_s` was ended before its cloud had said a word."""
        enough_s = max(SILENT_LEAST_S, SILENT * self.clouds[target].ttft_s())
        if now_s - sent_s > enough_s:
            self._outside.broke(target, sent_s, now_s)

    def full(self, target: str, later_s: float, sent_s: float, now_s: float) -> None:
        """Note that a cloud said to a call sent at `sent_s` that it is full."""
        self._outside.full(target, later_s, sent_s, now_s)


def _last_s(ask: Ask, output_tokens: float, ttft_s: float, tpot_s: float) -> float | None:
    """Return when an answer must be begun with so much latency to keep every promise, or None."""
    terms, latest = ask.terms, []
    if terms.ttft_s is not None:
        latest.append(ask.arrived_s + terms.ttft_s - ttft_s)
    if terms.e2e_s is not None:
        tokens = min(float(ask.max_tokens), output_tokens)
        latest.append(ask.arrived_s + terms.e2e_s - ttft_s - tokens * tpot_s)
    if latest and ask.deadline_s is not None:
        latest.append(ask.deadline_s - ttft_s)
    return min(latest, default=None)
