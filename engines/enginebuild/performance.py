"""What a deployment does at each batch: TTFT, TPOT and tokens a second, in the steady state."""

from dataclasses import dataclass

from enginebuild.roofline import Roofline, Work


@dataclass(frozen=True, slots=True)
class Workload:
    """The shape of a typical request, in tokens."""

    input_tokens: int = 1000
    output_tokens: int = 1000

    @property
    def tokens(self) -> int:
        """What one request holds in the cache when it ends."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Point:
    """One batch size. Times are means; `tokens_per_s` is output tokens of the whole replica.

    TTFT is of a request that finds a free slot: time in a queue is not in it.
    """

    batch: int
    ttft_ms: float
    tpot_ms: float
    tokens_per_s: float
    bound: str


def busiest(workload: Workload, max_num_tokens: int) -> int:
    """Return the batch beyond which prompts no longer keep up with a step's tokens.

    In the steady state a step generates one token for each sequence, and reads input/output
    prompt tokens for each, to replace those that end.
    """
    return int(max_num_tokens * workload.output_tokens // workload.tokens)


def point(roofline: Roofline, workload: Workload, batch: int, max_num_tokens: int) -> Point:
    """Return what that batch does.

    A request reads its prompt in chunks beside the batch, then generates while the prompts
    of the other batch - 1 are read. `tokens_per_s` is batch * output / (TTFT + the rest).
    """
    shape, others = workload, batch - 1
    step = roofline.step(_steady(shape, batch))
    chunk = max(1, min(shape.input_tokens, max_num_tokens - others))
    attended = others * (shape.input_tokens + shape.output_tokens / 2)
    ttft = 0.0
    read = 0
    while read < shape.input_tokens:
        now = min(chunk, shape.input_tokens - read)
        pairs = now * read + now * now / 2
        ttft += roofline.step(Work(now, pairs, others, attended, batch)).total_s
        read += now
    whole = ttft + (shape.output_tokens - 1) * step.total_s
    return Point(
        batch,
        round(ttft * 1e3, 2),
        round(step.total_s * 1e3, 3),
        round(batch * shape.output_tokens / whole, 1),
        step.bound,
    )


def batches(largest: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … and the largest."""
    doubled = [1]
    while doubled[-1] * 2 < largest:
        doubled.append(doubled[-1] * 2)
    return (*doubled, largest) if largest > 1 else (1,)


def _steady(shape: Workload, batch: int) -> Work:
    prompts = (batch - 1) / shape.output_tokens  # that start in one step
    return Work(
        context_tokens=prompts * shape.input_tokens,
        context_pairs=prompts * shape.input_tokens**2 / 2,
        decoding=batch,
        attended=batch * (shape.input_tokens + shape.output_tokens / 2),
        sampled=batch + prompts,
    )
