"""Drives the router's own admission, `forebay.policy.admission`, on the simulated clock.

Not a copy of the policy and not a model of it: the same controller, told the same things as the
router's event loop tells it. One thing is told more coarsely: the stream that times an engine's
steps reports each segment of them, which is up to 64, every other one now and then, since its
tokens only add up; all of them before each decision where the count of their tokens may decide.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from forebay.policy.admission.controller import Controller
from forebay.policy.admission.terms import Ask, Place, ReplicaSpec, Terms
from forebay.values import Admit, Reason, Refuse, Spill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.stage import Stage
    from forebay.policy.admission.outside import Outside
    from forebay.policy.admission.terms import Ticket
    from forebay.values import Placement, Scrape

LOCAL, CLOUD = "local", "cloud"

NO_END = 1 << 40
"""The longest prompt that a target without bounds takes, in tokens."""

_SWEEP_SEGMENTS = 32
"""Segments of an engine after which all its streams report."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the router is told before the run; `replicas` are those it may use, by number.

    A request that waits in an engine for longer than `patience_s` is given up, as its fault.
    """

    terms: Sequence[Terms]
    replicas: Sequence[tuple[int, ReplicaSpec]]
    cloud: Place
    outside: Outside | None = None
    patience_s: float = inf


class Forebay:
    """One router."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._cloud = known.cloud
        self.controller = Controller([Place(LOCAL, pool=LOCAL), known.cloud], outside=known.outside)
        self._replicas = {
            number: self.controller.join(spec, 0.0) for number, spec in known.replicas
        }
        self._numbers = {spec.name: number for number, spec in known.replicas}
        self._room_tokens = max((spec.kv_tokens for _, spec in known.replicas), default=NO_END)
        self._tickets: dict[Job, Ticket] = {}
        self._jobs: dict[Ticket, Job] = {}
        self._segments = dict.fromkeys(self._replicas, 0)
        self._silent: deque[tuple[float, Ticket]] = deque()

    # ---- what happens ------------------------------------------------------------------------

    def arrived(self, stage: Stage, job: Job) -> None:
        """Ask for a place."""
        self.controller.refit(stage.now_s)
        self._ask(stage, job, LOCAL)
        self._drain(stage)

    def stepped(self, stage: Stage, replica: int) -> None:
        """Report the stream that times the engine's steps, and now and then all of them."""
        if (known := self._replicas.get(replica)) is None:
            return
        probe = known.probe
        if probe is not None:
            self._progress(stage, self._jobs[probe], probe)
        self._segments[replica] += 1
        if self._segments[replica] % _SWEEP_SEGMENTS == 0:
            self._report(stage, replica)

    def first_token(self, stage: Stage, job: Job) -> None:
        """Report it."""
        self.controller.tokens(self._tickets[job], 1, stage.now_s)
        self._drain(stage)

    def ended(self, stage: Stage, job: Job) -> None:
        """Report how it ended."""
        ticket = self._tickets.pop(job, None)
        if ticket is None:
            return
        del self._jobs[ticket]
        if job.ended == "served":
            left = job.output_tokens - ticket.tokens
            if left > 0:
                self.controller.tokens(ticket, left, stage.now_s)
            self.controller.ended(ticket, "served", stage.now_s)
        elif job.ended == "refused":
            self.controller.ended(ticket, "cancelled", stage.now_s)  # no fault of the engine
        else:
            self.controller.ended(ticket, "failed", stage.now_s)
        self._drain(stage)

    def failed(self, stage: Stage, job: Job) -> None:
        """Ask for another replica: nothing of it had been sent."""
        ticket = self._tickets.pop(job)
        del self._jobs[ticket]
        self.controller.ended(ticket, "failed", stage.now_s)
        broken = ticket.ask.avoid
        if ticket.replica is not None:
            broken |= {ticket.replica.spec.name}
        others = self.controller.others(LOCAL, broken, stage.now_s)
        self._ask(stage, job, LOCAL, broken if others else frozenset())
        self._drain(stage)

    def died(self, stage: Stage, replica: int) -> None:
        """Nothing is told: the replica's circuit finds out, from calls that fail."""

    def scraped(self, stage: Stage, replica: int, scrape: Scrape) -> None:
        """Hand the metrics on."""
        if (known := self._replicas.get(replica)) is not None:
            self.controller.scraped(known, scrape, known.own)
            self._drain(stage)

    def woken(self, stage: Stage) -> None:
        """Decide what is due."""
        self._drain(stage)

    def repriced(self, stage: Stage, factor: float) -> None:  # noqa: ARG002 - the port's own shape
        """Tell the new prices: they hold from the next request on."""
        self.controller.state.places[CLOUD] = replace(
            self._cloud,
            input_usd=self._cloud.input_usd * factor,
            output_usd=self._cloud.output_usd * factor,
        )

    # ---- decisions ---------------------------------------------------------------------------

    def _ask(
        self, stage: Stage, job: Job, target: str, avoid: frozenset[str] = frozenset()
    ) -> None:
        ask = Ask(
            id=str(job.number),
            terms=self._known.terms[job.label],
            target=target,
            prompt_tokens=job.input_tokens,
            max_tokens=job.max_tokens,
            arrived_s=job.arrived_s,
            room_tokens=self._room_tokens - job.max_tokens if target == LOCAL else NO_END,
            avoid=avoid,
        )
        ticket = self.controller.ask(ask, stage.now_s)
        self._tickets[job], self._jobs[ticket] = ticket, job

    def _report(self, stage: Stage, replica: int) -> None:
        for job in stage.engines[replica].streams:
            if (ticket := self._tickets.get(job)) is not None and ticket.first_s is not None:
                self._progress(stage, job, ticket)

    def _progress(self, stage: Stage, job: Job, ticket: Ticket) -> None:
        if job.where is None or job.where < 0:
            return
        new = stage.engines[job.where].emitted(job, stage.now_s) - ticket.tokens
        if new > 0:
            self.controller.tokens(ticket, new, stage.now_s)

    def _drain(self, stage: Stage) -> None:
        self._lose_patience(stage)
        for number, replica in self._replicas.items():
            if replica.strains:  # how many tokens each of its streams has had decides there
                self._report(stage, number)
        while decided := self.controller.drain(stage.now_s):
            for ticket, placement in decided:
                self._obey(stage, ticket, placement)
        due_s = self.controller.due_s()
        if due_s is not None:
            stage.wake(self, due_s)

    def _lose_patience(self, stage: Stage) -> None:
        """Give up who waits in an engine for too long; those sent first are so first."""
        silent = self._silent
        while silent:
            due_s, ticket = silent[0]
            waits = ticket.state == "placed" and ticket.first_s is None
            if waits and due_s > stage.now_s:
                stage.wake(self, due_s)
                return
            silent.popleft()
            if waits:
                stage.give_up(self._jobs[ticket])

    def _obey(self, stage: Stage, ticket: Ticket, placement: Placement) -> None:
        job = self._jobs[ticket]
        if isinstance(placement, Admit) and placement.target == CLOUD:
            stage.spill(job)
        elif isinstance(placement, Admit):
            if self._known.patience_s < inf:
                self._silent.append((stage.now_s + self._known.patience_s, ticket))
            stage.submit(job, self._numbers[placement.replica])
        elif isinstance(placement, Spill):
            del self._jobs[ticket]
            self._ask(stage, job, placement.target)
        elif isinstance(placement, Refuse):
            # The controller is done with it already: there is no end to tell it of.
            del self._jobs[self._tickets.pop(job)]
            too_long = placement.reason is Reason.PROMPT_TOO_LONG
            if too_long and stage.promises[job.label].may_spill:
                self._ask(stage, job, CLOUD)  # it climbs, as in the router
            else:
                stage.refuse(job)
        else:
            raise AssertionError(f"{placement!r} is no final decision")
