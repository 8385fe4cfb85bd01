"""How long one step takes: a roofline over its parts, added up.

A part is bound by tensor rate or by memory; parts run one after another, so a step is the
sum of each part's larger bound, plus what does not depend on either: communication, kernel
launches, and the scheduler's work. Sequences differ in age; a step sees their total.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from enginebuild.capacity import Deployment, kv_bytes_per_token

if TYPE_CHECKING:
    from enginebuild.precision import Rate


@dataclass(frozen=True, slots=True)
class Constants:
    """What the data sheets do not say. One value for all models, SKUs and lengths.

    Efficiencies are shares of the data sheet's peak, latencies seconds. "Fit" constants
    minimise the squared log error, outliers softened, over 120 published rows of dense models
    (engines/validation/published.yaml, `fitted: dense`); "fit, MoE" ones over 50 of mixtures
    of experts. Bounds of the fit that were reached are named.
    """

    memory: float = 0.92  # fit, at its bound: no copy kernel is known to reach more
    gemm: float = 0.61  # fit: dense tensor rate of GEMMs in 8 and 16 bits
    gemm_fp4: float = 0.37  # fit: the same in FP4, quantising activations included
    attention: float = 0.66  # fit: 16-bit tensor rate of context attention
    link: float = 0.77  # fit: link bandwidth in an all-reduce
    all_reduce_s: float = 10e-6  # aiconfigurator-core 0.12.0: p2p_latency
    layer_s: float = 60e-6  # fit, at its bound: twenty kernels of 3 us (the same source's latency)
    step_s: float = 0.35e-3  # fit: host work of a step
    sequence_s: float = 3.7e-6  # fit: host work of a step for each sequence of it
    ranks_s: float = 9e-3  # fit: what a step takes longer where ranks of one layer must agree
    gemm_moe: float = 0.30  # fit, MoE: grouped GEMMs of experts
    moe_layer_s: float = 95e-6  # fit, MoE: routing, sorting and gathering of a layer's tokens
    expert_tile: int = 128  # rows of a grouped GEMM's tile: each expert's last is half empty
    logit_passes: int = 4  # reads and writes of the float32 logits: scale, softmax, sort, pick
    hidden_passes: int = 8  # reads and writes of a token's hidden state in a layer
    block_passes: int = 3  # reads and writes of a token's widened state in a layer


FITTED = Constants()

STREAMS = 64
LENGTH = 1000
"""Streams of a middling batch, and the tokens that each has behind it."""


class Work(NamedTuple):
    """What one step does, over all its sequences.

    `context_pairs` counts the query-key pairs of prompts (n^2/2 for a whole prompt of n),
    `attended` the cached tokens that decoding sequences read.
    """

    context_tokens: float
    context_pairs: float
    decoding: float
    attended: float
    sampled: float


class StepTime(NamedTuple):
    """Seconds of one step, by what bounds them."""

    compute_s: float
    memory_s: float
    communication_s: float
    overhead_s: float

    @property
    def total_s(self) -> float:
        """The whole step."""
        return self.compute_s + self.memory_s + self.communication_s + self.overhead_s

    @property
    def bound(self) -> str:
        """The name of the largest share."""
        shares = zip(("compute", "memory", "communication", "overhead"), self, strict=True)
        return max(shares, key=lambda share: share[1])[0]


class Roofline:
    """The times of one deployment's steps. Rates and sizes are worked out once."""

    __slots__ = ("_bandwidth", "_c", "_d", "_rates")

    def __init__(self, deployment: Deployment, constants: Constants = FITTED) -> None:
        """Take what the deployment's steps have in common."""
        self._d = deployment
        self._c = constants
        gpu, peak = deployment.gpu, deployment.gpu.dense_tflops
        self._bandwidth = gpu.memory_tb_s * 1e12 * constants.memory
        self._rates: dict[Rate, float] = {
            "bf16": peak.bf16 * 1e12 * constants.gemm,
            "int8": (peak.int8 or peak.bf16) * 1e12 * constants.gemm,
            "fp8": (peak.fp8 or peak.bf16) * 1e12 * constants.gemm,
            "fp4": (peak.fp4 or peak.fp8 or peak.bf16) * 1e12 * constants.gemm_fp4,
        }

    def step(self, work: Work) -> StepTime:
        """Return the time in which every sequence of the step advances.

        With PP > 1 the batch runs as PP parts, one in each stage: a sequence advances when
        its part has passed all stages.
        """
        pp = self._d.pp
        if pp == 1:
            return self._stage(work)
        stage = self._stage(Work(*(share / pp for share in work)))
        return StepTime(*(pp * seconds for seconds in stage))

    def linear(self, step_tokens: int) -> tuple[float, float, float, float]:
        """Return seconds of a step: fixed, for one more stream, cached token and prompt token.

        The step's own times are no line; this one goes through a stream alone, 64 streams of
        `LENGTH` and of twice that, and a step whose `step_tokens` are all of one prompt. A router
        predicts with it until it has seen steps of its own.
        """
        alone, many, longer, full = (
            self.step(work).total_s
            for work in (
                Work(0, 0, 1, LENGTH, 1),
                Work(0, 0, STREAMS, STREAMS * LENGTH, STREAMS),
                Work(0, 0, STREAMS, 2 * STREAMS * LENGTH, STREAMS),
                Work(step_tokens, step_tokens**2 / 2, 1, LENGTH, 2),
            )
        )
        cached_s = (longer - many) / (STREAMS * LENGTH)
        stream_s = max(0.0, (many - alone) / (STREAMS - 1) - cached_s * LENGTH)
        fixed_s = max(0.0, alone - stream_s - cached_s * LENGTH)
        return fixed_s, stream_s, cached_s, max(0.0, full - alone) / step_tokens

    def _stage(self, work: Work) -> StepTime:
        tokens = work.context_tokens + work.decoding
        compute = memory = 0.0
        for part_compute, part_memory in (
            self._projections(tokens),
            self._mlp(tokens),
            self._head(work.sampled),
            self._attention(work),
        ):
            if part_compute >= part_memory:
                compute += part_compute
            else:
                memory += part_memory
        memory += self._passes(tokens, work.sampled)
        overhead = self._d.layers * self._c.layer_s
        if self._d.network.moe is not None:
            overhead += self._d.layers * self._c.moe_layer_s
        overhead += self._c.step_s + self._c.sequence_s * work.sampled
        if self._d.tp > 1:
            overhead += self._c.ranks_s
        return StepTime(compute, memory, self._communication(tokens), overhead)

    def _projections(self, tokens: float) -> tuple[float, float]:
        d = self._d
        elements = d.layers * d.network.attention_parameters / d.tp
        rate = self._rates[d.precision.linear_rate]
        size = elements * d.precision.linear_bytes
        return 2 * elements * tokens / rate, size / self._bandwidth

    def _mlp(self, tokens: float) -> tuple[float, float]:
        d, moe = self._d, self._d.network.moe
        elements = d.layers * d.network.mlp_parameters / d.tp
        if moe is None:
            rate = self._rates[d.precision.linear_rate]
            size = elements * d.precision.linear_bytes
            return 2 * elements * tokens / rate, size / self._bandwidth
        used = moe.active_experts / moe.experts
        touched = 1 - (1 - used) ** tokens  # share of experts that some token of the step chose
        rate = self._rates[d.precision.expert_rate] * self._c.gemm_moe / self._c.gemm
        chosen = used * tokens  # rows of one expert, then rounded up to whole tiles
        rows = chosen + min(chosen, touched * self._c.expert_tile / 2)
        size = elements * d.precision.expert_bytes * touched
        return 2 * elements * rows / rate, size / self._bandwidth

    def _head(self, sampled: float) -> tuple[float, float]:
        d = self._d
        elements = d.network.vocab_size * d.network.hidden_size / d.tp
        return 2 * elements * sampled / self._rates["bf16"], 2 * elements / self._bandwidth

    def _attention(self, work: Work) -> tuple[float, float]:
        """Return context attention as compute and decoding attention as memory, both added.

        They are different kernels: the larger is not the time, the sum is. The sum is
        reported under the larger of the two.
        """
        d = self._d
        width = d.network.attention_heads * d.network.head_size / d.tp
        rate = d.gpu.dense_tflops.bf16 * 1e12 * self._c.attention
        pairs = work.context_pairs * self._seen(work.context_pairs, work.context_tokens)
        attended = work.attended * self._seen(work.attended, work.decoding)
        compute = d.layers * 4 * width * pairs / rate
        memory = kv_bytes_per_token(d) * attended / self._bandwidth
        both = compute + memory
        return (both, 0.0) if compute >= memory else (0.0, both)

    def _seen(self, pairs: float, queries: float) -> float:
        """Return the share of query-key pairs left where some layers see a window only."""
        window = self._d.network.sliding_window
        if window is None or not queries:
            return 1.0
        inside = min(1.0, window.tokens * queries / max(pairs, 1.0))
        return 1 - window.layers / self._d.network.layers * (1 - inside)

    def _passes(self, tokens: float, sampled: float) -> float:
        d, net = self._d, self._d.network
        moe = net.moe
        width = moe.intermediate_size * moe.active_experts if moe else net.intermediate_size
        heads = (net.attention_heads + 2 * net.kv_heads) * net.head_size
        per_layer = 2 * (
            self._c.hidden_passes * net.hidden_size + self._c.block_passes * (width + heads) / d.tp
        )
        logits = 4 * self._c.logit_passes * net.vocab_size * sampled
        return (d.layers * per_layer * tokens + logits) / self._bandwidth

    def _communication(self, tokens: float) -> float:
        """Return two ring all-reduces a layer: 2(n-1)/n of the hidden states, and a latency.

        Between pipeline stages the hidden states cross once.
        """
        d, rate = self._d, self._d.gpu.link.gb_s * 1e9 * self._c.link
        hidden = 2 * d.network.hidden_size * tokens
        time = 0.0
        if d.tp > 1:
            one = 2 * (d.tp - 1) / d.tp * hidden / rate + self._c.all_reduce_s
            time += 2 * d.layers * one
        if d.pp > 1:
            time += hidden / d.tp / rate + self._c.all_reduce_s
        return time
