"""The calls of one step: the one decided on, and a second beside it where its class hedges.

A call is entered with its place at its target reserved, and ended exactly once: its place goes
back, and what it cost is in the books, whether its answer was wanted or not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from forebay.climb import Setback, setback_of, setback_of_placement
from forebay.errors import (
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
    status_of,
)
from forebay.policy import outgoing
from forebay.policy.health import outcome_of
from forebay.policy.rules import HUMAN
from forebay.ports import Held
from forebay.race import Entrant, faster
from forebay.values import Admit, Downgrade, Reason, Usage
from forebay.walk import Run, Step

if TYPE_CHECKING:
    from forebay.house import House
    from forebay.policy.admission import Outcome
    from forebay.policy.choose import Chosen
    from forebay.values import Prepared, Request, Verdict
    from forebay.walk import Walk

UNBILLED = (Overloaded, EngineUnavailable, InvalidRequest)
"""What a target says in place of an answer: nobody pays for that, as long as no token came."""

HEDGED = frozenset({"first", "spill", "failover", "downgrade"})
"""Moves whose calls are hedged: not those that ask for a better answer."""


@dataclass(slots=True)
class Entries:
    """Enters calls for one step of a walk; leaving it ends all that are still open."""

    house: House
    walk: Walk
    chosen: Chosen
    request: Request
    _open: list[Entrant] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close(None, "cancelled")

    async def enter(self, step: Step) -> Entrant | Setback:
        """Return a call of the step's target that has its place, or why there is none."""
        if step.target == HUMAN:
            self.house.in_time(self.request)
            return self._begun(self._person(step))
        request, told = self.request, None
        try:
            engine = self.house.engine(step.target)
            if self.house.leaves(self.chosen, step.target):
                request, told = await _without_personal(request)
            prepared = await engine.prepare(request)
            self.house.in_time(request)
        except ForebayError as error:
            self._barred(step, status_of(error).reason)
            if (setback := setback_of(error)) is None:
                raise
            return setback
        ask = self.house.ask(
            self.chosen,
            request,
            step,
            prepared,
            spent_usd=self._spent_usd,
            broken=self.walk.broken,
        )
        held = await self.house.admission.place(ask)
        if not isinstance(held, Held):
            self._barred(step, held.reason, held.waited_s)
            setback = setback_of_placement(held)
            # The others of a target that broke are full: who is next is found as if it were alone.
            return replace(setback, move="failover") if step.beside else setback
        broke = self.walk.broke
        again = broke is not None or step.move == "hedge"
        if again and not self.house.retries.spend():
            # Others spent it while this one waited for its place.
            held.lease.end("cancelled")
            self._barred(step, "retry_budget")
            why = broke or Overloaded("no second call may be made now", 1.0)
            return Setback(why, "failover", Reason.ENGINE_DOWN, refused=True)
        try:
            reserved = ask.prompt_tokens + ask.max_tokens
            entrant = await self._placed(request, step, prepared, held, reserved=reserved)
            entrant.run.withheld = told
            return self._begun(entrant)
        except BaseException as error:
            held.lease.end("cancelled")
            if isinstance(error, ForebayError):
                self._barred(step, status_of(error).reason)
            raise

    async def raced(self, first: Entrant) -> Entrant:
        """Return the call that answers: `first`, or a second one where that starts slowly."""
        hedge, step = self.chosen.of.route.hedge, first.step
        if hedge is None or step.move not in HEDGED or step.target == HUMAN:
            return first
        if not self.house.may_hedge(self.walk, self.chosen, hedge.to):
            return first
        kept = await faster(first, self._rival, hedge.after_ms / 1000)
        self.walk.run = kept.run
        await self._close(kept, "outrun")
        return kept

    def end(
        self,
        entrant: Entrant,
        outcome: str,
        verdicts: tuple[Verdict, ...] = (),
        *,
        ended: Outcome = "cancelled",
        billed: bool = True,
    ) -> None:
        """Give a call's place back, and close it in the books; one not `billed` cost nothing."""
        self._open.remove(entrant)
        entrant.lease.end(ended)
        step, run = entrant.step, entrant.run
        told = () if run.withheld is None else (run.withheld,)
        usd = self.house.usd(step.target, run.usage) if billed else 0.0
        self.walk.end(step, run, outcome, (*told, *verdicts), usd)

    async def _close(self, kept: Entrant | None, outcome: str) -> None:
        """End every call but `kept`; one that had failed by itself is told as that."""
        for entrant in [one for one in self._open if one is not kept]:
            await entrant.close()
            error = entrant.error
            if isinstance(error, ForebayError):
                billed = not isinstance(error, UNBILLED)
                reason, ended = status_of(error).reason, outcome_of(error)
                self.end(entrant, reason, ended=ended, billed=billed)
            else:
                self.end(entrant, outcome)
            if error is not None and not isinstance(error, ForebayError):
                raise error

    async def _rival(self) -> Entrant | None:
        """Return a second call, where the router may afford one."""
        hedge = self.chosen.of.route.hedge
        if hedge is None or not self.house.retries.left():
            return None
        try:
            entered = await self.enter(Step(hedge.to, "hedge", Reason.SLOW_START))
        except ForebayError:
            return None  # the first call goes on; what is wrong with the request, it will tell
        return entered if isinstance(entered, Entrant) else None

    def _barred(self, step: Step, outcome: str, waited_s: float = 0.0) -> None:
        """Close a step that called nobody; a second call that was not to be had is no step."""
        if step.move != "hedge":
            self.walk.barred(step, outcome, waited_s)

    @property
    def _spent_usd(self) -> float:
        """What the request has cost, and the most that its open calls may yet."""
        return self.walk.spent_usd + sum(
            self.house.usd(one.step.target, Usage(one.run.prompt_tokens, one.call.max_tokens))
            for one in self._open
        )

    def _begun(self, entrant: Entrant) -> Entrant:
        self._open.append(entrant)
        if not self.walk.run.target or entrant.step.move != "hedge":
            self.walk.run = entrant.run
        return entrant

    async def _placed(
        self,
        request: Request,
        step: Step,
        prepared: Prepared,
        held: Held,
        *,
        reserved: int,
    ) -> Entrant:
        """Return the call of what admission placed, which may be a weaker target's.

        Prompt and answer have at most the `reserved` tokens that its place was given for.
        """
        placed, lease = held
        engine = self.house.engine(placed.target)
        if isinstance(placed, Downgrade):
            step = Step(placed.target, "downgrade", placed.reason)
            prepared = await engine.prepare(request)
            if not prepared.whole:
                # Counted in the first target's tokens it fitted.
                said = f"{placed.instead_of} takes no more now, and the prompt is too long for "
                raise Overloaded(said + placed.target, 1.0)
        room = max(1, reserved - prepared.prompt_tokens)
        most = min(room, self.house.most(request, step.target, prepared))
        most = self.house.affordable(self.chosen, step.target, prepared, most, self._spent_usd)
        call = self.house.call(request, prepared, most, placed.replica)
        run = Run(step.target, prepared.prompt_tokens, placed)
        return Entrant(step, call, lease, run, engine.generate(call))

    def _person(self, step: Step) -> Entrant:
        """Return the call that leaves a request to a person: nobody's capacity is predicted."""
        call = self.house.case(self.request, self.walk)
        run = Run(step.target, 0, Admit(step.target))
        return Entrant(step, call, _Free(), run, self.house.engine(HUMAN).generate(call))


class _Free:
    """The lease of a place that nobody counts."""

    def saw(self, tokens: int, now_s: float) -> None:
        """Note nothing."""

    def end(self, outcome: str, reader_s: float = 0.0) -> None:
        """Note nothing."""


async def _without_personal(request: Request) -> tuple[Request, Verdict | None]:
    """Return what may leave of a request; a long one is read beside the others' work."""
    if outgoing.lengthy(request):
        return await asyncio.to_thread(outgoing.cleaned, request)
    return outgoing.cleaned(request)
