"""What has happened to one request so far: the corridor's only mutable state."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from forebay.values import (
    Attempt,
    Chunk,
    Labels,
    Reason,
    Record,
    Refuse,
    Spill,
    Timing,
    Token,
    Usage,
    Verdict,
)

if TYPE_CHECKING:
    from collections import deque

    from forebay.policy.choose import Chosen
    from forebay.values import Admit, Downgrade, Move, Prepared, Request


@dataclass(frozen=True, slots=True)
class Step:
    """The next target to try, by which move and why; `spill` if it may still spill from there."""

    target: str
    move: Move
    reason: Reason
    spill: bool = False


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
    """Return the step after a setback; no target is tried twice.

    Capacity and breakage look to the spill target first. Breakage and quality climb the ladder;
    capacity does not, because a full engine is no reason to buy a stronger model. What is not
    built yet ends the climb: a policy that names it means it.
    """
    if setback.reason is Reason.NOT_BUILT:
        return None
    spill_to = None if chosen.spill_to in tried else chosen.spill_to
    if setback.move in ("spill", "failover") and spill_to is not None and not setback.refused:
        return Step(spill_to, setback.move, setback.reason)
    while ladder and setback.move != "spill":
        if (target := ladder.popleft()) not in tried:
            return Step(target, setback.move, setback.reason, spill_to not in (None, target))
    return None


@dataclass(slots=True)
class Unsent:
    """Tokens that were decoded and whose text has not left yet."""

    tokens: int = 0
    logprobs: tuple[float, ...] = ()

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.tokens += chunk.tokens
        self.logprobs += chunk.logprobs

    def token(self, text: str) -> Token:
        """Return the event that carries `text` and all that was counted."""
        token = Token(text, self.tokens, self.logprobs)
        self.tokens, self.logprobs = 0, ()
        return token


@dataclass(slots=True)
class Run:
    """The numbers of one target's answer; `told` is the usage that the target counted itself."""

    target: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    told: Usage | None = None
    placed: Admit | Downgrade | None = None
    first_s: float | None = None
    last_s: float | None = None
    gaps_ms: list[float] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """Tokens of the answer: as its target told, else as they were counted here."""
        return self.told or Usage(self.prompt_tokens, self.tokens)

    def saw(self, tokens: int, now_s: float) -> None:
        """Count tokens that the engine yielded, and when."""
        self.tokens += tokens
        if self.last_s is None:
            self.first_s = now_s
        else:
            self.gaps_ms.append((now_s - self.last_s) * 1000)
        self.last_s = now_s


@dataclass(slots=True)
class Walk:
    """One request on its way; becomes its record. `run` is the answer it is told by."""

    request: Request
    chosen: Chosen | None = None
    attempts: list[Attempt] = field(default_factory=list)
    status: str = "cancelled"
    run: Run = field(default_factory=Run)
    sent_s: float | None = None

    @property
    def committed(self) -> bool:
        """Whether the client has been sent text: the point of no return."""
        return self.sent_s is not None

    @property
    def model_refused(self) -> bool:
        """Whether the last answer was a refusal, as `refusal` found or the provider said."""
        if not self.attempts:
            return False
        last = self.attempts[-1]
        found = any(v.verifier == "refusal" and v.outcome == "failed" for v in last.verdicts)
        return found or last.outcome == "declined"

    def begin(self, step: Step, prepared: Prepared, placed: Admit | Downgrade) -> None:
        """Start the numbers of a new attempt; those of the one before stand in `attempts`."""
        self.run = Run(step.target, prepared.prompt_tokens, placed=placed)

    def commit(self, now_s: float) -> None:
        """Note that text leaves now."""
        if self.sent_s is None:
            self.sent_s = now_s

    def end(
        self,
        step: Step,
        outcome: str,
        verdicts: tuple[Verdict, ...] = (),
        *,
        waited_s: float = 0.0,
        usd: float = 0.0,
    ) -> None:
        """Close a step, whether it reached an engine or not."""
        placed = self.run.placed if self.run.target == step.target else None
        late = placed is not None and placed.reason is not Reason.HEADROOM
        self.attempts.append(
            Attempt(
                target=step.target,
                move=step.move,
                reason=placed.reason if placed and late else step.reason,
                outcome=outcome,
                tokens=self.run.usage.completion_tokens if placed else 0,
                verdicts=verdicts,
                replica=placed.replica if placed else "",
                waited_s=placed.waited_s if placed else waited_s,
                predicted=placed.predicted if placed else None,
                usd=usd,
            )
        )

    def timing(self, now_s: float) -> Timing:
        """Return TTFT, TPOT and E2E as of now.

        A stream's first token is the first that was sent; for a whole answer, which is sent at
        once, it is the first that the engine decoded. A stream whose text left all at once, after
        its verdict, has no TPOT.
        """
        received_s = self.request.received_s
        e2e_ms = (now_s - received_s) * 1000
        first_s = self.sent_s if self.request.stream else self.run.first_s
        if first_s is None:
            return Timing(e2e_ms=e2e_ms)
        ttft_ms = (first_s - received_s) * 1000
        later = self.run.usage.completion_tokens - 1
        # Tokens that left together, after the last was decoded, have no time between them.
        apart = later > 0 and self.run.last_s is not None and first_s < self.run.last_s
        return Timing(ttft_ms, (e2e_ms - ttft_ms) / later if apart else None, e2e_ms)

    def record(self, policy: str, now_s: float, wall_s: float) -> Record:
        """Return the one record of this request."""
        return Record(
            id=self.request.id,
            at_wall_s=wall_s,
            door=self.request.door,
            route=self.chosen.of.name if self.chosen else "",
            target=self.run.target or (self.attempts[-1].target if self.attempts else ""),
            labels=self.chosen.labels if self.chosen else Labels(),
            policy=policy,
            status=self.status,
            attempts=tuple(self.attempts),
            usage=self.run.usage,
            timing=self.timing(now_s),
            stream=self.request.stream,
            itl_ms=tuple(self.run.gaps_ms),
        )
