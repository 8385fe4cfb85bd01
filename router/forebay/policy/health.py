"""Whether a replica may be called: a circuit per replica that opens on its own faults.

Closed: requests flow. It opens after `failures` in a row, when too large a share of the last calls
failed, or when its server is gone. Open: nothing is sent for a backoff that doubles with each
opening, up to a cap, but for the router's own probes of one whose server is back. Half-open: one
probe at a time; it may be a client's request or one of the router's own. One success closes it,
one failure opens it for longer. Drained is a mark beside that: nothing new is sent, and what runs
ends in peace.

Calls tell when they began, because a replica that breaks fails all it had inside at once: of
calls begun before the circuit last opened, neither failures nor successes say anything of the
replica now. Time is an argument everywhere, in seconds on one clock that never steps back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from forebay.errors import (
    Declined,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
)

if TYPE_CHECKING:
    from forebay.policy.admission.terms import Outcome

FAULTS = (EngineUnavailable, EngineFailed)
"""Errors that are the replica's own. A bad request, a full queue, a deadline that was too
short and a client that left are not; what is, beside errors, see `Replica.judged`."""

ANSWERS = (InvalidRequest, Overloaded, Declined)
"""Errors that are an answer, however long they took: what says no does not hang."""


def outcome_of(error: ForebayError) -> Outcome:
    """Return how a call that ended in an error went for the replica or cloud that it went to."""
    if isinstance(error, FAULTS):
        return "failed"
    return "declined" if isinstance(error, ANSWERS) else "cancelled"


class State(StrEnum):
    """Where the circuit of a replica stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When a replica is ejected and for how long; `share` 0-1 of the last `calls` failed."""

    failures: int = 3
    calls: int = 20
    share: float = 0.5
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    probe_s: float = 10.0
    """A probe that has told nothing for so long is lost, and another may be sent."""
    calm_s: float = 60.0
    """A replica that stayed closed for so long is judged as if it had never been ejected."""


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one replica; every method returns the next state and changes nothing.

    `proven` is whether it has answered since it last opened, or ever: readiness asks for that.
    `lately` says of the last calls while closed which failed, the oldest first. `probed_s` is
    when the probe that is out was sent.
    """

    rules: Rules = RULES
    proven: bool = False
    draining: bool = False
    in_a_row: int = 0
    lately: tuple[bool, ...] = ()
    opened_s: float | None = None
    openings: int = 0
    closed_s: float | None = None
    probed_s: float | None = None

    def state(self, now_s: float) -> State:
        """Return where the circuit stands."""
        if self.opened_s is None:
            return State.CLOSED
        return State.OPEN if now_s < self.opened_s + self.backoff_s else State.HALF_OPEN

    @property
    def backoff_s(self) -> float:
        """How long it stays open, by how often it opened without a calm time in between."""
        doublings = min(max(0, self.openings - 1), 60)
        return min(self.rules.backoff_max_s, self.rules.backoff_s * 2.0**doublings)

    def down_for_s(self, now_s: float) -> float | None:
        """Return for how long it has been ejected; None if it is not."""
        return None if self.opened_s is None else now_s - self.opened_s

    def takes(self, now_s: float) -> bool:
        """Return whether requests may be sent as if nothing were wrong."""
        return not self.draining and self.state(now_s) is State.CLOSED

    def may_probe(self, now_s: float) -> bool:
        """Return whether one call may be sent to find out."""
        if self.draining or self.state(now_s) is not State.HALF_OPEN:
            return False
        return self.probed_s is None or now_s >= self.probed_s + self.rules.probe_s

    def asks_proof(self, now_s: float, *, back: bool) -> bool:
        """Return whether the router should ask it for one token now.

        Where it never answered, at any time; where it was ejected, when a probe may be sent, or at
        any time where its server is `back`, having been away: that is another engine than the one
        that broke.
        """
        if self.proven or self.draining:
            return False
        return self.opened_s is None or back or self.may_probe(now_s)

    def retry_s(self, now_s: float) -> float | None:
        """Return in how many seconds a probe may next be sent; None if it need not be."""
        if self.opened_s is None or self.draining:
            return None
        lost_s = now_s if self.probed_s is None else self.probed_s + self.rules.probe_s
        return max(0.0, self.opened_s + self.backoff_s - now_s, lost_s - now_s)

    # ---- events ---------------------------------------------------------------------------

    def probing(self, now_s: float) -> Health:
        """Note that a probe is sent."""
        return replace(self, probed_s=now_s)

    def served(self, now_s: float, began_s: float | None = None) -> Health:
        """Note that a call begun at `began_s` (now, if not told) was answered whole."""
        if self.opened_s is None:
            return replace(self, proven=True, in_a_row=0, lately=self._with(failed=False))
        if self._is_old(began_s):
            return self
        return replace(
            self,
            proven=True,
            in_a_row=0,
            lately=(),
            opened_s=None,
            closed_s=now_s,
            probed_s=None,
        )

    def failed(self, now_s: float, began_s: float | None = None) -> Health:
        """Note that a call begun at `began_s` failed by the replica's fault (`FAULTS`)."""
        if self._is_old(began_s):
            return self
        where = self.state(now_s)
        if where is State.OPEN:
            return self  # its backoff is running already
        if where is State.HALF_OPEN:
            return self._opened(now_s)
        counted = replace(self, in_a_row=self.in_a_row + 1, lately=self._with(failed=True))
        rules, failures = self.rules, sum(counted.lately)
        often = len(counted.lately) >= rules.calls and failures >= rules.share * rules.calls
        return self._opened(now_s) if often or counted.in_a_row >= rules.failures else counted

    def gone(self, now_s: float) -> Health:
        """Note that its server does not answer: while that lasts nobody is sent to find out."""
        opened = self._opened(now_s) if self.opened_s is None else self
        return replace(opened, probed_s=now_s)

    def abandoned(self, began_s: float) -> Health:
        """Note that a call ended without telling anything of the replica: its client left."""
        return replace(self, probed_s=None) if self.probed_s == began_s else self

    def drained(self) -> Health:
        """Send nothing new from now on."""
        return replace(self, draining=True)

    def resumed(self) -> Health:
        """Take it into use again, as healthy as it was."""
        return replace(self, draining=False)

    def _is_old(self, began_s: float | None) -> bool:
        """Return whether a call tells of a time before the circuit last opened or closed."""
        since_s = self.closed_s if self.opened_s is None else self.opened_s
        return began_s is not None and since_s is not None and began_s < since_s

    def _opened(self, now_s: float) -> Health:
        calm = self.closed_s is None or now_s - self.closed_s >= self.rules.calm_s
        again = self.opened_s is not None or not calm
        return replace(
            self,
            proven=False,
            in_a_row=0,
            lately=(),
            opened_s=now_s,
            openings=self.openings + 1 if again else 1,
            probed_s=None,
        )

    def _with(self, *, failed: bool) -> tuple[bool, ...]:
        return (*self.lately, failed)[-self.rules.calls :]
