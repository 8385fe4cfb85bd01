"""A request's whole way: classify, choose, admit, call, verify, climb or answer, record.

What holds here, and why:
- The first `Token` yielded is the point of no return: after it nothing is tried again, because
  the client has read it.
- A place is decided on and reserved in one step, or a burst would stampede.
- Loads are read again on every rung: the world has moved while the last one answered.
- What failed is called again only as far as the router's retry budget goes.
- Each request leaves exactly one record, in `finally`, whatever happened.
- Spill (capacity), failover (the target broke) and escalate (quality) are different moves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.answer import Answer
from forebay.climb import (
    Setback,
    Unfit,
    ending,
    first_step,
    following,
    setback_of,
    to_a_person,
)
from forebay.entries import UNBILLED, Entries
from forebay.errors import AnswerRefused, ForebayError, UnknownTicket, status_of
from forebay.policy import verify
from forebay.policy.around import past_refusal
from forebay.policy.health import outcome_of
from forebay.policy.rules import HUMAN
from forebay.policy.tools import Calls
from forebay.policy.verifiers.support import library
from forebay.values import (
    Decided,
    Done,
    Event,
    Explanation,
    Failed,
    Progress,
    Reason,
    Release,
    Ticket,
    Verdict,
)
from forebay.walk import Step, Walk, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.house import House
    from forebay.policy.admission import Outcome
    from forebay.policy.choose import Chosen
    from forebay.race import Entrant
    from forebay.values import Chunk, Request


class Corridor:
    """Walks requests through one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield what happens to a request; the last event is one `Done` or one `Failed`.

        Close the generator to hang up: the engine's work is cancelled before its next token.
        """
        walk, now_s = Walk(request), self._house.clock.now_s
        try:
            async with aclosing(self._climb(walk)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        walk.status = "parked" if event.finish == "ticket" else "ok"
                    given_s = now_s()
                    yield event
                    walk.run.reader_s += now_s() - given_s
        except ForebayError as error:
            walk.status = status_of(error).reason
            yield Failed(error)
        except Exception:
            walk.status = "internal"
            raise
        finally:
            house = self._house
            record = walk.record(house.policy.version, house.clock.now_s(), house.clock.wall_s())
            house.ledger.append(record)

    async def ticket(self, ticket_id: str) -> Ticket:
        """Return a request that waits for a person, as it stands now.

        Raises:
            UnknownTicket: there never was such a ticket.
            EngineUnavailable: the queue cannot be read now.
        """
        found = await self._house.tickets.find(ticket_id)
        if found is None:
            raise UnknownTicket("there is no such ticket; a ticket's id is told when it is given")
        return found

    async def explain(self, request: Request) -> Explanation:
        """Return where a request would go now, without calling anybody.

        Raises:
            ForebayError: no class takes it, or it is wrong. A class whose targets would all
                refuse it now is explained, rung by rung.
        """
        chosen = self._house.choose(request)
        request = self._house.completed(request, chosen)
        chosen = await self._house.ranked(chosen, request)
        return Explanation(
            route=chosen.of.name,
            reason=chosen.reason,
            why=chosen.why,
            labels=chosen.labels,
            policy=self._house.policy.version,
            release=self._house.gate(chosen, request, chosen.ladder[0]).release,
            rungs=tuple(
                [await self._house.rung(chosen, request, target) for target in chosen.ladder]
            ),
            verify=chosen.of.route.verify,
        )

    async def _climb(self, walk: Walk) -> AsyncGenerator[Event, None]:
        """Take steps until one answers; when none is left, do as the route says."""
        chosen = walk.chosen = self._house.choose(walk.request)
        request = self._house.completed(walk.request, chosen)
        if verify.reads_at_length(chosen.of.route, request):
            # Tenths of a second for the largest: others go on, and the gate finds them read.
            await asyncio.to_thread(library, request.sources)
        chosen = walk.chosen = await self._house.ranked(chosen, request)
        self._house.retries.asked()
        ladder = deque(chosen.ladder)
        setbacks: list[Setback] = []
        step: Step | None = first_step(chosen, ladder)
        asked = request
        while step is not None:
            setback: Setback | None = None
            async with aclosing(self._take(walk, chosen, asked, step)) as events:
                async for event in events:
                    if isinstance(event, Setback):
                        setback = event
                    else:
                        yield event
            if setback is None:
                return
            setbacks.append(setback)
            step, asked = self._after(walk, request, setbacks, ladder)
            if step is not None:
                yield Progress(f"{step.move} to {step.target}: {setback.error}")
        for event in self._exhausted(walk, chosen, setbacks):
            yield event

    def _after(
        self, walk: Walk, request: Request, setbacks: list[Setback], ladder: deque[str]
    ) -> tuple[Step | None, Request]:
        """Return the step after a setback and what it is asked; None where the walk ends."""
        chosen, setback = walk.chosen, setbacks[-1]
        assert chosen is not None
        tried = {attempt.target for attempt in walk.attempts}
        if HUMAN in tried:
            return None, request  # after a person there is nobody to ask
        if walk.model_refused:
            kept = [*past_refusal(ladder, walk.attempts[-1].target, self._house.policy.targets)]
            ladder.clear()
            ladder.extend(kept)
        repairs = sum(attempt.move == "repair" for attempt in walk.attempts)
        mended = self._house.repaired(chosen, request, setback, repairs)
        if mended is not None:
            return mended
        step = self._house.beside(walk, chosen, setback)
        step = step or following(chosen, ladder, tried, setback)
        if step is not None and walk.broke is not None and not self._house.retries.left():
            step = None
        return step or to_a_person(chosen, ladder, tried, setbacks), request

    async def _take(
        self, walk: Walk, chosen: Chosen, request: Request, step: Step
    ) -> AsyncGenerator[Event | Setback, None]:
        """Get a place at the step's target, which may take its time, and try to answer there."""
        async with Entries(self._house, walk, chosen, request) as entries:
            entrant = await entries.enter(step)
            if isinstance(entrant, Setback):
                yield entrant
                return
            gate = self._house.gate(chosen, request, entrant.step.target)
            yield self._decided(chosen, entrant, gate.release)
            faster = await entries.raced(entrant)
            if faster is not entrant:
                entrant = faster
                gate = self._house.gate(chosen, request, entrant.step.target)
                yield self._decided(chosen, entrant, gate.release)
            async with aclosing(self._attempt(walk, entries, entrant, gate)) as events:
                async for event in events:
                    yield event

    async def _attempt(
        self, walk: Walk, entries: Entries, entrant: Entrant, gate: verify.Gate
    ) -> AsyncGenerator[Event | Setback, None]:
        """Stream one target's answer through the gate, then judge it whole."""
        clock, outcome = self._house.clock, "cancelled"
        billed = True
        ended: Outcome = "cancelled"
        answer = Answer(gate, Calls(entrant.call.request))
        try:
            if entrant.run.withheld is not None:
                yield entrant.run.withheld
            async with aclosing(entrant.chunks_in_order()) as chunks:
                async for chunk in chunks:
                    entrant.saw(chunk, clock.now_s)
                    if (token := answer.take(chunk)) is not None:
                        walk.commit(clock.now_s())
                        yield token
            entrant.lease.end("served", entrant.run.reader_s)
            walk.broke = None  # it answered: what a verdict asks for next is no retry
            rest = answer.judge()
            for verdict in answer.verdicts:
                yield verdict
            if (withheld := answer.withheld) is not None:
                outcome, walk.draft = "refused", answer.said(rest)
                why = f"{withheld.verifier}: {withheld.reason}"
                unfit = Unfit(entrant.step, rest, answer.last, entrant.run, why)
                yield _setback(walk, unfit, withheld)
                return
            outcome = "answered"
            if (ticket := answer.last.ticket) is not None:
                outcome = "parked"
                yield ticket
            if rest.text or rest.tokens:
                walk.commit(clock.now_s())
                yield rest
            yield self._done(walk, answer.last, flagged=answer.flagged)
        except ForebayError as error:
            judged = isinstance(error, AnswerRefused)
            outcome = "refused" if judged else status_of(error).reason
            ended = outcome_of(error)
            billed = bool(entrant.run.tokens) or not isinstance(error, UNBILLED)
            setback = setback_of(error)
            if setback is None or walk.committed:
                raise
            walk.failed(entrant.run, error)
            yield replace(setback, called=True)
        finally:
            entries.end(entrant, outcome, answer.verdicts, ended=ended, billed=billed)

    def _exhausted(self, walk: Walk, chosen: Chosen, setbacks: list[Setback]) -> list[Event]:
        """Return what a client gets when no rung's answer passed, or raise why it gets none."""
        unfit = next((s.unfit for s in reversed(setbacks) if s.unfit is not None), None)
        if unfit is None or chosen.of.route.on_exhausted != "flag":
            raise ending(setbacks)
        walk.run = unfit.run
        walk.commit(self._house.clock.now_s())
        return [unfit.token, self._done(walk, unfit.last, flagged=True)]

    def _decided(self, chosen: Chosen, entrant: Entrant, release: Release) -> Decided:
        step, run = entrant.step, entrant.run
        return Decided(
            route=chosen.of.name,
            target=step.target,
            move=step.move,
            reason=reason_of(step, run.placed),
            why=chosen.why,
            labels=chosen.labels,
            policy=self._house.policy.version,
            release=release,
            prompt_tokens=run.usage.prompt_tokens,
            replica=run.placed.replica,
            waited_s=run.placed.waited_s,
            predicted=run.placed.predicted,
        )

    def _done(self, walk: Walk, last: Chunk, *, flagged: bool = False) -> Done:
        timing = walk.timing(self._house.clock.now_s())
        return Done(last.finish or "stop", walk.run.usage, timing, last.tool_calls, flagged)


def _setback(walk: Walk, unfit: Unfit, verdict: Verdict) -> Setback:
    """Return how to go on after a verdict; raise it once the client has read text."""
    if walk.committed:
        said = f"the answer failed {unfit.why}; what was sent before is not to be used"
        raise AnswerRefused(said)
    error = AnswerRefused(f"no answer passed its verifiers; the last failed {unfit.why}")
    referred = verdict.outcome == "referred"
    reason = Reason.FOR_A_PERSON if referred else Reason.VERDICT_FAILED
    return Setback(error, "escalate", reason, unfit)
