"""From a goal to limits: how large a batch, how large a step, how much of the memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from enginebuild import capacity
from enginebuild.ask import Ask
from enginebuild.performance import Point, Workload, busiest, point
from enginebuild.roofline import Roofline

Goal = Literal["latency", "throughput", "balanced"]

LARGEST_BATCH = 2048  # trtllm-build --max_batch_size


@dataclass(frozen=True, slots=True)
class Preference:
    """What a goal prefers.

    `slowdown` bounds TPOT at the largest batch, as a multiple of one sequence's alone; None
    bounds it by memory only. A larger step reads prompts faster and holds up the sequences
    beside it for longer.
    """

    max_num_tokens: int
    kv_fraction: float
    slowdown: float | None


PREFERENCES: Mapping[Goal, Preference] = MappingProxyType(
    {
        "latency": Preference(2048, 0.90, 1.5),
        "balanced": Preference(8192, 0.90, 3.0),
        "throughput": Preference(16384, 0.95, None),
    }
)


def limited(ask: Ask, goal: Goal, workload: Workload, max_seq_len: int | None = None) -> Ask:
    """Return the ask with the limits of that goal; of one sequence where nothing fits.

    The batch is the largest that fits with every sequence at the workload's full length, and
    is within the goal's slowdown. `max_seq_len` is the longest that fits, if none is asked.
    """
    wish = PREFERENCES[goal]
    small = replace(
        ask,
        max_batch_size=1,
        max_num_tokens=wish.max_num_tokens,
        kv_fraction=wish.kv_fraction,
    )
    largest = largest_batch(small, workload)
    if largest > 1 and wish.slowdown is not None:
        largest = _within(small, workload, largest, wish.slowdown)
    sized = replace(small, max_batch_size=max(1, largest))
    longest = max_seq_len or longest_sequence(sized) or workload.tokens
    return replace(sized, max_seq_len=longest, max_input_len=longest - 1)


def largest_batch(ask: Ask, workload: Workload) -> int:
    """Return the largest batch whose sequences all fit at full length; 0 where none does."""
    low, high = 0, min(LARGEST_BATCH, max(1, busiest(workload, ask.max_num_tokens)))
    while low < high:
        middle = (low + high + 1) // 2
        if _held(ask, middle, workload.tokens) >= middle:
            low = middle
        else:
            high = middle - 1
    return low


def longest_sequence(ask: Ask) -> int:
    """Return the longest sequence that the pool holds alone and the model was trained for."""
    pool = _pool_blocks(ask, ask.max_batch_size) * capacity.TOKENS_PER_BLOCK
    return min(pool, ask.model.architecture.context_length)


def points(ask: Ask, workload: Workload, sizes: tuple[int, ...]) -> tuple[Point, ...]:
    """Return what the ask does at each of those batch sizes."""
    roofline = Roofline(ask.deployment())
    return tuple(point(roofline, workload, size, ask.max_num_tokens) for size in sizes)


def _within(ask: Ask, workload: Workload, largest: int, slowdown: float) -> int:
    roofline = Roofline(ask.deployment())

    def tpot(batch: int) -> float:
        return point(roofline, workload, batch, ask.max_num_tokens).tpot_ms

    bound = slowdown * tpot(1)
    low, high = 1, largest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tpot(middle) <= bound else (low, middle - 1)
    return low


def _held(ask: Ask, batch: int, tokens: int) -> int:
    return capacity.sequences(_pool_blocks(ask, batch), tokens)


def _pool_blocks(ask: Ask, batch: int) -> int:
    deployment = ask.deployment()
    held = capacity.memory(
        deployment,
        max_num_tokens=ask.max_num_tokens,
        max_batch_size=batch,
        kv_fraction=ask.kv_fraction,
    )
    return capacity.blocks(deployment, held.kv_pool)
