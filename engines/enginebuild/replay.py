"""A finite run: requests of one shape, all there from the start, served in flight.

This is what `trtllm-bench throughput` measures: the batch fills, holds, and drains. A rate
of the steady state alone would miss the last part, which is a third of a short run.
"""

import math
from collections import deque
from dataclasses import dataclass

from enginebuild.roofline import Roofline, Work

# Batch sizes with a CUDA graph in the published runs: a smaller batch is padded up to the
# next. TensorRT-LLM perf-overview, llm_options.yml.
GRAPH_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, slots=True)
class Run:
    """Requests of one shape, and the limits they are served under. Lengths in tokens."""

    input_tokens: int
    output_tokens: int
    requests: int
    max_batch_size: int
    max_num_tokens: int
    padded: bool = False


class _Batch:
    """Sequences in flight, as groups of one age: oldest first, all of one length."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._groups: deque[list[int]] = deque()  # [sequences, tokens generated when it joined]
        self._clock = 0  # tokens generated since the start by a sequence that never left
        self.size = 0
        self._ages = 0  # sum over sequences of the clock at which they joined

    def join(self, sequences: int) -> None:
        """Add sequences whose prompt the last step has read: one token each is there."""
        joined = self._clock - 1
        self._groups.append([sequences, joined])
        self.size += sequences
        self._ages += sequences * joined

    def advance(self, steps: int) -> None:
        """Generate that many tokens for each, and let go of those that are complete."""
        self._clock += steps
        while self._groups and self._clock - self._groups[0][1] >= self._run.output_tokens:
            sequences, joined = self._groups.popleft()
            self.size -= sequences
            self._ages -= sequences * joined

    def steps_to_next_end(self) -> int:
        """Return how many steps until the oldest group is complete."""
        return self._run.output_tokens - (self._clock - self._groups[0][1])

    def attended(self) -> int:
        """Return the cached tokens that one step reads."""
        return self.size * (self._run.input_tokens + self._clock) - self._ages


def seconds(run: Run, roofline: Roofline) -> float:
    """Return how long the run takes.

    A prompt is read in one step (no chunking), and joins only where a slot is free.
    """
    batch = _Batch(run)
    waiting, elapsed = run.requests, 0.0
    while waiting or batch.size:
        room = max(0, run.max_num_tokens - batch.size) // run.input_tokens
        joining = min(waiting, run.max_batch_size - batch.size, room)
        if joining:
            prompt = joining * run.input_tokens
            pairs = prompt * run.input_tokens / 2
            sampled = batch.size + joining
            work = Work(prompt, pairs, batch.size, batch.attended(), sampled)
            elapsed += roofline.step(work).total_s
            batch.advance(1)
            batch.join(joining)
            waiting -= joining
            batch.advance(0)
            continue
        if not batch.size:
            return math.inf
        steps = batch.steps_to_next_end()
        size = _padded(batch.size, run) if run.padded else batch.size
        attended = batch.attended() + batch.size * (steps - 1) / 2
        elapsed += steps * roofline.step(Work(0, 0, size, attended, size)).total_s
        batch.advance(steps)
    return elapsed


def _padded(size: int, run: Run) -> int:
    larger = (graph for graph in GRAPH_BATCHES if size <= graph <= run.max_batch_size)
    return next(larger, size)
