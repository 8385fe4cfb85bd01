"""The tensors of TensorRT-LLM's `llmapi` Triton model, and the settings its LLM() takes.

Names from its template of release 1.2, types partly from memory: that release sends some of the
performance outputs as strings, so a client must accept both. A request is one text; the model
is not batched by Triton.
"""

from typing import Any

from enginebuild.contract import Tensor
from enginebuild.planned import Planned


def _each(data_type: str, *names: str, optional: bool = True) -> tuple[Tensor, ...]:
    return tuple(Tensor(name, data_type, optional=optional) for name in names)


INPUTS: tuple[Tensor, ...] = (
    Tensor("text_input", "STRING", (-1,)),
    *_each("BOOL", "streaming"),
    *_each("INT32", "sampling_param_best_of", "sampling_param_top_k", "sampling_param_max_tokens"),
    *_each(
        "FP32",
        "sampling_param_temperature",
        "sampling_param_top_p",
        "sampling_param_frequency_penalty",
        "sampling_param_presence_penalty",
    ),
    Tensor("sampling_param_stop", "STRING", (-1,), optional=True),
    *_each("UINT64", "sampling_param_seed"),
    *_each(
        "BOOL",
        "sampling_param_exclude_input_from_output",
        "sampling_param_return_perf_metrics",
        "return_finish_reason",
        "return_stop_reason",
        "return_cumulative_logprob",
        "stop",
    ),
)

OUTPUTS: tuple[Tensor, ...] = (
    Tensor("text_output", "STRING", (-1,)),
    Tensor("finish_reason", "STRING", (-1,)),
    Tensor("stop_reason", "STRING", (-1,)),
    Tensor("cumulative_logprob", "FP32", (-1,)),
    *_each(
        "INT32",
        "kv_cache_reused_block",
        "kv_cache_missed_block",
        "kv_cache_alloc_new_blocks",
        "kv_cache_alloc_total_blocks",
        optional=False,
    ),
    *_each("FP32", "kv_cache_hit_rate", "acceptance_rate", optional=False),
    *_each(
        "INT64",
        "arrival_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "last_token_time_ns",
        optional=False,
    ),
)


def settings(build: Planned, checkpoint: str) -> dict[str, Any]:
    """Return `model.yaml`: the keyword arguments of LLM(), and Triton's own under triton_config."""
    limits = build.limits
    return {
        "model": checkpoint,
        "tokenizer": checkpoint,
        "tensor_parallel_size": build.plan.tp,
        "pipeline_parallel_size": build.plan.pp,
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_seq_len": limits.max_seq_len,
        "enable_chunked_prefill": build.spec.build.chunked_context,
        "guided_decoding_backend": "xgrammar",
        "kv_cache_config": {
            "enable_block_reuse": True,
            "free_gpu_memory_fraction": limits.kv_fraction,
            "tokens_per_block": limits.tokens_per_block,
        },
        "triton_config": {
            "max_batch_size": 0,
            "decoupled": True,
            "cancellation_check_period_ms": 100,
        },
    }
