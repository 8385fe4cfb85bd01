"""Whether a target may take one more request now, and where it goes if not.

This is the first, honest rule: counted load against stated limits. It reads load in the order
trust, room for this prompt, the class's own slots, the engine's slots, queue and memory, and
names the first limit that is met. Scraped numbers older than `STALE_S` are unknown, not full:
then only what the router itself has in flight counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.values import Abilities, Admit, EngineLoad, Placement, Prepared, Reason, Refuse, Spill

if TYPE_CHECKING:
    from forebay.policy.rules import Constraints, Limits

STALE_S = 5.0
"""Scraped load older than this says nothing of now."""

DOWN_S = 1.0
"""An engine that went down less than this long ago is not called; then it is tried again."""

RETRY_S = 1.0
"""When a refused client may try again: about one short answer of the embedded engine."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request asks of a target."""

    prompt: Prepared
    abilities: Abilities

    @property
    def room_tokens(self) -> int:
        """The longest prompt the target takes and still has room for one token of answer."""
        return min(self.abilities.max_input_tokens, self.abilities.max_seq_tokens - 1)


def active(load: EngineLoad) -> int:
    """Return requests inside the engine now: our own, exact, and others' as last scraped."""
    if not _fresh(load):
        return load.own
    return load.own + max(0, load.polled_active - load.own_at_poll)


def refusal(
    target: str, limits: Limits, constraints: Constraints, load: EngineLoad, demand: Demand
) -> Refuse | None:
    """Return the first limit that one more request would break, or None."""
    inside = active(load)
    tokens, room = demand.prompt.prompt_tokens, demand.room_tokens
    met: tuple[Reason, str] | None = None
    if load.down_for_s is not None and load.down_for_s < DOWN_S:
        met = Reason.ENGINE_DOWN, f"it went down {load.down_for_s:.1f} s ago"
    elif tokens > room:
        counted = f"{tokens} tokens" if demand.prompt.whole else f"more than {tokens - 1} tokens"
        met = Reason.PROMPT_TOO_LONG, f"{counted}, and it takes {room}"
    elif _reached(load.own_of_class, constraints.max_inflight):
        met = Reason.CLASS_FULL, f"{load.own_of_class} of the class are in flight"
    elif _reached(inside, limits.max_inflight):
        met = Reason.TARGET_FULL, f"{inside} requests are in flight"
    elif _fresh(load) and _queued(load.polled_waiting, limits.max_waiting):
        met = Reason.QUEUE_FULL, f"{load.polled_waiting} requests wait in its queue"
    elif _fresh(load) and load.kv_used >= limits.kv_ceiling:
        met = Reason.KV_CACHE_FULL, f"{load.kv_used:.0%} of its KV cache is in use"
    return met and Refuse(target, *met, retry_after_s=RETRY_S)


def place(
    target: str, refused: Refuse | None, spill_to: str | None, spill_refused: Refuse | None
) -> Placement:
    """Return where a request goes: its target, else the spill target with room, else nowhere."""
    if refused is None:
        return Admit(target)
    if spill_to in (None, target) or spill_refused is not None:
        return refused
    if refused.reason in (Reason.PROMPT_TOO_LONG, Reason.NOT_BUILT):
        return refused
    return Spill(str(spill_to), target, refused.reason)


def _fresh(load: EngineLoad) -> bool:
    return load.age_s is not None and load.age_s <= STALE_S


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def _queued(waiting: int, limit: int | None) -> bool:
    """Nobody waiting is never too many: `max_waiting: 0` still lets an idle engine work."""
    return waiting > 0 and _reached(waiting, limit)
