"""Whether one replica may take one more request now: the limits first, then the prediction.

This is the rule of admission. It reads: is it up, is there a slot, is there memory, is the line
of prompts short enough to bind later, and would the answer keep its class's promise without
breaking that of a stream inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from forebay.values import Prediction, Reason

if TYPE_CHECKING:
    from forebay.policy.admission.feedback import ClassFeedback
    from forebay.policy.admission.replica import Replica
    from forebay.policy.admission.terms import Ask, Place

BIND_LATE_S = 0.12
"""How long a line of prompts an engine may have before the router keeps the next one itself."""

BIND_FACTOR = 1.5
"""What part of a prompt's time decoding beside it costs, roughly."""

SPREADS = 2.0
"""So many mean errors are added to a prediction before it is held against a promise."""

KV_KEPT = 0.1
"""The share of KV cache that classes which may leave do not touch, where one is that may not."""


class Reserves(NamedTuple):
    """What of a pool is kept now: KV cache for classes that may not leave, slots for promises."""

    kv: bool
    slots: bool


ALL = Reserves(kv=True, slots=True)

UNKNOWN = Prediction(0.0, 0.0, 0.0)
"""What is predicted where a limit alone decides."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a request would find at a replica: the first reason against it, and the prediction.

    `ahead` counts from now, not from the request's arrival.
    """

    replica: Replica
    against: Reason | None
    ahead: Prediction = UNKNOWN
    prefill: int = 0

    def predicted(self, elapsed_s: float) -> Prediction:
        """Return the prediction as decisions carry it: from arrival, `elapsed_s` ago."""
        ahead = self.ahead
        return Prediction(elapsed_s + ahead.ttft_s, ahead.tpot_s, elapsed_s + ahead.e2e_s)


def caution(replica: Replica, learnt: ClassFeedback, now_s: float) -> float:
    """Return what a TPOT is multiplied by before it is held against a promise of the class."""
    return learnt.rate.factor(now_s) * (1.0 + SPREADS * replica.tpot_spread)


def pace(ask: Ask, replica: Replica, learnt: ClassFeedback, now_s: float) -> tuple[float, float]:
    """Return TTFT and TPOT that an idle replica would be held to have."""
    ttft_s, tpot_s = replica.idle(ask.prompt_tokens)
    return _held_s(ask, replica, learnt, ttft_s, now_s), tpot_s * caution(replica, learnt, now_s)


def limit(
    ask: Ask, replica: Replica, place: Place, now_s: float, *, reserves: Reserves
) -> Reason | None:
    """Return the first limit that one more request would break.

    A class that is promised something is not sent to wait inside an engine, for a slot or for
    memory: nobody could say how long. One that is promised nothing may, where nobody else asks.
    """
    replica.age(now_s)
    spec, inside = replica.spec, replica.inside
    scrape, outside = replica.scrape, ask.terms.promised or reserves.slots
    if outside and inside >= spec.max_batch:
        return Reason.TARGET_FULL
    if place.max_inflight is not None and inside >= place.max_inflight:
        return Reason.TARGET_FULL
    if scrape is not None:
        # Nobody waiting is never too many: `max_waiting: 0` still lets an idle engine work.
        if scrape.waiting > 0 and scrape.waiting >= place.max_waiting:
            return Reason.QUEUE_FULL
        if scrape.kv_used >= place.kv_ceiling:
            return Reason.KV_CACHE_FULL
    share = 1.0 - KV_KEPT if reserves.kv and ask.terms.spill_to is not None else 1.0
    needed = replica.reserved + replica.foreign_kv + ask.prompt_tokens + ask.max_tokens
    if outside and inside and needed > spec.kv_tokens * share:
        return Reason.KV_CACHE_FULL
    return None


def look(
    ask: Ask,
    replica: Replica,
    place: Place,
    learnt: ClassFeedback,
    now_s: float,
    *,
    reserves: Reserves,
) -> Look:
    """Return what a request would find at `replica`, by limits and by prediction."""
    against = limit(ask, replica, place, now_s, reserves=reserves)
    if against is not None:
        return Look(replica, against)
    cached = replica.cache.tokens(ask.blocks) if ask.blocks else 0
    prefill = max(1, ask.prompt_tokens - cached)
    backlog = replica.backlog(now_s)
    # From now on; what has passed is added last, for no factor applies to it.
    tokens = learnt.longest_tokens(now_s)
    ahead = Prediction(*replica.ahead_s(ask, backlog, prefill, tokens, now_s))
    if ask.deadline_s is not None and now_s + ahead.ttft_s > ask.deadline_s:
        against = Reason.DEADLINE_AT_RISK
    elif _breaks(ask, replica, learnt, ahead, now_s):
        against = Reason.SLO_AT_RISK
    elif ask.terms.spill_to is not None and (
        backlog * replica.coefficients.d_s * BIND_FACTOR > BIND_LATE_S
    ):
        against = Reason.PREFILL_AHEAD
    return Look(replica, against, ahead, prefill)


def _breaks(
    ask: Ask, replica: Replica, learnt: ClassFeedback, ahead: Prediction, now_s: float
) -> bool:
    """Return whether the promise would break, or that of a stream inside."""
    if ask.terms.at_risk and _late(ask, replica, learnt, ahead, now_s):
        return True
    tightest_s = replica.tightest_s()
    if tightest_s is None:
        return False
    if ask.terms.spill_to is None:
        tightest_s *= 1.0 + SPREADS * replica.tpot_spread  # held to the promise, not to its tail
    return ahead.tpot_s > tightest_s


def _late(
    ask: Ask, replica: Replica, learnt: ClassFeedback, ahead: Prediction, now_s: float
) -> bool:
    """Return whether an answer would break its class's promise, by predictions as trusted.

    They are held against it with what the class's own misses have taught and, of a class that
    may leave, with the errors that this replica's predictions have had: whoever has nowhere else
    to go is better off with a fair chance than refused.
    """
    terms, elapsed_s = ask.terms, now_s - ask.arrived_s
    if terms.ttft_s is not None:
        first_s = _held_s(ask, replica, learnt, ahead.ttft_s, now_s)
        if elapsed_s + first_s > terms.ttft_s:
            return True
    if terms.tpot_s is None and terms.e2e_s is None:
        return False
    leaves = terms.spill_to is not None
    factor = caution(replica, learnt, now_s) if leaves else learnt.rate.factor(now_s)
    if terms.tpot_s is not None and ahead.tpot_s * factor > terms.tpot_s:
        return True
    return terms.e2e_s is not None and elapsed_s + ahead.e2e_s * factor > terms.e2e_s


def _held_s(
    ask: Ask, replica: Replica, learnt: ClassFeedback, ttft_s: float, now_s: float
) -> float:
    """Return a predicted TTFT as it is held against the promise."""
    spread_s = SPREADS * replica.ttft_spread_s if ask.terms.spill_to is not None else 0.0
    return ttft_s * learnt.ttft.factor(now_s) + spread_s
