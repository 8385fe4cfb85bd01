"""Rules on a model and a machine: formats, engines, and how a network splits over GPUs."""

from enginebuild.ask import Ask, Refusal
from enginebuild.precision import PRECISIONS, allowed

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
        others = [p for p in allowed(ask.sm) if p != ask.precision and PRECISIONS[p].engine_flow]
        return Refusal(
            "nvfp4-families",
            f"{ask.precision} engines exist for {' and '.join(sorted(precision.families))}, and "
            f"{ask.model_id} is {family}",
            "TensorRT-LLM legacy precision.md: NVFP4",
            f"As an engine: {', '.join(others)}; or the output llmapi",
        )
    return None


def plugins_on_sm(ask: Ask) -> Refusal | None:
    """Some plugins have no kernels for Blackwell."""
    wrong = sorted(ask.plugins & NOT_ON_SM100)
    if not wrong or ask.sm // 10 != 10:  # noqa: PLR2004
        return None
    return Refusal(
        "plugins-sm100",
        f"{', '.join(wrong)} cannot be used on SM{ask.sm}",
        "trtllm-build (PluginConfig.validate)",
        "Leave them out",
    )


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
