"""Whether one replica may take one more request now: the limits first, then the prediction.

This is the rule of admission. It reads: is it up, is there a slot, is there memory, is the line
of prompts short enough to bind later, and would the answer keep its class's promise without
breaking that of a stream inside.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from forebay.values import Prediction, Reason

if TYPE_CHECKING:
    from forebay.policy.admission.feedback import ClassFeedback
    from forebay.policy.admission.replica import Replica, View
    from forebay.policy.admission.terms import Ask, Place

BIND_LATE_S = 0.12
"""How long a line of prompts an engine may have before the router keeps the next one itself."""

BIND_FACTOR = 1.5
"""What part of a prompt's time decoding beside it costs, roughly."""

TTFT_SPREADS, TPOT_SPREADS = 3.0, 1.5
"""So many mean errors are added to a prediction before it is held against a promise. A surer first
token costs those who came in the last moment, a surer pace costs every engine a stream."""

KV_KEPT = 0.1
"""The share of KV cache that classes which may leave do not touch, where one is that may not."""


class Reserves(NamedTuple):
    """What of a pool is kept now: KV cache for classes that may not leave, slots for promises."""

    kv: bool
    slots: bool


ALL = Reserves(kv=True, slots=True)

UNKNOWN = Prediction(0.0, 0.0, 0.0)
"""What is predicted where a limit alone decides."""


class Look(NamedTuple):
    """What a request would find at a replica: the first reason against it, and the prediction.

    The prediction counts from now, not from the request's arrival.
    """

    replica: Replica
    against: Reason | None
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    e2e_s: float = 0.0
    prefill: int = 0

    def predicted(self, elapsed_s: float) -> Prediction:
        """Return the prediction as decisions carry it: from arrival, `elapsed_s` ago."""
        return Prediction(elapsed_s + self.ttft_s, self.tpot_s, elapsed_s + self.e2e_s)


class Bar(NamedTuple):
    """What predictions for one request are held against now, the same at every replica.

    `ttft_s` and `e2e_s` are what is left of its promises, infinite where nothing is promised or a
    miss is no reason to leave. Predictions are multiplied by the factors, which the class's own
    misses have taught, and get so many `spreads` on top: none of a class that may not leave, for
    whoever has nowhere else to go is better off with a fair chance than refused. `tokens` is how
    long its answer may grow.
    """

    ask: Ask
    ttft_s: float
    tpot_s: float
    e2e_s: float
    ttft_factor: float
    rate_factor: float
    ttft_spreads: float
    tpot_spreads: float
    tokens: float


def bar(ask: Ask, learnt: ClassFeedback, now_s: float) -> Bar:
    """Return what predictions for a request are held against now."""
    terms, elapsed_s = ask.terms, now_s - ask.arrived_s
    held, leaves = terms.at_risk, terms.spill_to is not None
    return Bar(
        ask,
        terms.ttft_s - elapsed_s if held and terms.ttft_s is not None else inf,
        terms.tpot_s if held and terms.tpot_s is not None else inf,
        terms.e2e_s - elapsed_s if held and terms.e2e_s is not None else inf,
        learnt.ttft.factor(now_s),
        learnt.rate.factor(now_s),
        TTFT_SPREADS if leaves else 0.0,
        TPOT_SPREADS if leaves else 0.0,
        min(float(ask.max_tokens), learnt.longest_tokens(now_s)),
    )


def caution(replica: Replica, learnt: ClassFeedback, now_s: float) -> float:
    """Return what a TPOT is multiplied by before it is held against a promise of the class."""
    return learnt.rate.factor(now_s) * (1.0 + TPOT_SPREADS * replica.tpot_spread)


def pace(ask: Ask, replica: Replica, learnt: ClassFeedback, now_s: float) -> tuple[float, float]:
    """Return TTFT and TPOT that an idle replica would be held to have, for one that may leave."""
    ttft_s, tpot_s = replica.idle(ask.prompt_tokens)
    first_s = ttft_s * learnt.ttft.factor(now_s) + TTFT_SPREADS * replica.ttft_spread_s
    return first_s, tpot_s * caution(replica, learnt, now_s)


def limit(
    ask: Ask, replica: Replica, view: View, place: Place, reserves: Reserves
) -> Reason | None:
    """Return the first limit that one more request would break.

    A class that is promised something is not sent to wait inside an engine, for a slot or for
    memory: nobody could say how long. One that is promised nothing may, where nobody else asks.
    """
    spec, scrape, inside = replica.spec, replica.scrape, view.inside
    outside = ask.terms.promised or reserves.slots
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
    share = 1.0 - KV_KEPT if reserves.kv and not ask.terms.stays else 1.0
    needed = view.used + ask.prompt_tokens + ask.max_tokens
    if outside and inside and needed > spec.kv_tokens * share:
        return Reason.KV_CACHE_FULL
    return None


def look(
    held: Bar, replica: Replica, view: View, place: Place, now_s: float, *, reserves: Reserves
) -> Look:
    """Return what a request would find at `replica`, by limits and by prediction."""
    ask = held.ask
    against = limit(ask, replica, view, place, reserves)
    if against is not None:
        return Look(replica, against)
    cached = replica.cache.tokens(ask.blocks) if ask.blocks else 0
    prefill = max(1, ask.prompt_tokens - cached)
    ttft_s, tpot_s = view.ahead_s(ask.prompt_tokens, prefill)
    e2e_s = ttft_s + held.tokens * tpot_s
    if ask.deadline_s is not None and now_s + ttft_s > ask.deadline_s:
        against = Reason.DEADLINE_AT_RISK
    elif _late(held, view, ttft_s, tpot_s) or _harms(ask, view, tpot_s):
        against = Reason.SLO_AT_RISK
    elif replica.breaks(view, prefill, now_s, fair=ask.terms.stays):
        against = Reason.SLO_AT_RISK  # not its own, but that of a stream which bears no more yet
    elif view.empties and not ask.terms.stays:
        against = Reason.SLO_AT_RISK  # not its own, but that of the one for whom it empties
    elif long_line(view) and waits_here(ask, reserves):
        against = Reason.PREFILL_AHEAD
    return Look(replica, against, ttft_s, tpot_s, e2e_s, prefill)


def too_slow(held: Bar, view: View) -> bool:
    """Return whether TPOT alone is against a request, even without what its own prompt adds.

    `look` then says no whatever else it finds, and takes ten times as long to.
    """
    tpot_s = view.floor_s + view.slope_s * held.ask.prompt_tokens
    factor = held.rate_factor * (1.0 + held.tpot_spreads * view.tpot_spread)
    return tpot_s * factor > held.tpot_s or _harms(held.ask, view, tpot_s)


def long_line(view: View) -> bool:
    """Return whether so many prompts wait in an engine that the next one waits in the router."""
    return view.backlog * view.d_s * BIND_FACTOR > BIND_LATE_S


def waits_here(ask: Ask, reserves: Reserves) -> bool:
    """Return whether a request stays in the router's line rather than behind an engine's.

    Whoever goes first anyway gains nothing by that, unless no first token was promised: then it
    would only stand before those to whom one was.
    """
    terms = ask.terms
    if terms.stays:
        return terms.ttft_s is None
    return terms.promised or terms.spill_to is not None or reserves.slots


def could(held: Bar, replica: Replica) -> bool:
    """Return whether a request that may not leave would keep its promise were nobody else there."""
    ttft_s, tpot_s = replica.idle(held.ask.prompt_tokens)
    whole_s = ttft_s + held.tokens * tpot_s
    return (
        ttft_s * held.ttft_factor <= held.ttft_s
        and tpot_s * held.rate_factor <= held.tpot_s
        and whole_s * held.rate_factor <= held.e2e_s
    )


def _late(held: Bar, view: View, ttft_s: float, tpot_s: float) -> bool:
    """Return whether an answer would break its class's promise, by predictions as trusted."""
    if ttft_s * held.ttft_factor + held.ttft_spreads * view.ttft_spread_s > held.ttft_s:
        return True
    factor = held.rate_factor * (1.0 + held.tpot_spreads * view.tpot_spread)
    if tpot_s * factor > held.tpot_s:
        return True
    return (ttft_s + held.tokens * tpot_s) * factor > held.e2e_s


def _harms(ask: Ask, view: View, tpot_s: float) -> bool:
    """Return whether a stream inside would lose its promise.

    Those who may not leave are held to the promise itself, not to its tail.
    """
    tail = 1.0 + TPOT_SPREADS * view.tpot_spread if ask.terms.stays else 1.0
    return tpot_s > view.tightest_s * tail
