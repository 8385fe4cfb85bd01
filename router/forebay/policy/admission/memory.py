"""What a router has learnt, as it is kept over a restart: engines' speeds, classes' margins.

An engine is known by its build's digest, not by its address: what a build turned out to do on
these machines is where the next replica of it begins.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from forebay.policy.admission.feedback import HIGHEST, LOWEST, ClassFeedback, Margin
from forebay.policy.admission.model import Coefficients, Speed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.admission.state import State

SHORTEST_STEP_S = 1e-6
"""No engine steps faster; whoever began with less could not learn how slow it is."""

LONGEST_S = 60.0
"""No engine is slower in any of these."""

_Delay = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
_Factor = Annotated[float, Field(ge=LOWEST * 0.99, le=HIGHEST * 1.01)]
_Tokens = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


def _believable(step: Coefficients) -> bool:
    """Return whether an engine can have these coefficients."""
    every = all(0 <= one <= LONGEST_S for one in (step.a_s, step.b_s, step.c_s, step.d_s))
    return every and step.a_s + step.b_s >= SHORTEST_STEP_S


def _checked(step_s: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not _believable(Coefficients(*step_s)):
        told = f"no engine's step takes {', '.join(f'{one:g}' for one in step_s)} s"
        raise ValueError(told)
    return step_s


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassMemory(_Kept):
    """How far a class distrusts predictions, and how long its answers are."""

    ttft: _Factor
    rate: _Factor
    output_tokens: _Tokens
    mean_tokens: _Tokens
    answers: Annotated[int, Field(ge=0)]

    def feedback(self, attainment: float) -> ClassFeedback:
        """Return a class that begins with this; its margins hold until they keep all away."""
        return ClassFeedback(
            attainment,
            Margin(math.log(self.ttft)),
            Margin(math.log(self.rate)),
            self.output_tokens,
            self.mean_tokens,
            self.answers,
        )


class EngineMemory(_Kept):
    """How fast the engines of a build were: `step_s` are the four coefficients of a step."""

    step_s: Annotated[tuple[float, float, float, float], AfterValidator(_checked)]
    lag_s: _Delay
    ttft_spread_s: _Delay
    tpot_spread: _Delay

    @classmethod
    def of(cls, speed: Speed) -> EngineMemory:
        """Return how a speed is kept."""
        c = speed.step
        return cls(
            step_s=(c.a_s, c.b_s, c.c_s, c.d_s),
            lag_s=speed.lag_s,
            ttft_spread_s=speed.ttft_spread_s,
            tpot_spread=speed.tpot_spread,
        )

    def speed(self) -> Speed:
        """Return the speed that an engine begins with."""
        step = Coefficients(*self.step_s)
        return Speed(step, self.lag_s, self.ttft_spread_s, self.tpot_spread)


class Memory(_Kept):
    """All of it: engines by their build's digest, classes by name."""

    engines: dict[str, EngineMemory] = Field(default_factory=dict)
    classes: dict[str, ClassMemory] = Field(default_factory=dict)

    def speed(self, build: str) -> Speed | None:
        """Return how fast a build's engines were, where any was seen."""
        known = self.engines.get(build)
        return None if known is None else known.speed()


def remembered(state: State, builds: Mapping[str, str], before: Memory, now_s: float) -> Memory:
    """Return what a router knows now, and what it knew `before` of what it has not met since.

    Args:
        state: Admission's.
        builds: The digest of the engine in each pool.
        before: What it began with.
        now_s: The time.
    """
    engines = dict(before.engines)
    for name, pool in state.pools.items():
        speed = pool.speed()
        if speed is not None and name in builds and _believable(speed.step):
            engines[builds[name]] = EngineMemory.of(speed)
    classes = dict(before.classes)
    for route, learnt in state.classes.items():
        if learnt.answers:
            classes[route] = ClassMemory(
                ttft=learnt.ttft.factor(now_s),
                rate=learnt.rate.factor(now_s),
                output_tokens=learnt.output_tokens,
                mean_tokens=learnt.mean_tokens,
                answers=learnt.answers,
            )
    return Memory(engines=engines, classes=classes)
