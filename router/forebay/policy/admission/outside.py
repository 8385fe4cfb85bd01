"""What else may stand against a cloud: budget, residency, a breaker that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from forebay.values import Reason

if TYPE_CHECKING:
    from forebay.policy.admission.terms import Ask, Outcome


class Outside(Protocol):
    """Asked before a request leaves for a cloud, told when it has and how it ended.

    Pure: time is given.
    """

    def bars(self, target: str, ask: Ask, usd: float, now_s: float) -> Reason | None:
        """Return why `ask` may not go to `target` for about `usd`, or None."""
        ...

    def doubts(self, target: str, now_s: float) -> bool:
        """Return whether but one call at a time may go to `target`, to find out how it is."""
        ...

    def sent(self, target: str, ask: Ask, usd: float, now_s: float) -> None:
        """Note that it went."""
        ...

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Note how a request ended that had been sent at `sent_s`."""
        ...

    def spoke(self, target: str, sent_s: float, now_s: float) -> None:
        """Note that the first token of a request came."""
        ...

    def broke(self, target: str, sent_s: float, now_s: float) -> None:
        """Note that the target is at fault, though a request's end does not say so."""
        ...

    def full(self, target: str, later_s: float, sent_s: float, now_s: float) -> None:
        """Note that the target said it is full, and to come back in `later_s` seconds."""
        ...


class Open:
    """Nothing stands against any cloud, and nothing is learnt of it."""

    def bars(self, target: str, ask: Ask, usd: float, now_s: float) -> Reason | None:  # noqa: ARG002
        """Return None."""
        return None

    def doubts(self, target: str, now_s: float) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    def sent(self, target: str, ask: Ask, usd: float, now_s: float) -> None:
        """Note nothing."""

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Note nothing."""

    def spoke(self, target: str, sent_s: float, now_s: float) -> None:
        """Note nothing."""

    def broke(self, target: str, sent_s: float, now_s: float) -> None:
        """Note nothing."""

    def full(self, target: str, later_s: float, sent_s: float, now_s: float) -> None:
        """Note nothing."""


class Allowance(Open):
    """A budget as a token bucket: `usd_per_s` flows in, at most `hours` of it are kept.

    A bucket of a minute refuses bursts that an hour's mean would pay; an hour is the least.
    """

    def __init__(self, usd_per_s: float, *, hours: float = 1.0, now_s: float = 0.0) -> None:
        self._rate = usd_per_s
        self._most = usd_per_s * 3600 * hours
        self._left, self._at_s = self._most, now_s

    def bars(self, target: str, ask: Ask, usd: float, now_s: float) -> Reason | None:  # noqa: ARG002
        """Return that the budget is spent, where less than `usd` is left."""
        self._flow(now_s)
        return Reason.BUDGET_SPENT if usd > self._left else None

    def sent(self, target: str, ask: Ask, usd: float, now_s: float) -> None:  # noqa: ARG002
        """Take `usd` out."""
        self._flow(now_s)
        self._left -= usd

    def ended(self, target: str, outcome: Outcome, sent_s: float, now_s: float) -> None:
        """Note nothing: what was expected stays spent."""

    def _flow(self, now_s: float) -> None:
        self._left = min(self._most, self._left + self._rate * max(0.0, now_s - self._at_s))
        self._at_s = now_s
