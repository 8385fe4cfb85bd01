"""Whether a cloud may be called: for each two circuits of `policy.health`.

One opens on its own faults, the other where it says that it is full. They are apart because what
follows differs: what is broken fails over, what is full spills. Either lets one call at a time
find out whether it still stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.policy.admission.outside import Open
from forebay.policy.health import Health, Rules
from forebay.values import Reason

if TYPE_CHECKING:
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Outcome

RULES = Rules(backoff_max_s=15.0)
"""A provider that has come back is called again within 15 s, however often it had failed and
however long it had said that it would be full."""


@dataclass(slots=True)
class _Circuits:
    """Those of one cloud; `later_s` is until when it asked to be left alone while full."""

    faults: Health
    room: Health
    later_s: float = float("-inf")

    def bars(self, now_s: float) -> Reason | None:
        """Return which of the two stands against a call."""
        if not _lets(self.faults, now_s):
            return Reason.BREAKER_OPEN
        asked_for = now_s < self.later_s and not self.room.takes(now_s)
        return Reason.TARGET_FULL if asked_for or not _lets(self.room, now_s) else None


class CloudBreakers:
    """Bars clouds whose circuit is open and lets one request at a time find out about the others.

    Of faults only a target's own count (`health.FAULTS`, and silence, see `Exits.silent`): a
    client's bad request, a refusal, a deadline and a client that left say nothing of it. `beside`
    is asked about whatever else may stand against a cloud.
    """

    def __init__(self, beside: Outside | None = None, rules: Rules = RULES) -> None:
        self._beside = beside or Open()
        self._rules = rules
        self._of: dict[str, _Circuits] = {}

    def health(self, target: str) -> Health:
        """Return what is known of a cloud's faults."""
        return self._circuits(target).faults

    def room(self, target: str) -> Health:
        """Return what is known of whether a cloud is full: open where it said so."""
        return self._circuits(target).room

    def bars(self, target: str, ask: Ask, usd: float, now_s: float) -> Reason | None:
        """Return that a circuit is open, or what else stands against `target`."""
        barred = self._circuits(target).bars(now_s)
        return barred or self._beside.bars(target, ask, usd, now_s)

    def doubts(self, target: str, now_s: float) -> bool:
        """Return whether one of its circuits is not closed."""
        circuits = self._circuits(target)
        closed = circuits.faults.takes(now_s) and circuits.room.takes(now_s)
        return not closed or self._beside.doubts(target, now_s)

    def sent(self, target: str, ask: Ask, usd: float, now_s: float) -> None:
        """Note that a request went; past a circuit that is not closed, it is the probe."""
        circuits = self._circuits(target)
        if not circuits.faults.takes(now_s):
            circuits.faults = circuits.faults.probing(now_s)
        if not circuits.room.takes(now_s):
            circuits.room = circuits.room.probing(now_s)
        self._beside.sent(target, ask, usd, now_s)

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Take in how a request ended that was sent at `sent_s`."""
        circuits = self._circuits(target)
        if outcome == "served":
            circuits.faults = circuits.faults.served(now_s, sent_s)
            circuits.room = circuits.room.served(now_s, sent_s)
        else:
            circuits.room = circuits.room.abandoned(sent_s)
            if outcome == "failed":
                circuits.faults = circuits.faults.failed(now_s, sent_s)
            else:
                circuits.faults = circuits.faults.abandoned(sent_s)
        self._beside.ended(target, outcome, sent_s, now_s)

    def spoke(self, target: str, sent_s: float, now_s: float) -> None:
        """Take in a first token: there is room, and a probe need not be whole for the next one."""
        circuits = self._circuits(target)
        circuits.room = circuits.room.served(now_s, sent_s)
        circuits.faults = circuits.faults.abandoned(sent_s)
        self._beside.spoke(target, sent_s, now_s)

    def broke(self, target: str, sent_s: float, now_s: float) -> None:
        """Count a fault of a request that its deadline or its client ended."""
        circuits = self._circuits(target)
        circuits.faults = circuits.faults.failed(now_s, sent_s)
        self._beside.broke(target, sent_s, now_s)

    def full(self, target: str, later_s: float, sent_s: float, now_s: float) -> None:
        """Count that a cloud said it is full, and to come back in `later_s`."""
        circuits = self._circuits(target)
        circuits.room = circuits.room.failed(now_s, sent_s)
        circuits.later_s = now_s + min(later_s, self._rules.backoff_max_s)
        self._beside.full(target, later_s, sent_s, now_s)

    def _circuits(self, target: str) -> _Circuits:
        if (found := self._of.get(target)) is None:
            fresh = Health(rules=self._rules)
            found = self._of[target] = _Circuits(fresh, fresh)
        return found


def _lets(health: Health, now_s: float) -> bool:
    return health.takes(now_s) or health.may_probe(now_s)
