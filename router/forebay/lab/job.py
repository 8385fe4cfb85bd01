"""What a simulated engine is given: one request, and the limits of a replica."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(slots=True, eq=False)
class Job:
    """One request: what it brings, and what became of it. Times are seconds of the simulation.

    `output_tokens` is what it will answer, which no policy but an oracle may read; `first_s` and
    `end_s` are None where it never came to that. `where` is the replica's number, -1 a cloud.
    A `foreign` one is not ours: it reaches a replica past the router.
    """

    number: int
    label: int
    arrived_s: float
    input_tokens: int
    output_tokens: int
    max_tokens: int
    first_s: float | None = None
    end_s: float | None = None
    where: int | None = None
    ended: str = ""
    usd: float = 0.0
    foreign: bool = False
    left_tokens: int = 0
    last_step: int = 0
    residue: int = 0

    @property
    def reserve_tokens(self) -> int:
        """Return the KV that is kept for it from its first step to its last."""
        return self.input_tokens + self.max_tokens


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one replica can hold and take in at a step, and how many may wait for it."""

    kv_tokens: int
    max_batch: int
    step_tokens: int
    queue: float = inf
