"""How a walk goes on after a step that brought no answer: by which move, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.errors import (
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    NotBuilt,
    Overloaded,
)
from forebay.policy.rules import HUMAN
from forebay.values import Reason, Refuse, Spill
from forebay.walk import Step

if TYPE_CHECKING:
    from collections import deque

    from forebay.policy.choose import Chosen
    from forebay.values import Chunk, Move, Token
    from forebay.walk import Run


@dataclass(frozen=True, slots=True)
class Unfit:
    """An answer that was whole and failed its verifiers, kept in case the route lets it go.

    `why` names the verifier and its reason, for whoever is asked to mend it.
    """

    step: Step
    token: Token
    last: Chunk
    run: Run
    why: str


@dataclass(frozen=True, slots=True)
class Setback:
    """Why a step brought no answer while the client had read nothing, and how to go on.

    `refused` where admission has looked at the spill target too, and found it no better;
    `called` where a target was called and failed, so that the next call is a retry.
    """

    error: ForebayError
    move: Move
    reason: Reason
    unfit: Unfit | None = None
    refused: bool = False
    called: bool = False


def setback_of(error: ForebayError) -> Setback | None:
    """Return how to go on after an engine's error, or None where that is not safe."""
    if isinstance(error, Overloaded):
        return Setback(error, "spill", Reason.QUEUE_FULL)
    if isinstance(error, EngineUnavailable):
        return Setback(error, "failover", Reason.ENGINE_DOWN)
    if isinstance(error, EngineFailed):
        return Setback(error, "failover", Reason.ENGINE_FAILED)
    if isinstance(error, Declined):
        return Setback(error, "escalate", Reason.DECLINED)
    if isinstance(error, NotBuilt):
        return Setback(error, "failover", Reason.NOT_BUILT)
    return None


def ending(setbacks: list[Setback]) -> ForebayError:
    """Return the error that a climb without an answer ends with: the last step's.

    Where that is a target not built yet and an earlier step was only full or broken, the earlier
    one is told: it is what the client can do something about, by trying again.
    """
    last = setbacks[-1].error
    if isinstance(last, NotBuilt):
        passing = (s.error for s in reversed(setbacks) if s.error.retry_after_s is not None)
        return next(passing, last)
    return last


def setback_of_placement(placed: Spill | Refuse) -> Setback:
    """Return how to go on where admission sent a request on, or refused it.

    Capacity spills, a broken engine fails over, a long prompt climbs.
    """
    if isinstance(placed, Spill):
        error = Overloaded(f"{placed.instead_of} takes no more in time", 1.0)
        move: Move = "failover" if placed.reason is Reason.ENGINE_DOWN else "spill"
        return Setback(error, move, placed.reason)
    sentence = f"{placed.target} takes no more now: {placed.limit}"
    if placed.reason is Reason.PROMPT_TOO_LONG:
        long = f"the prompt is too long for {placed.target}: {placed.limit}"
        return Setback(InvalidRequest(long), "escalate", placed.reason, refused=True)
    if placed.reason is Reason.ENGINE_DOWN:
        return Setback(EngineUnavailable(sentence), "failover", placed.reason, refused=True)
    if placed.reason is Reason.BREAKER_OPEN:
        # As if the cloud had been called and had failed: the spill target, if it is another.
        return Setback(EngineUnavailable(sentence), "failover", placed.reason)
    if placed.reason is Reason.DEADLINE_AT_RISK:
        late = f"{placed.target} cannot answer before the deadline: {placed.limit}"
        return Setback(DeadlineExceeded(late), "spill", placed.reason, refused=True)
    return Setback(Overloaded(sentence, placed.retry_after_s), "spill", placed.reason, refused=True)


def first_step(chosen: Chosen, ladder: deque[str]) -> Step:
    """Return the step that a walk begins with, and take it off the ladder."""
    target = ladder.popleft()
    return Step(target, "first", chosen.reason, chosen.spill_to not in (None, target))


def following(chosen: Chosen, ladder: deque[str], tried: set[str], setback: Setback) -> Step | None:
    """Return the step to another target after a setback; none is tried twice.

    Capacity and breakage look to the spill target first. Breakage and quality climb the ladder;
    capacity does not, because a full engine is no reason to buy a stronger model. What is not
    built yet ends the climb: a policy that names it means it.
    """
    if setback.reason in (Reason.NOT_BUILT, Reason.FOR_A_PERSON):
        return None
    spill_to = None if chosen.spill_to in tried else chosen.spill_to
    if setback.move in ("spill", "failover") and spill_to is not None and not setback.refused:
        return Step(spill_to, setback.move, setback.reason)
    while ladder and setback.move != "spill":
        if (target := ladder.popleft()) not in tried:
            return Step(target, setback.move, setback.reason, spill_to not in (None, target))
    return None


def to_a_person(
    chosen: Chosen, ladder: deque[str], tried: set[str], setbacks: list[Setback]
) -> Step | None:
    """Return the step that leaves a request to a person where nobody else is to be called.

    A person is asked where the ladder ends with one, where a verdict says so, and where answers
    failed on a class that is left to people then; an engine that is only full is no reason.
    """
    last = setbacks[-1]
    judged = any(one.unfit is not None for one in setbacks)
    exhausted = judged and chosen.of.route.on_exhausted == "human"
    climbs = HUMAN in ladder and last.move != "spill" and last.reason is not Reason.NOT_BUILT
    if HUMAN in tried or not (climbs or exhausted or last.reason is Reason.FOR_A_PERSON):
        return None
    return Step(HUMAN, last.move, last.reason)
