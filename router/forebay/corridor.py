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

from forebay.errors import AnswerRefused, ForebayError, status_of
from forebay.house import House, human_not_built
from forebay.policy import verify
from forebay.policy.around import past_refusal
from forebay.policy.health import at_fault
from forebay.policy.tools import Calls
from forebay.policy.verifiers.support import library
from forebay.ports import Held
from forebay.values import (
    Call,
    Chunk,
    Decided,
    Done,
    Downgrade,
    Event,
    Explanation,
    Failed,
    Progress,
    Reason,
    Release,
    Verdict,
)
from forebay.walk import (
    Run,
    Setback,
    Step,
    Unfit,
    Unsent,
    Walk,
    ending,
    first_step,
    following,
    setback_of,
    setback_of_placement,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.policy.choose import Chosen
    from forebay.ports import Lease
    from forebay.values import Request, ToolCall


class Corridor:
    """Walks requests through one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield what happens to a request; the last event is one `Done` or one `Failed`.

        Close the generator to hang up: the engine's work is cancelled before its next token.
        """
        walk = Walk(request)
        try:
            async with aclosing(self._climb(walk)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        walk.status = "ok"
                    yield event
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
        tried: set[str] = set()
        setbacks: list[Setback] = []
        step: Step | None = first_step(chosen, ladder)
        asked = request
        while step is not None:
            tried.add(step.target)
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
            step, asked = self._after(walk, request, setback, ladder=ladder, tried=tried)
            if step is not None:
                yield Progress(f"{step.move} to {step.target}: {setback.error}")
        for event in self._exhausted(walk, chosen, setbacks):
            yield event

    def _after(
        self, walk: Walk, request: Request, setback: Setback, *, ladder: deque[str], tried: set[str]
    ) -> tuple[Step | None, Request]:
        """Return the step after a setback and what it is asked; None where the walk ends."""
        chosen = walk.chosen
        tried.add(walk.attempts[-1].target)  # a downgrade answers elsewhere than it was sent
        if chosen is None or (setback.called and not self._house.retries.spend()):
            return None, request
        if walk.model_refused:
            kept = [*past_refusal(ladder, walk.attempts[-1].target, self._house.policy.targets)]
            ladder.clear()
            ladder.extend(kept)
        repairs = sum(attempt.move == "repair" for attempt in walk.attempts)
        mended = self._house.repaired(chosen, request, setback, repairs)
        return mended or (following(chosen, ladder, tried, setback), request)

    async def _take(
        self, walk: Walk, chosen: Chosen, request: Request, step: Step
    ) -> AsyncGenerator[Event | Setback, None]:
        """Get a place at the step's target, which may take its time, and try to answer there."""
        house = self._house
        try:
            prepared = await house.engine(step.target).prepare(request)
            house.in_time(request)
        except ForebayError as error:
            walk.end(step, status_of(error).reason)
            if (setback := setback_of(error)) is None:
                raise
            yield setback
            return
        held = await house.admission.place(house.ask(chosen, request, step, prepared))
        if not isinstance(held, Held):
            walk.end(step, held.reason, waited_s=held.waited_s)
            yield setback_of_placement(held)
            return
        placed, lease = held
        try:
            if isinstance(placed, Downgrade):
                step = Step(placed.target, "downgrade", placed.reason)
                prepared = await house.engine(step.target).prepare(request)
            walk.begin(step, prepared, placed)
            gate = house.gate(chosen, request, step.target)
            yield self._decided(chosen, step, walk.run, gate.release)
            call = house.call(request, step.target, prepared, placed.replica)
            async with aclosing(self._attempt(walk, step, call, gate, lease)) as events:
                async for event in events:
                    yield event
        finally:
            lease.end("cancelled")

    async def _attempt(
        self, walk: Walk, step: Step, call: Call, gate: verify.Gate, lease: Lease
    ) -> AsyncGenerator[Event | Setback, None]:
        """Stream one target's answer through the gate, then judge it whole."""
        house, outcome = self._house, "cancelled"
        verdicts: tuple[Verdict, ...] = ()
        last, unsent, calls = Chunk(finish="stop"), Unsent(), Calls(call.request)
        try:
            async with aclosing(house.engines[step.target].generate(call)) as chunks:
                async for chunk in chunks:
                    if chunk.tokens:
                        now_s = house.clock.now_s()
                        walk.run.saw(chunk.tokens, now_s)
                        lease.saw(chunk.tokens, now_s)
                    if chunk.usage is not None:
                        walk.run.told = chunk.usage
                    unsent.add(chunk)
                    last = chunk
                    if text := calls.feed(gate.feed(chunk.text)):
                        walk.commit(house.clock.now_s())
                        yield unsent.token(text)
            lease.end("served")
            native = gate.called(last.tool_calls)
            text, verdicts = gate.finish()
            for verdict in verdicts:
                yield verdict
            failed = next((v for v in verdicts if v.outcome == "failed"), None)
            outcome = "answered" if failed is None else "refused"
            text, made = calls.finish(text, native)
            last = _called(last, made)
            if failed is not None:
                why = f"{failed.verifier}: {failed.reason}"
                yield _setback(walk, Unfit(step, unsent.token(text), last, walk.run, why))
                return
            if text or unsent.tokens:
                walk.commit(house.clock.now_s())
                yield unsent.token(text)
            flagged = any(verdict.outcome == "flagged" for verdict in verdicts)
            yield self._done(walk, last, flagged=flagged)
        except ForebayError as error:
            outcome = status_of(error).reason
            lease.end("failed" if at_fault(error) else "cancelled")
            setback = setback_of(error)
            if setback is None or walk.committed:
                raise
            yield replace(setback, called=True)
        finally:
            walk.end(step, outcome, verdicts, usd=house.usd(step.target, walk.run.usage))

    def _exhausted(self, walk: Walk, chosen: Chosen, setbacks: list[Setback]) -> list[Event]:
        """Return what a client gets when no rung's answer passed, or raise why it gets none."""
        unfit = next((s.unfit for s in reversed(setbacks) if s.unfit is not None), None)
        if unfit is None or chosen.of.route.on_exhausted == "refuse":
            raise ending(setbacks)
        if chosen.of.route.on_exhausted == "human":
            raise human_not_built()
        walk.run = unfit.run
        walk.commit(self._house.clock.now_s())
        return [unfit.token, self._done(walk, unfit.last, flagged=True)]

    def _decided(self, chosen: Chosen, step: Step, run: Run, release: Release) -> Decided:
        placed = run.placed
        assert placed is not None
        return Decided(
            route=chosen.of.name,
            target=step.target,
            move=step.move,
            reason=step.reason if placed.reason is Reason.HEADROOM else placed.reason,
            why=chosen.why,
            labels=chosen.labels,
            policy=self._house.policy.version,
            release=release,
            prompt_tokens=run.usage.prompt_tokens,
            replica=placed.replica,
            waited_s=placed.waited_s,
            predicted=placed.predicted,
        )

    def _done(self, walk: Walk, last: Chunk, *, flagged: bool = False) -> Done:
        timing = walk.timing(self._house.clock.now_s())
        return Done(last.finish or "stop", walk.run.usage, timing, last.tool_calls, flagged)


def _called(last: Chunk, made: tuple[ToolCall, ...]) -> Chunk:
    """Return the last chunk with an answer's calls: its text's, or its own as they may leave."""
    return replace(last, finish="tool_calls", tool_calls=made) if made else last


def _setback(walk: Walk, unfit: Unfit) -> Setback:
    """Return how to go on after a failed verdict; raise it once the client has read text."""
    if walk.committed:
        said = f"the answer failed {unfit.why}; what was sent before is not to be used"
        raise AnswerRefused(said)
    error = AnswerRefused(f"no answer passed its verifiers; the last failed {unfit.why}")
    return Setback(error, "escalate", Reason.VERDICT_FAILED, unfit)
