"""A load test as one strict YAML file: who comes, when, with what, and what is promised.

What is wrong in a file is told by line and column, with the nearest known key.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from enginebuild.errors import SpecError
from enginebuild.strict import Strict, read_file
from loadtest import shapes

if TYPE_CHECKING:
    from collections.abc import Collection

ROOT = Path(__file__).resolve().parent.parent

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Millis = Annotated[float, Field(gt=0)]
Usd = Annotated[float, Field(ge=0)]
Door = Literal["grpc", "openai"]
Label = Literal["task", "sensitivity", "tier", "language", "mode"]

Lengths = Annotated[int, Field(gt=0)] | Annotated[tuple[Count, Count], Field()] | Literal["traced"]
"""Tokens: a number, a range `[low, high]` drawn evenly, or those of the trace."""


class PlanError(Exception):
    """A plan that cannot be run; the message says where and what to do."""


class Slo(Strict):
    """What is promised to a class: limits on each request, and the share that must meet all."""

    ttft_ms: Millis | None = None
    tpot_ms: Millis | None = None
    e2e_ms: Millis | None = None
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.99


class HangUp(Strict):
    """Clients that leave after some tokens, or at a moment, whether or not anything came.

    `after_ms` counts from the moment at which the request is due.
    """

    share: Share
    after_tokens: Count | None = None
    after_ms: Millis | None = None

    @model_validator(mode="after")
    def _one_end(self) -> HangUp:
        if (self.after_tokens is None) == (self.after_ms is None):
            raise ValueError("give either after_tokens or after_ms")
        return self


class Slow(Strict):
    """Clients that wait `gap_ms` before they read each event."""

    share: Share
    gap_ms: Millis = 200


class Session(Strict):
    """Requests that share the beginning of their prompts, as the turns of one dialogue do."""

    requests: Count = 5
    prefix_tokens: Count = 64
    open: Count = 4


class Class(Strict):
    """One kind of request. `share` is its weight among the classes."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    share: Annotated[float, Field(gt=0)]
    slo: Slo
    door: Door | None = None
    model: str = "auto"
    labels: dict[Label, str] = Field(default_factory=dict)
    tiers: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    trace: str | None = None
    prompts: str = "mtbench_questions"
    prompt_tokens: Lengths = 40
    output_tokens: Lengths = 32
    scale_prompt: Annotated[float, Field(gt=0)] = 1.0
    scale_output: Annotated[float, Field(gt=0)] = 1.0
    prompt_at_most: Count = 7000
    output_at_most: Count = 1000
    exact: bool = True
    deadline_ms: Count | None = None
    session: Session | None = None
    hang_up: HangUp | None = None
    slow: Slow | None = None

    @model_validator(mode="after")
    def _needs_its_trace(self) -> Class:
        if "traced" in (self.prompt_tokens, self.output_tokens) and self.trace is None:
            raise ValueError("lengths are traced, so say which trace: the name of a file in traces")
        return self


class Poisson(Strict):
    """Arrivals without memory at one rate."""

    kind: Literal["poisson"]
    rate_rps: Rate


class Ramp(Strict):
    """A Poisson rate that rises or falls evenly over the run."""

    kind: Literal["ramp"]
    from_rps: Rate
    to_rps: Rate


class Steps(Strict):
    """Poisson rates after each other, each for an equal part of the run."""

    kind: Literal["steps"]
    rates_rps: Annotated[tuple[Rate, ...], Field(min_length=1)]


class Spike(Strict):
    """A base rate and one spike in it."""

    kind: Literal["spike"]
    base_rps: Rate
    spike_rps: Rate
    at_s: Seconds
    for_s: PositiveSeconds


class Replay(Strict):
    """The arrivals of the plan's traces, faster: by `speed`, or so that `rate_rps` is the mean.

    With `sample` the whole trace is pressed into the run and so many of its requests are drawn
    that `rate_rps` is the mean: their mix is the trace's, however short the run.
    """

    kind: Literal["trace"]
    speed: Annotated[float, Field(gt=0)] | None = None
    rate_rps: Annotated[float, Field(gt=0)] | None = None
    start_s: Seconds = 0.0
    sample: bool = False

    @model_validator(mode="after")
    def _one_pace(self) -> Replay:
        if (self.speed is None) == (self.rate_rps is None):
            raise ValueError("give either speed or rate_rps")
        if self.sample and (self.speed is not None or self.start_s):
            raise ValueError("sample: draws from the whole trace; it goes with rate_rps alone")
        return self


Arrivals = Annotated[Poisson | Ramp | Steps | Spike | Replay, Field(discriminator="kind")]


class Price(Strict):
    """What a target costs for a million tokens."""

    input_usd_per_mtok: Usd = 0.0
    output_usd_per_mtok: Usd = 0.0


class Checks(Strict):
    """What else must hold beside each class's attainment, which is always checked."""

    goodput_rps_at_least: Rate | None = None
    errors_at_most: Share | None = None
    usd_at_most: Usd | None = None


class Plan(Strict):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    seed: int = 1
    duration_s: PositiveSeconds
    warmup_s: Seconds = 0.0
    drain_s: Seconds = 30.0
    timeout_s: PositiveSeconds = 60.0
    lag_ms: Millis = 50.0
    door: Door = "grpc"
    grpc: str | None = None
    http: str | None = None
    arrivals: Arrivals
    traces: tuple[str, ...] = ()
    classes: Annotated[tuple[Class, ...], Field(min_length=1)]
    prices: dict[str, Price] = Field(default_factory=dict)
    checks: Checks = Checks()

    @model_validator(mode="after")
    def _agrees(self) -> Plan:
        names = [one.name for one in self.classes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"the class {twice} is here twice")
        known = {Path(trace).stem for trace in self.traces}
        for one in self.classes:
            if one.trace is not None and one.trace not in known:
                raise ValueError(f"class {one.name} names the trace {one.trace}; add it to traces")
        if isinstance(self.arrivals, Replay) and not self.traces:
            raise ValueError("arrivals replay a trace, so list at least one file in traces")
        if self.warmup_s >= self.duration_s:
            raise ValueError("warmup_s leaves nothing of duration_s to judge")
        for name in ("timeout_s", "drain_s"):
            if 1000 * getattr(self, name) < self.longest_ms:
                raise ValueError(
                    f"a class promises an answer within {self.longest_ms / 1000:g} s, and {name} "
                    f"is {getattr(self, name):g}: one that keeps it could be cut off before; "
                    f"raise {name}"
                )
        return self

    @property
    def longest_ms(self) -> float:
        """The latest moment that is promised for a first token or a whole answer; 0 for none."""
        promised = (limit for one in self.classes for limit in (one.slo.ttft_ms, one.slo.e2e_ms))
        return max((limit for limit in promised if limit is not None), default=0.0)

    @property
    def by_name(self) -> dict[str, Class]:
        """The classes by name."""
        return {one.name: one for one in self.classes}

    def at(self, path: str) -> Path:
        """Return where a file that the plan names is: relative to the checkout."""
        return ROOT / path

    def times(self, factor: float) -> Plan:
        """Return the plan at a multiple of its load."""
        rates = self.arrivals.model_dump()
        for name in ("rate_rps", "from_rps", "to_rps", "base_rps", "spike_rps", "speed"):
            if rates.get(name) is not None:
                rates[name] *= factor
        if "rates_rps" in rates:
            rates["rates_rps"] = tuple(rate * factor for rate in rates["rates_rps"])
        return self.changed(arrivals=rates)

    def all_through(self, door: Door) -> Plan:
        """Return the plan with every class at one door."""
        classes = [{**one.model_dump(), "door": door} for one in self.classes]
        return self.changed(door=door, classes=classes)

    def through(self, doors: Collection[str]) -> Plan:
        """Return the plan of what goes through these doors alone; the plan where nothing does."""
        kept = [one.model_dump() for one in self.classes if (one.door or self.door) in doors]
        return self.changed(classes=kept) if kept else self

    def stretched(self, factor: float) -> Plan:
        """Return the plan with every latency that is promised a multiple of what it was.

        Where that is later, requests are waited for by as much longer.
        """
        classes = [one.model_dump() for one in self.classes]
        for one in classes:
            for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
                if one["slo"][name] is not None:
                    one["slo"][name] = round(one["slo"][name] * factor)
        wider = max(1.0, factor)
        timeout_s, drain_s = (math.ceil(one * wider) for one in (self.timeout_s, self.drain_s))
        return self.changed(classes=classes, timeout_s=timeout_s, drain_s=drain_s)

    def changed(self, **fields: object) -> Plan:
        """Return the plan with other values, checked again.

        Raises:
            PlanError: with these values it is no plan any more.
        """
        try:
            return Plan.model_validate({**self.model_dump(), **fields})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            what = first["msg"].removeprefix("Value error, ")
            raise PlanError(f"plan {self.name}: {where + ': ' if where else ''}{what}") from error


def load(path: Path) -> Plan:
    """Return the plan of a file.

    Raises:
        PlanError: it cannot be read, or is wrong: `FILE:LINE:COL: what; did you mean NAME?`
    """
    try:
        return read_file(path, Plan)
    except SpecError as error:
        raise PlanError(str(error)) from error
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: not UTF-8 text") from error


def shape_of(plan: Plan) -> shapes.Shape | None:
    """Return the rate over time, or None where a trace is replayed."""
    said = plan.arrivals
    if isinstance(said, Poisson):
        return shapes.constant(said.rate_rps, plan.duration_s)
    if isinstance(said, Ramp):
        return shapes.ramp(said.from_rps, said.to_rps, plan.duration_s)
    if isinstance(said, Steps):
        each_s = plan.duration_s / len(said.rates_rps)
        return shapes.steps((each_s, rate) for rate in said.rates_rps)
    if isinstance(said, Spike):
        return shapes.spike(said.base_rps, said.spike_rps, said.at_s, said.for_s, plan.duration_s)
    return None
