"""A request's whole way: classify, choose, admit, call, verify, climb or answer, record.

What holds here, and why:
- The first `Token` yielded is the point of no return: after it nothing is tried again, because
  the client has read it.
- Between reading a load and reserving a slot nothing awaits, or a burst would stampede.
- Loads are read again on every rung: the world has moved while the last one answered.
- Each request leaves exactly one record, in `finally`, whatever happened.
- Spill (capacity), failover (the target broke) and escalate (quality) are different moves.
"""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from forebay.errors import (
    AnswerRefused,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    NotBuilt,
    status_of,
)
from forebay.policy import admit, offer, verify
from forebay.policy.choose import choose
from forebay.policy.rules import HUMAN
from forebay.policy.tools import Calls
from forebay.values import (
    Call,
    Chunk,
    Decided,
    Done,
    Event,
    Explanation,
    Failed,
    Progress,
    Reason,
    Refuse,
    Release,
    Rung,
    Token,
    Verdict,
)
from forebay.walk import Setback, Step, Unsent, Walk, following, setback_of, setback_of_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from forebay.policy.choose import Chosen, Policy
    from forebay.ports import Clock, Engine, Fleet, Ledger
    from forebay.values import Prepared, Request, ToolCall

DEFAULT_MAX_TOKENS = 1024
"""The longest answer where neither the request nor the target says."""


@dataclass(frozen=True, slots=True)
class House:
    """All that the corridor is built of; `engines` holds the targets that can be called."""

    policy: Policy
    engines: Mapping[str, Engine]
    fleet: Fleet
    clock: Clock
    ledger: Ledger


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
            ForebayError: nobody would take it; the same error `run` would end with.
        """
        chosen, request = self._choose(request)
        route = chosen.of.route
        return Explanation(
            route=chosen.of.name,
            reason=chosen.reason,
            why=chosen.why,
            labels=chosen.labels,
            policy=self._house.policy.version,
            release=self._gate(chosen, request, chosen.ladder[0]).release,
            rungs=tuple([await self._rung(chosen, request, target) for target in chosen.ladder]),
            verify=route.verify,
        )

    async def _climb(self, walk: Walk) -> AsyncGenerator[Event, None]:
        """Take steps until one answers; when none is left, do as the route says."""
        chosen, request = self._choose(walk.request)
        walk.chosen = chosen
        ladder = deque(chosen.ladder)
        tried: set[str] = set()
        setback = unfit = None
        step: Step | None = Step(ladder.popleft(), "first", chosen.reason)
        while step is not None:
            tried.add(step.target)
            setback = None
            async with aclosing(self._take(walk, chosen, request, step)) as events:
                async for event in events:
                    if isinstance(event, Setback):
                        setback = event
                    else:
                        yield event
            if setback is None:
                return
            unfit = setback if setback.answer else unfit
            step = following(chosen, ladder, tried, setback)
            if step is not None:
                yield Progress(f"{step.move} to {step.target}: {setback.error}")
        for event in self._exhausted(walk, chosen, setback, unfit):
            yield event

    async def _take(
        self, walk: Walk, chosen: Chosen, request: Request, step: Step
    ) -> AsyncGenerator[Event | Setback, None]:
        """Reserve a slot at the step's target and try to answer there."""
        prepared = await self._engine(step.target).prepare(request)
        if (refused := self._refusal(chosen, step.target, prepared)) is not None:
            walk.end(step, refused.reason)
            yield setback_of_refusal(refused)
            return
        lease = self._house.fleet.reserve(step.target, chosen.of.name)
        try:
            walk.begin(step, prepared)
            gate = self._gate(chosen, request, step.target)
            yield self._decided(chosen, step, prepared, gate.release)
            call = self._call(request, step.target, prepared)
            async with aclosing(self._attempt(walk, step, call, gate)) as events:
                async for event in events:
                    yield event
        finally:
            lease.release()

    async def _attempt(
        self, walk: Walk, step: Step, call: Call, gate: verify.Gate
    ) -> AsyncGenerator[Event | Setback, None]:
        """Stream one target's answer through the gate, then judge it whole."""
        house, outcome = self._house, "cancelled"
        verdicts: tuple[Verdict, ...] = ()
        last, unsent, calls = Chunk(finish="stop"), Unsent(), Calls(call.request)
        try:
            async with aclosing(house.engines[step.target].generate(call)) as chunks:
                async for chunk in chunks:
                    if chunk.tokens:
                        walk.saw(chunk.tokens, house.clock.now_s())
                    unsent.add(chunk)
                    last = chunk
                    if text := calls.feed(gate.feed(chunk.text)):
                        walk.commit(house.clock.now_s())
                        yield unsent.token(text)
            house.fleet.served(step.target)
            text, verdicts = gate.finish()
            for verdict in verdicts:
                yield verdict
            failed = next((v for v in verdicts if v.outcome == "failed"), None)
            outcome = "answered" if failed is None else "refused"
            if failed is not None:
                yield _unfit(walk, failed, calls.finish(text)[0], last)
                return
            text, made = calls.finish(text)
            if text or unsent.tokens:
                walk.commit(house.clock.now_s())
                yield unsent.token(text)
            yield self._done(walk, _called(last, made))
        except ForebayError as error:
            outcome = status_of(error).reason
            if isinstance(error, EngineUnavailable | EngineFailed):
                house.fleet.failed(step.target)
            setback = setback_of(error)
            if setback is None or walk.committed:
                raise
            yield setback
        finally:
            walk.end(step, outcome, verdicts)

    def _exhausted(
        self, walk: Walk, chosen: Chosen, setback: Setback | None, unfit: Setback | None
    ) -> list[Event]:
        """Return what a client gets when no rung's answer passed, or raise why it gets none."""
        if unfit is None or chosen.of.route.on_exhausted == "refuse":
            raise setback.error if setback else AssertionError("a climb ended without a setback")
        if chosen.of.route.on_exhausted == "human":
            raise _human_not_built()
        walk.commit(self._house.clock.now_s())
        tokens = walk.usage.completion_tokens
        last = Chunk(finish=unfit.finish)
        return [Token(unfit.answer, tokens), self._done(walk, last, flagged=True)]

    # ---- what is asked of policy ----------------------------------------------------------

    def _choose(self, request: Request) -> tuple[Chosen, Request]:
        """Return the class and the request as its route completes it; raise what forbids it."""
        policy = self._house.policy
        if request.deadline_s is not None and request.deadline_s <= self._house.clock.now_s():
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        chosen = choose(policy, request)
        if isinstance(chosen, ForebayError):
            raise chosen
        if (missing := offer.not_built(chosen.of.route)) is not None:
            raise NotBuilt(
                f"class {chosen.of.name} uses {missing}, which this version does not have yet"
            )
        return chosen, offer.completed(request, chosen.of.route, policy.document)

    def _engine(self, target: str) -> Engine:
        """Return the engine of a target; raise where this version cannot call it."""
        engine = self._house.engines.get(target)
        if engine is None:
            if target == HUMAN:
                raise _human_not_built()
            adapter = self._house.policy.targets[target].adapter
            raise NotBuilt(
                f"target {target} needs the {adapter} adapter, which this version does not have yet"
            )
        return engine

    def _gate(self, chosen: Chosen, request: Request, target: str) -> verify.Gate:
        """Return the verifiers that watch an answer of `target`."""
        engine = self._house.engines.get(target)
        guide = request.guide
        enforced = bool(engine and guide and guide.kind in engine.abilities.guides)
        subject = verify.subject(chosen.of.route, request, enforced=enforced)
        release = chosen.of.route.stream if request.stream else Release.FINAL
        return verify.Gate(chosen.of.route.verify, subject, stream=release)

    def _refusal(self, chosen: Chosen, target: str, prepared: Prepared) -> Refuse | None:
        """Return the first limit that one more request at `target` would break, as of now."""
        house = self._house
        return admit.refusal(
            target,
            house.policy.targets[target].limits,
            chosen.of.route.constraints,
            house.fleet.load(target, chosen.of.name),
            admit.Demand(prepared.prompt_tokens, house.engines[target].abilities),
        )

    async def _rung(self, chosen: Chosen, request: Request, target: str) -> Rung:
        """Return where a rung would be placed, were it called now."""
        refused, tokens = await self._glance(chosen, request, target)
        spill_to, spilled = chosen.spill_to, None
        if refused is not None and spill_to is not None:
            spilled, _ = await self._glance(chosen, request, spill_to)
        return Rung(target, admit.place(target, refused, spill_to, spilled), tokens)

    async def _glance(
        self, chosen: Chosen, request: Request, target: str
    ) -> tuple[Refuse | None, int]:
        """Return what stands against calling `target` now, and the prompt's tokens there."""
        try:
            prepared = await self._engine(target).prepare(request)
        except NotBuilt as error:
            return Refuse(target, Reason.NOT_BUILT, str(error), 0.0), 0
        return self._refusal(chosen, target, prepared), prepared.prompt_tokens

    def _call(self, request: Request, target: str, prepared: Prepared) -> Call:
        """Return the attempt with its answer bounded by request, target and context."""
        limit = self._house.policy.targets[target].limits.max_output_tokens
        abilities = self._house.engines[target].abilities
        asked = request.sampling.max_tokens or limit or DEFAULT_MAX_TOKENS
        room = abilities.max_seq_tokens - prepared.prompt_tokens
        return Call(request, prepared, min(asked, limit or asked, room), request.deadline_s)

    # ---- what a client is told --------------------------------------------------------------

    def _decided(self, chosen: Chosen, step: Step, prepared: Prepared, release: Release) -> Decided:
        return Decided(
            route=chosen.of.name,
            target=step.target,
            move=step.move,
            reason=step.reason,
            why=chosen.why,
            labels=chosen.labels,
            policy=self._house.policy.version,
            release=release,
            prompt_tokens=prepared.prompt_tokens,
        )

    def _done(self, walk: Walk, last: Chunk, *, flagged: bool = False) -> Done:
        timing = walk.timing(self._house.clock.now_s())
        return Done(last.finish or "stop", walk.usage, timing, last.tool_calls, flagged)


def _called(last: Chunk, made: tuple[ToolCall, ...]) -> Chunk:
    """Return the last chunk with the calls that its answer's text turned out to be."""
    return replace(last, finish="tool_calls", tool_calls=made) if made else last


def _unfit(walk: Walk, failed: Verdict, text: str, last: Chunk) -> Setback:
    """Return how to go on after a failed verdict; raise it once the client has read text."""
    why = f"{failed.verifier}: {failed.reason}"
    if walk.committed:
        raise AnswerRefused(f"the answer failed {why}; what was sent before is not to be used")
    error = AnswerRefused(f"no answer passed its verifiers; the last failed {why}")
    return Setback(error, "escalate", Reason.VERDICT_FAILED, text, last.finish or "stop")


def _human_not_built() -> NotBuilt:
    return NotBuilt(f"{HUMAN} is the next step, and this version has no review queue yet")
