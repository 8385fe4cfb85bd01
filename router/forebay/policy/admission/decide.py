"""Where a request goes: the rule, read from what is known.

Nothing here changes anything, but for the notes of who was looked at in vain, of the replica that
empties for one of them, and of replicas that were held to be too slow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from forebay.policy.admission.judge import ALL, bar, could, long_line, look, too_slow, waits_here
from forebay.policy.admission.sentences import against
from forebay.values import Admit, Downgrade, Placement, Prediction, Reason, Refuse, Spill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.policy.admission.judge import Look
    from forebay.policy.admission.pool import Pool
    from forebay.policy.admission.replica import Replica, View
    from forebay.policy.admission.state import State
    from forebay.policy.admission.terms import Ask, Ticket

LOOK = 4
"""Waiting requests of each level that one event tries."""

IDLE_SHARE = 0.5
"""An engine less full than this serves late what nobody can serve in time."""

ALIKE = 0.05
"""First tokens that differ by less than this share of themselves come at the same time."""

LACKS_ROOM = frozenset({Reason.SLO_AT_RISK, Reason.KV_CACHE_FULL, Reason.TARGET_FULL})
"""Reasons that an engine with less inside would mend."""

TOO_SLOW = frozenset({Reason.SLO_AT_RISK, Reason.DEADLINE_AT_RISK})
"""Reasons that a faster engine would mend."""

HOPELESS = frozenset({Reason.PROMPT_TOO_LONG, Reason.CLASS_FULL, Reason.ENGINE_DOWN})
"""Reasons that no later answer mends."""

NOT_ELSEWHERE = frozenset({Reason.PROMPT_TOO_LONG, Reason.CLASS_FULL})
"""Those that no other target mends: a longer prompt climbs, a class is full wherever it runs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and the replica it is about where there is one."""

    placement: Placement
    look: Look | None = None


def next_placed(state: State, pool: Pool, now_s: float) -> tuple[Ticket, Verdict] | None:
    """Return who of a pool is placed next and where, if one of the first few fits somewhere.

    Where no replica can be called nobody waits for one: who would know for how long?
    """
    if not len(pool.queue):
        return None
    candidates = pool.candidates(now_s)
    if not candidates:
        ticket = next(pool.queue.heads(1))
        return ticket, last(state, ticket, now_s)
    views: dict[Replica, View] = {}
    tried = pool.tried(now_s)
    for ticket in pool.queue.heads(LOOK, partial(_shut, state, candidates)):
        if ticket in tried:
            continue
        best = _best(state, ticket, ticket.ask.target, candidates, now_s, views=views)
        if best is not None:
            return ticket, _admitted(ticket.ask, best, now_s, Reason.HEADROOM)
        if ticket.ask.avoid and not _not_avoided(ticket.ask, candidates):
            return ticket, last(state, ticket, now_s)
        tried.add(ticket)
        if ticket.why in LACKS_ROOM and pool.pressed(ticket, now_s):
            held = bar(ticket.ask, state.learnt(ticket.ask.terms), now_s)
            others = _not_avoided(ticket.ask, candidates)
            pool.keep(ticket, [one for one in others if could(held, one)])
    return None


def _shut(state: State, candidates: list[Replica], ticket: Ticket) -> bool:
    """Return whether a ticket's class or target is at its own limit, which bars nobody else."""
    most = state.places[ticket.ask.target].max_inflight
    return state.full(ticket.ask.terms) or (
        most is not None and all(replica.inside >= most for replica in candidates)
    )


def last(state: State, ticket: Ticket, now_s: float) -> Verdict:
    """Return where a request goes that waits no longer."""
    ask = ticket.ask
    pool = state.pool(ask.target)
    if pool is None:
        return _at_cloud(state, ask, now_s)
    if ticket.why is not Reason.WAITING_FULL:
        candidates = pool.candidates(now_s)
        best = _best(state, ticket, ask.target, candidates, now_s, views={}, binding=True)
        if best is not None:
            return _admitted(ask, best, now_s, Reason.HEADROOM)
    return _leave(state, ticket, ticket.why or Reason.ENGINE_DOWN, now_s)


def _best(
    state: State,
    ticket: Ticket,
    target: str,
    candidates: list[Replica],
    now_s: float,
    *,
    views: dict[Replica, View],
    binding: bool = False,
) -> Look | None:
    """Return the replica with the soonest first token among those that fit, or say why none.

    `views` are kept for the next ticket of the same moment. When `binding`, a line of prompts
    before it is no reason to go elsewhere, but for one that is promised nothing and would stand
    before those who are; until then, who may leave is not held against a replica whose line is long
    already, and nobody against one that is too slow already. Most of those that wait, wait for one
    or the other.
    """
    ask, place = ticket.ask, state.places[target]
    ticket.why = _anywhere(state, ask, target)
    if ticket.why is not None:
        return None
    pool = state.pools[place.pool]
    reserves = pool.reserves(now_s)
    waits = not binding and not ask.terms.stays and waits_here(ask, reserves)
    waits_inside = ask.terms.promised or not reserves.slots
    held = best = None
    for replica in _with_its_own(pool, ticket, candidates, now_s):
        if (view := views.get(replica)) is None:
            view = views[replica] = replica.view(now_s)
        if waits and long_line(view):
            ticket.why = ticket.why or Reason.PREFILL_AHEAD
            continue
        held = held or bar(ask, state.learnt(ask.terms), now_s)
        if not binding and too_slow(held, view):
            ticket.why = ticket.why or Reason.SLO_AT_RISK
            replica.doubted_s = now_s
            continue
        found = look(held, replica, view, place, now_s, reserves=reserves)
        patience = binding and found.against is Reason.PREFILL_AHEAD and waits_inside
        if found.against is not None and not patience:
            ticket.why = ticket.why or found.against
            if found.against in TOO_SLOW:
                replica.doubted_s = now_s
        elif best is None or _better(found, best):
            best = found
    if best is None:
        ticket.why = ticket.why or Reason.ENGINE_DOWN
    return best


def _better(found: Look, best: Look) -> bool:
    """Return whether a replica is better.

    Its first token comes sooner; or about as soon, and those after it faster.
    """
    sooner_s = best.ttft_s - found.ttft_s
    if abs(sooner_s) > ALIKE * best.ttft_s:
        return sooner_s > 0
    return found.tpot_s < best.tpot_s


def _with_its_own(
    pool: Pool, ticket: Ticket, candidates: list[Replica], now_s: float
) -> Sequence[Replica]:
    """Return the candidates, who should have the prompt cached, and who empties for the ticket.

    Not those that broke under the request.
    """
    if ticket.ask.avoid:
        return _not_avoided(ticket.ask, candidates)
    if len(pool.replicas) == len(candidates):
        return candidates
    home = pool.home(ticket.ask.blocks, now_s) if ticket.ask.blocks else None
    kept = None if ticket.kept_at is None else pool.kept(ticket, now_s)
    own = [one for one in (home, kept) if one is not None and one not in candidates]
    return [*candidates, *dict.fromkeys(own)] if own else candidates


def _not_avoided(ask: Ask, candidates: list[Replica]) -> list[Replica]:
    """Return those of the candidates that did not break under a request."""
    return [one for one in candidates if one.spec.name not in ask.avoid]


def _anywhere(state: State, ask: Ask, target: str) -> Reason | None:
    """Return what stands against a request at any replica of a target."""
    if ask.prompt_tokens > (ask.room_tokens if target == ask.target else ask.weaker_room_tokens):
        return Reason.PROMPT_TOO_LONG
    if state.full(ask.terms):
        return Reason.CLASS_FULL
    if ask.terms.max_usd is None:
        return None
    usd = state.exits.usd(ask, state.learnt(ask.terms), target)
    return Reason.COST_CAP if state.exits.too_dear(ask, usd) else None


def _leave(state: State, ticket: Ticket, why: Reason, now_s: float) -> Verdict:
    """Return where a request goes that its target cannot serve in time.

    To a cloud, if one may have it and can keep the promise; else to a weaker target that can;
    else to its own target late, if that has nothing better to do; else nowhere.
    """
    ask, terms = ticket.ask, ticket.ask.terms
    waited_s = now_s - ask.arrived_s
    if terms.spill_to is not None and why not in NOT_ELSEWHERE:
        learnt = state.learnt(terms)
        usd = state.exits.usd(ask, learnt, terms.spill_to)
        barred = state.barred(ask, terms.spill_to, usd, now_s)
        if barred is None:
            return Verdict(Spill(terms.spill_to, ask.target, why, usd, waited_s))
        late = why is Reason.DEADLINE_AT_RISK and barred is Reason.CLOUD_TOO_SLOW
        why = why if late or why in HOPELESS or barred is Reason.ENGINE_DOWN else barred
    if why not in NOT_ELSEWHERE:
        weaker = _weaker(state, ticket, now_s)
        if weaker is not None:
            return _downgraded(ask, weaker, why, now_s)
    if why not in HOPELESS:
        anyway = None if why is Reason.COST_CAP else _anyway(state, ask, now_s)
        if anyway is not None:
            return _admitted(ask, anyway, now_s, Reason.LATE_ANYWAY)
    if why not in HOPELESS and _out_of_time(state, ask, now_s):
        why = Reason.DEADLINE_AT_RISK
    pool = state.pool(ask.target)
    retry_s = pool.retry_s() if pool and why is not Reason.COST_CAP else 1.0
    return Verdict(Refuse(ask.target, why, against(state, ask, why, now_s), retry_s, waited_s))


def _out_of_time(state: State, ask: Ask, now_s: float) -> bool:
    """Return whether not even an idle engine would begin before the client's own deadline."""
    pool = state.pool(ask.target)
    if ask.deadline_s is None or pool is None:
        return False
    idle = (replica.idle(ask.prompt_tokens)[0] for replica in pool.replicas.values())
    return now_s + min(idle, default=0.0) >= ask.deadline_s


def _weaker(state: State, ticket: Ticket, now_s: float) -> Look | None:
    """Return a replica of the target that the class steps down to, if it keeps the promise."""
    target = ticket.ask.terms.downgrade_to
    pool = state.pool(target) if target is not None else None
    if target is None or pool is None:
        return None
    why, best = ticket.why, _best(state, ticket, target, pool.candidates(now_s), now_s, views={})
    ticket.why = why
    return best


def _anyway(state: State, ask: Ask, now_s: float) -> Look | None:
    """Return a replica that has time for an answer which comes too late for its promise.

    Only a client's own deadline is never passed over, nobody who can still be served in time
    waits behind it, and no stream inside loses its promise to it.
    """
    pool, place = state.pool(ask.target), state.places[ask.target]
    if pool is None or len(pool.queue):
        return None
    held = bar(ask, state.learnt(ask.terms), now_s)
    for replica in pool.candidates(now_s):
        busy = replica.inside > IDLE_SHARE * min(
            replica.spec.max_batch, place.max_inflight or replica.spec.max_batch
        )
        if busy or replica.line.pending or replica.spec.name in ask.avoid:
            continue
        view = replica.view(now_s)
        found = look(held, replica, view, place, now_s, reserves=ALL)
        if found.against not in (None, Reason.SLO_AT_RISK) or found.tpot_s > replica.tightest_s:
            continue
        if not replica.breaks(view, found.prefill, now_s, fair=False):
            return found
    return None


def _at_cloud(state: State, ask: Ask, now_s: float) -> Verdict:
    """Return whether a cloud takes a request now; it has no queue of ours."""
    learnt, waited_s = state.learnt(ask.terms), now_s - ask.arrived_s
    usd = state.exits.usd(ask, learnt, ask.target)
    why = _anywhere(state, ask, ask.target) or state.exits.closed(ask, ask.target, usd, now_s)
    if why is None:
        return Verdict(Admit(ask.target, ask.target, waited_s=waited_s))
    spill_to = ask.terms.spill_to
    if why is Reason.TARGET_FULL and spill_to is not None:
        usd = state.exits.usd(ask, learnt, spill_to)
        if state.barred(ask, spill_to, usd, now_s) is None:
            return Verdict(Spill(spill_to, ask.target, why, usd, waited_s))
    return Verdict(Refuse(ask.target, why, against(state, ask, why, now_s), 1.0, waited_s))


def cloud_in_time(state: State, ask: Ask, found: Placement, now_s: float) -> Placement:
    """Return a cloud's placement with its tracked latency, refused where that is too slow."""
    if not isinstance(found, Admit):
        return found
    learnt = state.learnt(ask.terms)
    why = state.barred(ask, ask.target, 0.0, now_s)
    if why is not None:
        return Refuse(ask.target, why, against(state, ask, why, now_s), 1.0)
    first_s, tpot_s = state.exits.clouds[ask.target].likely(now_s)
    ttft_s = now_s - ask.arrived_s + first_s
    e2e_s = ttft_s + min(float(ask.max_tokens), learnt.mean_tokens) * tpot_s
    return replace(found, predicted=Prediction(ttft_s, tpot_s, e2e_s))


def _admitted(ask: Ask, best: Look, now_s: float, reason: Reason) -> Verdict:
    name, waited_s = best.replica.spec.name, now_s - ask.arrived_s
    predicted = best.predicted(waited_s)
    return Verdict(Admit(ask.target, name, reason, predicted, waited_s), best)


def _downgraded(ask: Ask, best: Look, why: Reason, now_s: float) -> Verdict:
    name, weaker = best.replica.spec.name, str(ask.terms.downgrade_to)
    waited_s = now_s - ask.arrived_s
    predicted = best.predicted(waited_s)
    return Verdict(Downgrade(weaker, name, ask.target, why, predicted, waited_s), best)
