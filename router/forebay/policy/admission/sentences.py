"""What stands against a request, with the numbers, for the person who reads the refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.admission.judge import ALL, bar, look
from forebay.values import Prediction, Reason

if TYPE_CHECKING:
    from forebay.policy.admission.replica import Replica
    from forebay.policy.admission.state import State
    from forebay.policy.admission.terms import Ask


def against(state: State, ask: Ask, why: Reason, now_s: float) -> str:
    """Return which number was met."""
    if why is Reason.PROMPT_TOO_LONG:
        counted = f"{ask.prompt_tokens}" if ask.whole else f"more than {ask.prompt_tokens - 1}"
        return f"{counted} tokens, and it takes {ask.room_tokens}"
    if why is Reason.CLASS_FULL:
        return f"{state.by_class[ask.terms.route]} of the class are in flight"
    if why in _CLOUD:
        spilling = state.pool(ask.target) is not None
        return _CLOUD[why].format(target=(spilling and ask.terms.spill_to) or ask.target)
    pool = state.pool(ask.target)
    if pool is None:
        return _at_cloud(state, ask, why, now_s)
    if why is Reason.WAITING_FULL:
        return f"{pool.queue.waiting(ask)} requests wait for it already"
    nearest = min(pool.replicas.values(), key=lambda one: one.inside, default=None)
    return "it has no replica" if nearest is None else _nearest(state, ask, nearest, why, now_s)


def _at_cloud(state: State, ask: Ask, why: Reason, now_s: float) -> str:
    """Return what stands against a cloud that is neither too dear nor broken."""
    if why is not Reason.DEADLINE_AT_RISK:
        return "it takes no more at once"
    soonest_s = state.exits.clouds[ask.target].soonest_s(now_s)
    return f"its first token takes {soonest_s:.2f} s at least, and the deadline is sooner"


_CLOUD = {
    Reason.COST_CAP: "the answer would cost more than the class may pay at {target}",
    Reason.BUDGET_SPENT: "the budget for {target} is spent",
    Reason.BREAKER_OPEN: "{target} fails too often and is not called for now",
    Reason.CLOUD_TOO_SLOW: "neither it nor {target} can answer in time",
}


def _nearest(state: State, ask: Ask, replica: Replica, why: Reason, now_s: float) -> str:
    """Return what stands against the least loaded replica."""
    if why not in (Reason.SLO_AT_RISK, Reason.DEADLINE_AT_RISK, Reason.PREFILL_AHEAD):
        return _counted(replica, why)
    place, learnt = state.places[ask.target], state.learnt(ask.terms)
    held = bar(ask, learnt, now_s)
    found = look(held, replica, replica.view(now_s), place, now_s, reserves=ALL)
    if why is Reason.DEADLINE_AT_RISK and ask.deadline_s is not None:
        # Where a limit is met nothing is predicted: it stands in the way before any token.
        ttft_s, left_s = found.ttft_s, max(0.0, ask.deadline_s - now_s)
        first = f"its first token would take about {ttft_s:.2f} s, " if ttft_s else ""
        return f"{replica.inside} requests are in flight, {first}and {left_s:.2f} s are left"
    if why is Reason.PREFILL_AHEAD:
        return f"{replica.backlog(now_s):.0f} tokens of others' prompts stand before it"
    return _promise(ask, found.predicted(now_s - ask.arrived_s))


def _counted(replica: Replica, why: Reason) -> str:
    """Return the load that meets a limit."""
    scrape = replica.scrape
    if why is Reason.TARGET_FULL:
        return f"{replica.inside} requests are in flight"
    if why is Reason.QUEUE_FULL:
        return f"{scrape.waiting if scrape else 'too many'} requests wait in its queue"
    if why is Reason.KV_CACHE_FULL:
        used = replica.reserved + replica.foreign_kv
        share = max(scrape.kv_used if scrape else 0.0, used / replica.spec.kv_tokens)
        return f"{share:.0%} of its KV cache is in use or promised"
    if replica.health.draining:
        return "its replicas are being drained"
    return "none of its replicas answers"


def _promise(ask: Ask, found: Prediction) -> str:
    """Return which promise an answer would break, as predicted."""
    terms = ask.terms
    for name, promised, predicted in (
        ("first token", terms.ttft_s, found.ttft_s),
        ("time for each token", terms.tpot_s, found.tpot_s),
        ("whole answer", terms.e2e_s, found.e2e_s),
    ):
        if promised is not None and predicted > promised * 0.8:
            return f"its {name} would take about {predicted:.2f} s of the {promised:g} s promised"
    return "its promise could not be kept any more"
