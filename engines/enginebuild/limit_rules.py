"""Rules on limits: lengths, steps and memory."""

from enginebuild import capacity
from enginebuild.ask import Ask, Refusal
from enginebuild.capacity import GIB

MAX_WHOLE_PROMPT = (
    "TensorRT-LLM issues 2702 and 2717: input is cut at max_num_tokens without chunked context"
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


def _memory(ask: Ask) -> capacity.Memory:
    return capacity.memory(
        ask.deployment(),
        max_num_tokens=ask.max_num_tokens,
        max_batch_size=ask.max_batch_size,
        kv_fraction=ask.kv_fraction,
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
