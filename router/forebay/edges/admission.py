"""Admission on the router's event loop: waiting, timers and leases around the pure controller.

Everything happens in the loop's one thread: an event is told to the controller and what it then
decides is handed out before anything else runs, so deciding and reserving are one step.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from forebay.ports import Held
from forebay.values import Admit, Downgrade, Queue

if TYPE_CHECKING:
    from forebay.policy.admission import Ask, Controller, Offer, Outcome, Ticket
    from forebay.policy.admission.replica import Replica
    from forebay.ports import Clock
    from forebay.values import Placement, Refuse, Scrape, Spill

    Decided = Held | Spill | Refuse

REFIT_PERIOD_S = 0.5
"""How often engines are asked whether they have steps enough to learn from."""

AT_ONCE = 16
"""Decisions after which the event loop is let go round once: about five milliseconds."""


class LoopAdmission:
    """An `Admission` for one router; only its event loop may call it."""

    def __init__(self, controller: Controller, clock: Clock) -> None:
        self.controller = controller
        self._clock = clock
        self._waiting: dict[Ticket, asyncio.Future[Decided]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = float("inf")
        self._deciding = False

    async def place(self, ask: Ask) -> Decided:
        """Return the decision on a request, at once or when its turn has come."""
        ticket = self.controller.ask(ask, self._clock.now_s())
        decided: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = decided
        try:
            self.stirred()
            return await decided
        except BaseException:
            self._left(ticket, decided)
            raise

    def scraped(self, replica: Replica, scrape: Scrape, own_at_poll: int) -> None:
        """Take in what a replica's metrics said; somebody may have left room."""
        self.controller.scraped(replica, scrape, own_at_poll)
        self.stirred()

    def full(self, target: str, later_s: float, sent_s: float) -> None:
        """Take in that a cloud said to a call sent at `sent_s` that it is full."""
        self.controller.state.exits.full(target, later_s, sent_s, self._clock.now_s())

    def silent(self, target: str, sent_s: float) -> None:
        """Take in that a call sent at `sent_s` was ended before its cloud had said a word."""
        self.controller.state.exits.silent(target, sent_s, self._clock.now_s())

    def offer(self, ask: Ask) -> Offer:
        """Return what would be decided now; reserves nothing."""
        return self.controller.offer(ask, self._clock.now_s())

    def others(self, target: str, than: frozenset[str]) -> bool:
        """Return whether a replica of a target can be called now that is none of these."""
        return self.controller.others(target, than, self._clock.now_s())

    def stirred(self) -> None:
        """Hand out what can be decided now, and set the timer for what cannot.

        Each decision is handed out before the next is made, so that none is lost if that breaks;
        after a few the loop goes round, so that streams flow on.
        """
        if self._deciding:
            return  # A place given back while they are handed out: the loop below goes on.
        self._deciding, now_s = True, self._clock.now_s()
        try:
            for _ in range(AT_ONCE):
                if (found := self._next(now_s)) is None:
                    break
                self._hand_out(*found)
            else:
                asyncio.get_running_loop().call_soon(self.stirred)
        finally:
            self._deciding = False
            self._wake_at(self.controller.due_s(), now_s)

    def _next(self, now_s: float) -> tuple[Ticket, Placement] | None:
        """Return the next decision; one that breaks is raised where its request waits for it."""
        while True:
            try:
                return self.controller.next_decision(now_s)
            except Exception as error:
                if not self._told(error):
                    raise

    async def learn(self) -> None:
        """Learn engines' speeds, over and over, until cancelled."""
        while True:
            await asyncio.sleep(REFIT_PERIOD_S)
            self.controller.refit(self._clock.now_s())
            if self.controller.stirred:
                self.stirred()

    def _left(self, ticket: Ticket, decided: asyncio.Future[Decided]) -> None:
        """Undo what was asked for by a client that hung up, or a decision that broke."""
        if self._waiting.pop(ticket, None) is not None:
            self.controller.forget(ticket)
            self.stirred()
        elif not decided.cancelled() and decided.exception() is None:
            # Decided in the same turn in which the client left: the place goes back.
            placed = decided.result()
            if isinstance(placed, Held):
                placed.lease.end("cancelled")

    def _told(self, error: Exception) -> bool:
        """Tell whoever was being decided on; return whether there was anybody."""
        lost = [ticket for ticket in self._waiting if ticket.state != "waiting"]
        for ticket in lost:
            decided = self._waiting.pop(ticket)
            if not decided.done():
                decided.set_exception(error)
        return bool(lost)

    def _hand_out(self, ticket: Ticket, placement: Placement) -> None:
        decided = self._waiting.pop(ticket)
        assert not isinstance(placement, Queue)
        if not isinstance(placement, Admit | Downgrade):
            if not decided.done():
                decided.set_result(placement)
            return
        lease = _Lease(self, ticket, self._clock)
        if decided.done():
            lease.end("cancelled")
        else:
            decided.set_result(Held(placement, lease))

    def _wake_at(self, due_s: float | None, now_s: float) -> None:
        """Have one timer, at the soonest moment that is due."""
        if due_s is None or (self._timer is not None and self._timer_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_s = due_s
        self._timer = loop.call_later(max(0.0, due_s - now_s), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.stirred()


class _Lease:
    """A place that the controller counts until it is ended."""

    __slots__ = ("_admission", "_clock", "_held", "_ticket")

    def __init__(self, admission: LoopAdmission, ticket: Ticket, clock: Clock) -> None:
        self._admission = admission
        self._ticket = ticket
        self._clock = clock
        self._held = True

    def saw(self, tokens: int, now_s: float) -> None:
        """Note tokens; a first one may make room for the next request."""
        if not self._held:
            return
        controller = self._admission.controller
        controller.tokens(self._ticket, tokens, now_s)
        if controller.stirred:
            self._admission.stirred()

    def end(self, outcome: Outcome, reader_s: float = 0.0) -> None:
        """Give the place back; whoever waits may have it."""
        if self._held:
            self._held, now_s = False, self._clock.now_s()
            self._admission.controller.ended(self._ticket, outcome, now_s, reader_s=reader_s)
            self._admission.stirred()
