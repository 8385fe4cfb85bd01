"""What has happened to one request so far: the corridor's only mutable state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from forebay.errors import (
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
)
from forebay.values import (
    Attempt,
    Chunk,
    Finish,
    Labels,
    Reason,
    Record,
    Refuse,
    Timing,
    Token,
    Usage,
    Verdict,
)

if TYPE_CHECKING:
    from collections import deque

    from forebay.policy.choose import Chosen
    from forebay.values import Prepared, Request

Move = Literal["first", "spill", "failover", "escalate"]


@dataclass(frozen=True, slots=True)
class Step:
    """The next target to try, by which move and why."""

    target: str
    move: Move
    reason: Reason


@dataclass(frozen=True, slots=True)
class Setback:
    """Why a step brought no answer while the client had read nothing, and how to go on.

    `answer` is the text that failed its verifiers, where there was one.
    """

    error: ForebayError
    move: Move
    reason: Reason
    answer: str = ""
    finish: Finish = "stop"


def setback_of(error: ForebayError) -> Setback | None:
    """Return how to go on after an engine's error, or None where that is not safe."""
    if isinstance(error, Overloaded):
        return Setback(error, "spill", Reason.QUEUE_FULL)
    if isinstance(error, EngineUnavailable):
        return Setback(error, "failover", Reason.ENGINE_DOWN)
    if isinstance(error, EngineFailed):
        return Setback(error, "failover", Reason.ENGINE_FAILED)
    return None


def setback_of_refusal(refuse: Refuse) -> Setback:
    """Return how to go on where admission refused: capacity spills, a long prompt climbs."""
    sentence = f"{refuse.target} takes no more now: {refuse.limit}"
    if refuse.reason is Reason.PROMPT_TOO_LONG:
        long = f"the prompt is too long for {refuse.target}: {refuse.limit}"
        return Setback(InvalidRequest(long), "escalate", refuse.reason)
    if refuse.reason is Reason.ENGINE_DOWN:
        return Setback(EngineUnavailable(sentence), "failover", refuse.reason)
    return Setback(Overloaded(sentence, refuse.retry_after_s), "spill", refuse.reason)


def following(chosen: Chosen, ladder: deque[str], tried: set[str], setback: Setback) -> Step | None:
    """Return the step after a setback; no target is tried twice.

    Capacity and breakage look to the spill target first. Breakage and quality climb the ladder;
    capacity does not, because a full engine is no reason to buy a stronger model.
    """
    if setback.move in ("spill", "failover") and chosen.spill_to not in (None, *tried):
        return Step(str(chosen.spill_to), setback.move, setback.reason)
    while ladder and setback.move != "spill":
        if (target := ladder.popleft()) not in tried:
            return Step(target, setback.move, setback.reason)
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
class Walk:
    """One request on its way; becomes its record."""

    request: Request
    chosen: Chosen | None = None
    attempts: list[Attempt] = field(default_factory=list)
    status: str = "cancelled"
    target: str = ""
    usage: Usage = field(default_factory=Usage)
    sent_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    gaps_ms: list[float] = field(default_factory=list)

    @property
    def committed(self) -> bool:
        """Whether the client has been sent text: the point of no return."""
        return self.sent_s is not None

    def begin(self, step: Step, prepared: Prepared) -> None:
        """Start the numbers of a new attempt; those of the one before stand in `attempts`."""
        self.target = step.target
        self.usage = Usage(prepared.prompt_tokens, 0)
        self.first_s = self.last_s = None
        self.gaps_ms = []

    def saw(self, tokens: int, now_s: float) -> None:
        """Count tokens that the engine yielded, and when."""
        usage = self.usage
        self.usage = replace(usage, completion_tokens=usage.completion_tokens + tokens)
        if self.last_s is None:
            self.first_s = now_s
        else:
            self.gaps_ms.append((now_s - self.last_s) * 1000)
        self.last_s = now_s

    def commit(self, now_s: float) -> None:
        """Note that text leaves now."""
        if self.sent_s is None:
            self.sent_s = now_s

    def end(self, step: Step, outcome: str, verdicts: tuple[Verdict, ...] = ()) -> None:
        """Close a step, whether it reached an engine or not."""
        tokens = self.usage.completion_tokens if self.target == step.target else 0
        self.attempts.append(
            Attempt(step.target, step.move, step.reason, outcome, tokens, verdicts)
        )

    def timing(self, now_s: float) -> Timing:
        """Return TTFT, TPOT and E2E as of now.

        A stream's first token is the first that was sent; for a whole answer, which is sent at
        once, it is the first that the engine decoded.
        """
        received_s = self.request.received_s
        e2e_ms = (now_s - received_s) * 1000
        first_s = self.sent_s if self.request.stream else self.first_s
        if first_s is None:
            return Timing(e2e_ms=e2e_ms)
        ttft_ms = (first_s - received_s) * 1000
        later = self.usage.completion_tokens - 1
        return Timing(ttft_ms, (e2e_ms - ttft_ms) / later if later > 0 else None, e2e_ms)

    def record(self, policy: str, now_s: float, wall_s: float) -> Record:
        """Return the one record of this request."""
        return Record(
            id=self.request.id,
            at_wall_s=wall_s,
            door=self.request.door,
            route=self.chosen.of.name if self.chosen else "",
            target=self.target,
            labels=self.chosen.labels if self.chosen else Labels(),
            policy=policy,
            status=self.status,
            attempts=tuple(self.attempts),
            usage=self.usage,
            timing=self.timing(now_s),
            stream=self.request.stream,
            itl_ms=tuple(self.gaps_ms),
        )
