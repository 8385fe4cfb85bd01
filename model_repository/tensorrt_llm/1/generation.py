"""A request the engine can serve, as values: what `inputs.parse` makes and the rest works with."""

from dataclasses import dataclass

import numpy as np
from guides import Guide
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine accepts: lengths in tokens, the cache in blocks."""

    max_batch_size: int
    max_queue_size: int
    max_input_len: int
    max_seq_len: int
    vocab_size: int
    tokens_per_block: int
    kv_blocks: int
    end_id: int

    def blocks_of(self, tokens: int) -> int:
        """Return how many cache blocks hold that many tokens of one sequence."""
        return -(-tokens // self.tokens_per_block)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `sample` False means greedy, whatever the rest says."""

    sample: bool
    temperature: float
    top_k: int
    top_p: float
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    min_tokens: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the sender wants back beside token ids."""

    streaming: bool
    prompt_in_output: bool
    log_probs: bool
    perf_metrics: bool
    input_tokens: bool
    output_tokens: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """One valid request: everything the batcher needs, nothing it must check again."""

    prompt: NDArray[np.int64]
    max_tokens: int
    sequences: int
    end_id: int
    sampling: Sampling
    stop_words: tuple[tuple[int, ...], ...]
    guide: Guide | None
    wanted: Wanted
    kv_blocks: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A request to stop the running one that carries the same request id."""
