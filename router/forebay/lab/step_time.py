"""How long a simulated engine's step takes: two laws, and the noise on top of either.

Both are laws of the batch: `running` streams, `kv_tokens` of context that they attend to, and
`prefill_tokens` of prompts that are taken in beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from forebay.policy.admission.model import Coefficients

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 4096
"""Factors drawn at a time."""

_WEIGHTS = (0.65, 1.0)
"""Of arithmetic: the first bounds best where both sides matter, the second where prompts do."""


class StepLaw(Protocol):
    """The seconds of a step without noise."""

    @property
    def block_tokens(self) -> int:
        """Return the tokens of a block of KV as it is read; 1 where every token counts."""
        ...

    def step_s(self, running: int, kv_tokens: int, prefill_tokens: int) -> float:
        """Return the seconds of one step."""
        ...

    def floors(self) -> tuple[Coefficients, ...]:
        """Return linear laws that are nowhere above this one: what lower bounds count with."""
        ...


@dataclass(frozen=True, slots=True)
class LinearLaw:
    """`a + b*running + c*kv + d*prefill`; the form DistServe measured."""

    coefficients: Coefficients
    block_tokens: int = 1

    def step_s(self, running: int, kv_tokens: int, prefill_tokens: int) -> float:
        """Return the seconds of one step."""
        c = self.coefficients
        return c.a_s + c.b_s * running + c.c_s * kv_tokens + c.d_s * prefill_tokens

    def floors(self) -> tuple[Coefficients, ...]:
        """Return the law itself."""
        return (self.coefficients,)


@dataclass(frozen=True, slots=True)
class MaxLaw:
    """The slower of arithmetic and memory traffic, each counted in whole blocks (a roofline).

    `compute_s` and `memory_s` are paid by every step: launches, and reading the weights.
    """

    compute_s: float
    compute_s_per_token: float
    compute_block_tokens: int
    memory_s: float
    memory_s_per_kv_token: float
    block_tokens: int

    def step_s(self, running: int, kv_tokens: int, prefill_tokens: int) -> float:
        """Return the seconds of one step; `kv_tokens` are of whole blocks already."""
        block = self.compute_block_tokens
        tokens = -(-(running + prefill_tokens) // block) * block
        compute_s = self.compute_s + self.compute_s_per_token * tokens
        memory_s = self.memory_s + self.memory_s_per_kv_token * kv_tokens
        return max(compute_s, memory_s)

    def floors(self) -> tuple[Coefficients, ...]:
        """Return weighted means of both sides: a maximum is no less, and rounding up only adds."""
        return tuple(self._between(weight) for weight in _WEIGHTS)

    def _between(self, weight: float) -> Coefficients:
        token_s, other = weight * self.compute_s_per_token, 1.0 - weight
        fixed_s = weight * self.compute_s + other * self.memory_s
        return Coefficients(fixed_s, token_s, other * self.memory_s_per_kv_token, token_s)


@dataclass(frozen=True, slots=True)
class Noise:
    """Factors on steps: lognormal of `sigma`, single stalls, and bursts of slow steps.

    A burst lasts `burst_steps` on average (geometric); bursts take `burst_share` of all steps.
    """

    sigma: float = 0.0
    stall_share: float = 0.0
    stall_factor: float = 1.0
    burst_share: float = 0.0
    burst_factor: float = 1.0
    burst_steps: float = 1.0

    def factors(self, seed: tuple[int, ...]) -> Callable[[], list[float]]:
        """Return what draws the next factors of one replica; step i always gets the i-th."""
        rng = np.random.default_rng(seed)
        bursting = False

        def draw() -> list[float]:
            nonlocal bursting
            values = np.exp(self.sigma * rng.standard_normal(_BATCH))
            values[rng.random(_BATCH) < self.stall_share] *= self.stall_factor
            if self.burst_share > 0.0:
                end = 1.0 / self.burst_steps
                start = end * self.burst_share / (1.0 - self.burst_share)
                slow = np.zeros(_BATCH, dtype=bool)
                for step, chance in enumerate(rng.random(_BATCH).tolist()):
                    bursting = chance >= end if bursting else chance < start
                    slow[step] = bursting
                values[slow] *= self.burst_factor
            factors: list[float] = values.tolist()
            return factors

        return draw
