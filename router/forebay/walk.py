"""What happened to one request so far: the corridor's only mutable state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from forebay.values import (
    Admit,
    Attempt,
    Labels,
    Reason,
    Record,
    Timing,
    Usage,
)

if TYPE_CHECKING:
    from forebay.errors import ForebayError
    from forebay.policy.choose import Chosen
    from forebay.values import Downgrade, Move, Request, Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """The next target to try, by which move and why; `spill` if it may still spill from there.

    `beside` is whether it is the one that broke, at another replica.
    """

    target: str
    move: Move
    reason: Reason
    spill: bool = False
    beside: bool = False


def reason_of(step: Step, placed: Admit | Downgrade) -> Reason:
    """Return why a step came to be: for admission's reason where that is not plain room."""
    return step.reason if placed.reason is Reason.HEADROOM else placed.reason


_NOWHERE = Admit("")


@dataclass(slots=True)
class Run:
    """The numbers of one target's answer; `told` is the usage that the target counted itself.

    `withheld` is the verdict on the request where a part of it was not told to the target;
    `reader_s` is for how long what happened to it waited for the client to take it.
    """

    target: str = ""
    prompt_tokens: int = 0
    placed: Admit | Downgrade = _NOWHERE
    tokens: int = 0
    told: Usage | None = None
    withheld: Verdict | None = None
    first_s: float | None = None
    last_s: float | None = None
    reader_s: float = 0.0
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
    """One request on its way; becomes its record.

    `run` is the answer it is told by, `draft` the last that failed its verifiers, for a person.
    `broke` is what the last target that was called failed with: calls after that are retries.
    `broken` are the replicas that broke under it.
    """

    request: Request
    chosen: Chosen | None = None
    attempts: list[Attempt] = field(default_factory=list)
    status: str = "cancelled"
    run: Run = field(default_factory=Run)
    draft: str = ""
    sent_s: float | None = None
    broke: ForebayError | None = None
    broken: frozenset[str] = frozenset()

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

    @property
    def spent_usd(self) -> float:
        """What all attempts that have ended cost."""
        return sum(attempt.usd for attempt in self.attempts)

    def commit(self, now_s: float) -> None:
        """Note that text leaves now."""
        if self.sent_s is None:
            self.sent_s = now_s

    def failed(self, run: Run, error: ForebayError) -> None:
        """Note that the target that was called failed, and at which replica."""
        self.broke = error
        if run.placed.replica:
            self.broken |= {run.placed.replica}

    def barred(self, step: Step, outcome: str, waited_s: float = 0.0) -> None:
        """Close a step that called nobody."""
        reason = str(step.reason)
        self.attempts.append(Attempt(step.target, step.move, reason, outcome, waited_s=waited_s))

    def end(
        self, step: Step, run: Run, outcome: str, verdicts: tuple[Verdict, ...], usd: float
    ) -> None:
        """Close a step that called its target, with the numbers of that call."""
        placed = run.placed
        self.attempts.append(
            Attempt(
                target=step.target,
                move=step.move,
                reason=reason_of(step, placed),
                outcome=outcome,
                tokens=run.usage.completion_tokens,
                verdicts=verdicts,
                replica=placed.replica,
                waited_s=placed.waited_s,
                predicted=placed.predicted,
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
