"""Whether a cloud may be called: for each the circuit of `policy.health`, by its own faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.admission.outside import Open
from forebay.policy.health import Health, Rules
from forebay.values import Reason

if TYPE_CHECKING:
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ask, Outcome

RULES = Rules(backoff_max_s=15.0)
"""A provider that has come back is called again within 15 s, however often it had failed."""


class CloudBreakers:
    """Bars clouds whose circuit is open and lets one request at a time find out about the others.

    Only what is a target's own fault counts (`health.at_fault`): a client's bad request, a full
    provider, a refusal, a deadline and a client that left say nothing of it. `beside` is asked
    about whatever else may stand against a cloud.
    """

    def __init__(self, beside: Outside | None = None, rules: Rules = RULES) -> None:
        self._beside = beside or Open()
        self._rules = rules
        self._of: dict[str, Health] = {}

    def health(self, target: str) -> Health:
        """Return what is known of a cloud."""
        return self._of.get(target) or Health(rules=self._rules)

    def bars(self, target: str, ask: Ask, usd: float, now_s: float) -> Reason | None:
        """Return that the circuit is open, or what else stands against `target`."""
        health = self.health(target)
        if not (health.takes(now_s) or health.may_probe(now_s)):
            return Reason.BREAKER_OPEN
        return self._beside.bars(target, ask, usd, now_s)

    def sent(self, target: str, ask: Ask, usd: float, now_s: float) -> None:
        """Note that a request went; past a circuit that is not closed, it is the probe."""
        health = self.health(target)
        if not health.takes(now_s):
            self._of[target] = health.probing(now_s)
        self._beside.sent(target, ask, usd, now_s)

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Take in how a request ended that was sent at `sent_s`."""
        health = self.health(target)
        if outcome == "served":
            health = health.served(now_s, sent_s)
        elif outcome == "failed":
            health = health.failed(now_s, sent_s)
        else:
            health = health.abandoned(sent_s)
        self._of[target] = health
        self._beside.ended(target, outcome, sent_s, now_s)
