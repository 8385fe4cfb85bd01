"""What is refused before a GPU is touched. Pure: each rule reads an ask and returns a refusal.

A refusal is a value: it names its rule, says why in one sentence, cites where the rule comes
from, and names the nearest ask that would work.
"""

from collections.abc import Callable
from dataclasses import dataclass

from enginebuild import capacity
from enginebuild.capacity import GIB, Deployment
from enginebuild.precision import PRECISIONS, allowed
from enginebuild.spec import Model, Sku

MAX_WHOLE_PROMPT = (
    "TensorRT-LLM issues 2702 and 2717: input is cut at max_num_tokens without chunked context"
)
# trtllm-build's PluginConfig.validate() on SM100.
NOT_ON_SM100 = frozenset(
    {
        "gemm_swiglu_plugin",
        "fp8_rowwise_gemm_plugin",
        "low_latency_gemm_plugin",
        "low_latency_gemm_swiglu_plugin",
        "bert_context_fmha_fp32_acc",
    }
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an ask cannot work. `nearest` says what would, or is empty where nothing is known."""

    rule: str
    reason: str
    source: str
    nearest: str = ""

    def sentence(self) -> str:
        """Return it as a person reads it."""
        mended = f" {self.nearest}." if self.nearest else ""
        return f"{self.reason}.{mended} [{self.rule}: {self.source}]"


@dataclass(frozen=True, slots=True)
class Ask:
    """A build as it is asked for. Lengths and `max_num_tokens` in tokens."""

    model_id: str
    model: Model
    sku_id: str
    sku: Sku
    precision: str
    gpus: int = 1
    tp: int = 1
    pp: int = 1
    output: str = "engine"
    max_batch_size: int = 1
    max_num_tokens: int = 8192
    max_input_len: int = 1024
    max_seq_len: int = 2048
    kv_fraction: float = 0.9
    chunked_context: bool = True
    paged_kv_cache: bool = True
    paged_context_fmha: bool = True
    multiple_profiles: bool = False
    opt_num_tokens: int | None = None
    plugins: frozenset[str] = frozenset()

    def deployment(self) -> Deployment:
        """Return what it would run on; the SKU must have a GPU and know the precision."""
        assert self.sku.gpu is not None, "asked of a GPU only"
        precision = PRECISIONS[self.precision]
        return Deployment(self.model.architecture, self.sku.gpu, precision, self.tp, self.pp)


Rule = Callable[[Ask], Refusal | None]


def refusals(ask: Ask) -> tuple[Refusal, ...]:
    """Return every refusal of that ask; one alone where the other rules could not read it."""
    for rule in FIRST:
        if (told := rule(ask)) is not None:
            return (told,)
    return tuple(told for rule in RULES if (told := rule(ask)) is not None)


def has_figures(ask: Ask) -> Refusal | None:
    """A CPU is whatever machine it is: there is nothing to plan with."""
    if ask.sku.gpu is not None:
        return None
    return Refusal(
        "sku-figures",
        f"{ask.sku_id} has no GPU figures: a plan is made for a GPU",
        f"engines/skus/{ask.sku_id}.yaml",
        "The engine of this SKU is built and timed as it is: make up",
    )


def known_precision(ask: Ask) -> Refusal | None:
    """A precision is one of the table."""
    if ask.precision in PRECISIONS:
        return None
    return Refusal(
        "precision-known",
        f"{ask.precision} is no precision",
        "engines/enginebuild/precision.py",
        f"Known: {', '.join(PRECISIONS)}",
    )


def split_counts(ask: Ask) -> Refusal | None:
    """Counts are counts: one or more."""
    if min(ask.gpus, ask.tp, ask.pp) >= 1:
        return None
    return Refusal(
        "gpu-count",
        f"gpus {ask.gpus}, tp {ask.tp} and pp {ask.pp} are each one or more",
        "one rank takes one GPU: TensorRT-LLM checkpoint.md, mapping.world_size",
    )


def precision_on_sm(ask: Ask) -> Refusal | None:
    """The tensor cores must have the format."""
    assert ask.sku.gpu is not None
    sm, precision = ask.sku.gpu.sm, PRECISIONS[ask.precision]
    if sm in precision.sms:
        return None
    needs = ", ".join(f"SM{one}" for one in sorted(precision.sms))
    return Refusal(
        "precision-sm",
        f"{ask.sku_id} is SM{sm}, and {ask.precision} needs {needs}",
        precision.source,
        f"On SM{sm}: {', '.join(allowed(sm))}",
    )


def precision_of_weights(ask: Ask) -> Refusal | None:
    """Weights published in MXFP4 have no 16-bit original to quantise from, and others no MXFP4."""
    mxfp4 = ask.precision.endswith("mxfp4")
    if mxfp4 == (ask.model.published_precision == "mxfp4"):
        return None
    if mxfp4:
        return Refusal(
            "precision-published",
            f"{ask.model_id} is published in {ask.model.published_precision}, and MXFP4 is taken "
            "from MXFP4 weights only",
            f"engines/models/{ask.model_id}.yaml",
            "On this SKU: " + ", ".join(p for p in ask.sku.precisions if not p.endswith("mxfp4")),
        )
    fitting = [p for p in ask.sku.precisions if p.endswith("mxfp4")]
    return Refusal(
        "precision-published",
        f"{ask.model_id} is published in MXFP4, and {ask.precision} would have to widen it",
        f"engines/models/{ask.model_id}.yaml",
        f"On this SKU: {fitting[0]}" if fitting else "A SKU of SM90 or later has a format for it",
    )


def engine_flow(ask: Ask) -> Refusal | None:
    """Some models and formats have no TensorRT engine, only TensorRT-LLM's PyTorch backend."""
    if ask.output != "engine":
        return None
    precision = PRECISIONS[ask.precision]
    if not ask.model.engine_flow or not precision.engine_flow:
        what = ask.model_id if not ask.model.engine_flow else ask.precision
        return Refusal(
            "engine-flow",
            f"{what} has no TensorRT engine: only the PyTorch backend runs it",
            "TensorRT-LLM docs/source/features/quantization.md, which is that backend's table",
            "Ask for the output llmapi",
        )
    family = ask.model.architecture.family
    if precision.families and family not in precision.families:
        others = [p for p in allowed(_sm(ask)) if p != ask.precision and PRECISIONS[p].engine_flow]
        return Refusal(
            "nvfp4-families",
            f"{ask.precision} engines exist for {' and '.join(sorted(precision.families))}, and "
            f"{ask.model_id} is {family}",
            "TensorRT-LLM legacy precision.md: NVFP4",
            f"As an engine: {', '.join(others)}; or the output llmapi",
        )
    return None


def gpu_count(ask: Ask) -> Refusal | None:
    """TP * PP is the number of GPUs, all in one machine."""
    if ask.tp * ask.pp != ask.gpus:
        return Refusal(
            "gpu-count",
            f"tp {ask.tp} x pp {ask.pp} is {ask.tp * ask.pp} ranks, and {ask.gpus} GPU"
            f"{'s are' if ask.gpus > 1 else ' is'} asked for",
            "one rank takes one GPU: TensorRT-LLM checkpoint.md, mapping.world_size",
            f"Ask for --gpus {ask.tp * ask.pp}",
        )
    assert ask.sku.gpu is not None
    node = ask.sku.gpu.gpus_per_node
    if ask.gpus > node:
        return Refusal(
            "gpu-count",
            f"{ask.gpus} GPUs of {ask.sku_id} are more than one machine holds ({node}), and its "
            "link figure is within a machine",
            f"engines/skus/{ask.sku_id}.yaml",
            f"Ask for at most --gpus {node}",
        )
    return None


def heads_split(ask: Ask) -> Refusal | None:
    """TP divides query heads and widths; KV heads divide or repeat evenly; PP divides layers."""
    net, tp, pp = ask.model.architecture, ask.tp, ask.pp
    width = net.moe.intermediate_size if net.moe else net.intermediate_size
    kv_even = net.kv_heads % tp == 0 or tp % net.kv_heads == 0
    if net.attention_heads % tp == 0 and width % tp == 0 and kv_even and net.layers % pp == 0:
        return None
    splits = [
        n
        for n in range(1, ask.gpus + 1)
        if net.attention_heads % n == 0
        and width % n == 0
        and (net.kv_heads % n == 0 or n % net.kv_heads == 0)
    ]
    return Refusal(
        "head-split",
        f"{ask.model_id} has {net.attention_heads} heads, {net.kv_heads} KV heads, a width of "
        f"{width} and {net.layers} layers: tp {tp} x pp {pp} does not divide them",
        "TensorRT-LLM checkpoint.md: tensors are cut evenly over ranks",
        f"tp may be {', '.join(str(n) for n in splits)}",
    )


def chunked_needs_paged(ask: Ask) -> Refusal | None:
    """A chunk attends to the chunks before it, which lie in the paged cache."""
    if not ask.chunked_context or (ask.paged_context_fmha and ask.paged_kv_cache):
        return None
    missing = "a paged KV cache" if not ask.paged_kv_cache else "use_paged_context_fmha"
    return Refusal(
        "chunked-context",
        f"chunked context needs {missing}",
        "TensorRT-LLM enable_chunked_context; truss refuses the same",
        "Build with --kv_cache_type paged --use_paged_context_fmha enable, or without chunks",
    )


def one_way_to_profile(ask: Ask) -> Refusal | None:
    """Several profiles each have an optimum of their own."""
    if not ask.multiple_profiles or ask.opt_num_tokens is None:
        return None
    return Refusal(
        "multiple-profiles",
        f"multiple_profiles and opt_num_tokens {ask.opt_num_tokens} exclude each other",
        "trtllm-build (builder.py raises)",
        "Leave opt_num_tokens out",
    )


def prompt_fits_step(ask: Ask) -> Refusal | None:
    """Without chunks a whole prompt enters in one step."""
    if ask.chunked_context or ask.max_input_len <= ask.max_num_tokens:
        return None
    return Refusal(
        "whole-prompt",
        f"a prompt of {ask.max_input_len} tokens does not fit a step of max_num_tokens "
        f"{ask.max_num_tokens} without chunked context",
        MAX_WHOLE_PROMPT,
        f"Allow chunked context, or max_num_tokens {ask.max_input_len}",
    )


def length_trained(ask: Ask) -> Refusal | None:
    """Positions end where the model's do, and an answer needs room."""
    trained = ask.model.architecture.context_length
    if ask.max_seq_len > trained:
        return Refusal(
            "context-length",
            f"max_seq_len {ask.max_seq_len} is beyond the {trained} tokens of {ask.model_id}",
            f"engines/models/{ask.model_id}.yaml; trtllm-build only warns",
            f"Ask for max_seq_len {trained}",
        )
    if ask.max_input_len >= ask.max_seq_len:
        return Refusal(
            "context-length",
            f"max_input_len {ask.max_input_len} leaves no token to generate within max_seq_len "
            f"{ask.max_seq_len}",
            "TensorRT-LLM: maxInputLen is at most max_seq_len - 1",
            f"Ask for max_input_len {ask.max_seq_len - 1}",
        )
    return None


def plugins_on_sm(ask: Ask) -> Refusal | None:
    """Some plugins have no kernels for Blackwell."""
    wrong = sorted(ask.plugins & NOT_ON_SM100)
    if not wrong or _sm(ask) // 10 != 10:  # noqa: PLR2004
        return None
    return Refusal(
        "plugins-sm100",
        f"{', '.join(wrong)} cannot be used on SM{_sm(ask)}",
        "trtllm-build (PluginConfig.validate)",
        "Leave them out",
    )


def weights_fit(ask: Ask) -> Refusal | None:
    """Weights, activations and runtime must leave room on each GPU."""
    held = _memory(ask)
    if held.free > 0:
        return None
    each = " on each GPU" if ask.gpus > 1 else ""
    return Refusal(
        "weights-memory",
        f"{ask.model_id} in {ask.precision} needs {_gib(held.weights)} of weights, "
        f"{_gib(held.activations)} of activations and {_gib(held.runtime)} for the runtime{each}, "
        f"and {ask.sku_id} has {_gib(held.total)}",
        "engines/enginebuild/capacity.py",
    )


def pool_holds_longest(ask: Ask) -> Refusal | None:
    """A sequence that the pool cannot hold would never end, and the server does not load."""
    held = _memory(ask)
    if held.free <= 0:
        return None
    tokens = capacity.blocks(ask.deployment(), held.kv_pool) * capacity.TOKENS_PER_BLOCK
    if tokens >= ask.max_seq_len:
        return None
    return Refusal(
        "kv-pool",
        f"the KV pool of {_gib(held.kv_pool)} holds {tokens} tokens, fewer than one sequence of "
        f"max_seq_len {ask.max_seq_len}",
        "tensorrtllm_backend issue 366: maxTokensInPagedKvCache must hold one longest sequence",
        f"Ask for max_seq_len {tokens}" if tokens else "",
    )


FIRST: tuple[Rule, ...] = (has_figures, known_precision, split_counts)
RULES: tuple[Rule, ...] = (
    precision_on_sm,
    precision_of_weights,
    engine_flow,
    plugins_on_sm,
    gpu_count,
    heads_split,
    length_trained,
    chunked_needs_paged,
    one_way_to_profile,
    prompt_fits_step,
    weights_fit,
    pool_holds_longest,
)


def _memory(ask: Ask) -> capacity.Memory:
    return capacity.memory(
        ask.deployment(),
        max_num_tokens=ask.max_num_tokens,
        max_batch_size=ask.max_batch_size,
        kv_fraction=ask.kv_fraction,
    )


def _sm(ask: Ask) -> int:
    assert ask.sku.gpu is not None
    return ask.sku.gpu.sm


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
