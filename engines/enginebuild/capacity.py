"""What fits: weights, activations and KV cache on the fullest GPU of a deployment.

All bytes are of one GPU. Nothing is measured here; each constant names its source.
"""

import math
from dataclasses import dataclass

from enginebuild.model_spec import Architecture
from enginebuild.precision import Precision
from enginebuild.sku_spec import Gpu

GIB = 1 << 30

# aiconfigurator-core 0.12.0, systems/*.yaml: `other_mem`, a reserve for CUDA contexts,
# kernels, workspaces and fragmentation; and `nccl_mem` by the GPUs of a tensor-parallel group.
RUNTIME_BYTES = 3758096384
NCCL_BYTES_OF_2 = 358612992
NCCL_BYTES = 411041792
EMBEDDING_BYTES = 2  # embedding and head stay in 16 bits: legacy precision.md
ACTIVATION_BYTES = 2  # the residual stream is 16 bits in every precision
LOGIT_BYTES = 4  # checkpoint format: logits_dtype float32
LOGIT_COPIES = 2  # logits and the sampler's probabilities
TOKENS_PER_BLOCK = 32  # trtllm-build --tokens_per_block


@dataclass(frozen=True, slots=True)
class Deployment:
    """A network in one precision, split over `tp` * `pp` equal GPUs."""

    network: Architecture
    gpu: Gpu
    precision: Precision
    tp: int = 1
    pp: int = 1

    @property
    def gpus(self) -> int:
        """How many GPUs one replica takes."""
        return self.tp * self.pp

    @property
    def layers(self) -> int:
        """Layers of the longest pipeline stage."""
        return math.ceil(self.network.layers / self.pp)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where one GPU's bytes go. `kv_pool` is what the KV fraction takes of the rest."""

    total: int
    weights: int
    activations: int
    runtime: int
    kv_pool: int

    @property
    def free(self) -> int:
        """Bytes left before the KV pool is taken; negative where the engine does not fit."""
        return self.total - self.weights - self.activations - self.runtime


def weights_bytes(of: Deployment) -> int:
    """Return the weights of the fullest GPU.

    Matrices divide by TP and layers by PP. The first and last pipeline stages hold one
    embedding matrix each, so with PP > 1 the fullest stage counts one of two.
    """
    net = of.network
    expert = of.precision.expert_bytes if net.moe else of.precision.linear_bytes
    layer = net.attention_parameters * of.precision.linear_bytes + net.mlp_parameters * expert
    embeddings = net.embedding_parameters
    if of.pp > 1 and not net.tied_embeddings:
        embeddings //= 2
    return math.ceil((of.layers * layer + embeddings * EMBEDDING_BYTES) / of.tp)


def kv_bytes_per_token(of: Deployment) -> int:
    """Return the KV cache of one token on one GPU: 2 (K and V) * layers * heads * size * bytes.

    A GPU holds at least one KV head, so more TP than KV heads repeats them. Layers with a
    sliding window count in full: TensorRT-LLM's pool has one size of block.
    """
    heads = max(1, of.network.kv_heads // of.tp)
    return 2 * of.layers * heads * of.network.head_size * of.precision.kv_bytes


def activation_bytes(of: Deployment, max_num_tokens: int, max_batch_size: int) -> int:
    """Return the peak of one step's tensors: the widest block, and the logits of the batch.

    Widest block: two residual streams beside either Q, K, V and the attention's output, or
    the gate and up projections with their product; experts widen by those active per token.
    """
    net = of.network
    attention = 2 * (net.attention_heads + net.kv_heads) * net.head_size / of.tp
    width = net.moe.intermediate_size * net.moe.active_experts if net.moe else net.intermediate_size
    mlp = 3 * width / of.tp
    if net.moe:
        mlp += 2 * net.moe.active_experts * net.hidden_size
    per_token = ACTIVATION_BYTES * (2 * net.hidden_size + max(attention, mlp))
    logits = LOGIT_BYTES * LOGIT_COPIES * net.vocab_size * max_batch_size
    return math.ceil(max_num_tokens * per_token + logits)


def runtime_bytes(of: Deployment) -> int:
    """Return what the runtime and NCCL take."""
    if of.tp == 1:
        return RUNTIME_BYTES
    return RUNTIME_BYTES + (NCCL_BYTES_OF_2 if of.tp == 2 else NCCL_BYTES)  # noqa: PLR2004


def memory(
    of: Deployment, *, max_num_tokens: int, max_batch_size: int, kv_fraction: float
) -> Memory:
    """Return one GPU's memory under those limits; the pool is whole blocks, never negative."""
    total = math.floor(of.gpu.memory_gib * GIB)
    weights = weights_bytes(of)
    activations = activation_bytes(of, max_num_tokens, max_batch_size)
    runtime = runtime_bytes(of)
    block = TOKENS_PER_BLOCK * kv_bytes_per_token(of)
    pool = math.floor(max(0, total - weights - activations - runtime) * kv_fraction)
    return Memory(total, weights, activations, runtime, pool // block * block)


def blocks(of: Deployment, pool: int) -> int:
    """Return how many blocks of `TOKENS_PER_BLOCK` tokens a pool of that many bytes holds."""
    return pool // (TOKENS_PER_BLOCK * kv_bytes_per_token(of))


def sequences(pool_blocks: int, tokens: int) -> int:
    """Return how many sequences of `tokens` tokens a pool holds at once, each in whole blocks."""
    return pool_blocks // math.ceil(tokens / TOKENS_PER_BLOCK)
