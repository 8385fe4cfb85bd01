"""The whole schedule of a run, drawn before it starts: who comes when, asking what.

Each concern draws from a stream of its own (named SEED/concern), so that another share of
slow readers, say, changes no arrival and no prompt. Pure but for the prompt files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest import traces
from loadtest.arrivals import poisson, replay, sample, speed_for, stream
from loadtest.plan import PlanError, Replay, shape_of
from loadtest.prompts import corpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from loadtest.plan import Class, Lengths, Plan
    from loadtest.traces import Row


@dataclass(frozen=True, slots=True)
class Job:
    """One request to offer at `at_s` seconds from the run's start."""

    number: int
    at_s: float
    klass: str
    door: str
    model: str
    labels: Mapping[str, str]
    prompt: str
    max_tokens: int
    exact: bool
    timeout_s: float
    deadline_ms: int | None = None
    hang_up_after: int | None = None
    gap_s: float = 0.0
    leave_after_s: float | None = None
    """From `at_s` on: when the client leaves, whatever came until then."""

    @property
    def pauses_s(self) -> float:
        """How long a slow reader pauses at most; no limit on the service counts that."""
        return self.gap_s * self.max_tokens

    @property
    def patience_s(self) -> float:
        """How long the client waits for the whole answer."""
        return self.timeout_s + self.pauses_s


def schedule(plan: Plan) -> list[Job]:
    """Return the jobs of a plan, in order of their moments.

    Raises:
        PlanError: a trace is too short, or its rows belong to no class.
        TraceError, PromptsError: a file that the plan names cannot be read.
    """
    rows = traces.read([plan.at(path) for path in plan.traces]) if plan.traces else []
    due = _due(plan, rows)
    picks = _Classes(plan, rows)
    return [picks.job(number, at_s, row) for number, (at_s, row) in enumerate(due)]


def _due(plan: Plan, rows: list[Row]) -> list[tuple[float, Row | None]]:
    said = plan.arrivals
    if isinstance(said, Replay):
        try:
            return list(_replayed(plan, said, rows))
        except ValueError as error:
            raise PlanError(f"plan {plan.name}: {error}") from error
    shape = shape_of(plan)
    assert shape is not None, "only a replay has no shape"
    return [(at_s, None) for at_s in poisson(shape, plan.seed)]


def _replayed(plan: Plan, said: Replay, rows: list[Row]) -> list[tuple[float, Row]]:
    rate_rps, duration_s = said.rate_rps or 0.0, plan.duration_s
    if said.sample:
        return sample(rows, rate_rps, duration_s, plan.seed)
    speed = said.speed or speed_for(rows, rate_rps, duration_s, said.start_s)
    return replay(rows, speed, duration_s, said.start_s)


class _Classes:
    """Turns moments into jobs, class by class, with one random stream for each concern."""

    def __init__(self, plan: Plan, rows: Sequence[Row]) -> None:
        self._plan = plan
        self._rows = {
            one.trace: [row for row in rows if row.trace == one.trace]
            for one in plan.classes
            if one.trace is not None
        }
        if empty := next((name for name, found in self._rows.items() if not found), None):
            raise PlanError(f"plan {plan.name}: the trace {empty} holds no request")
        self._pick, self._lengths, self._text, self._people = (
            stream(f"{plan.seed}/{concern}") for concern in ("class", "lengths", "text", "people")
        )
        self._sessions = {
            one.name: _Sessions(one, stream(f"{plan.seed}/session/{one.name}"))
            for one in plan.classes
            if one.session is not None
        }

    def job(self, number: int, at_s: float, row: Row | None) -> Job:
        """Return the request that is due then."""
        one = self._class_for(row)
        prompt_tokens, output_tokens = self._sizes(one, row)
        labels: dict[str, str] = {str(name): value for name, value in one.labels.items()}
        if one.tiers:
            names, weights = list(one.tiers), list(one.tiers.values())
            labels["tier"] = self._people.choices(names, weights)[0]
        leaves, reads = self._people.random(), self._people.random()
        left = one.hang_up if one.hang_up and leaves < one.hang_up.share else None
        return Job(
            number,
            at_s,
            one.name,
            one.door or self._plan.door,
            one.model,
            labels,
            self._prompt(one, prompt_tokens),
            output_tokens,
            one.exact,
            self._plan.timeout_s,
            one.deadline_ms,
            left.after_tokens if left else None,
            one.slow.gap_ms / 1000 if one.slow and reads < one.slow.share else 0.0,
            left.after_ms / 1000 if left and left.after_ms else None,
        )

    def _class_for(self, row: Row | None) -> Class:
        fit = [
            one
            for one in self._plan.classes
            if row is None or one.trace is None or one.trace == row.trace
        ]
        if not fit:
            raise PlanError(
                f"plan {self._plan.name}: no class takes the rows of {row and row.trace}; "
                "give one class that trace, or none"
            )
        return self._pick.choices(fit, [one.share for one in fit])[0]

    def _sizes(self, one: Class, row: Row | None) -> tuple[int, int]:
        """Return tokens of prompt and answer; both of one row where both are traced."""
        if one.trace is not None and (row is None or row.trace != one.trace):
            row = self._lengths.choice(self._rows[one.trace])
        prompt = self._drawn(one.prompt_tokens, row.prompt_tokens if row else 0)
        output = self._drawn(one.output_tokens, row.output_tokens if row else 0)
        return (
            max(1, min(round(prompt * one.scale_prompt), one.prompt_at_most)),
            max(1, min(round(output * one.scale_output), one.output_at_most)),
        )

    def _drawn(self, lengths: Lengths, traced: int) -> int:
        if lengths == "traced":
            return traced
        if isinstance(lengths, int):
            return lengths
        low, high = lengths
        return self._lengths.randint(min(int(low), int(high)), max(int(low), int(high)))

    def _prompt(self, one: Class, tokens: int) -> str:
        text = corpus(one.prompts)
        if one.session is None:
            return text.cut(tokens, self._text)
        shared = min(one.session.prefix_tokens, tokens - 1)
        prefix = self._sessions[one.name].prefix(shared)
        return prefix + text.cut(tokens - shared, self._text)


class _Sessions:
    """The open sessions of one class; each lasts some requests and begins the same way."""

    def __init__(self, one: Class, draw: Random) -> None:
        assert one.session is not None
        self._said = one.session
        self._text = corpus(one.prompts)
        self._draw = draw
        self._open: list[tuple[int, int]] = []
        """Of each open session, the seed of its prefix and how many requests are left."""

    def prefix(self, tokens: int) -> str:
        """Return the beginning of the next request's session."""
        if len(self._open) < self._said.open:
            self._open.append((self._draw.getrandbits(32), self._said.requests))
        at = self._draw.randrange(len(self._open))
        seed, left = self._open.pop(at)
        if left > 1:
            self._open.append((seed, left - 1))
        return self._text.cut(tokens, stream(f"prefix/{seed}"))
