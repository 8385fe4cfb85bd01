"""The parameters that TensorRT-LLM's Triton models read, by name.

Read from its `inflight_batcher_llm` templates of release 1.2. Its own tool leaves a parameter
nobody filled in as `${name}`, and the backend takes that for unset, so a slip is silent there;
here a name that is not in this table cannot be rendered.
"""

from collections.abc import Mapping
from types import MappingProxyType

CORE = frozenset(
    {
        "FORCE_CPU_ONLY_INPUT_TENSORS",
        "batch_scheduler_policy",
        "cancellation_check_period_ms",
        "cross_kv_cache_fraction",
        "cuda_graph_cache_size",
        "cuda_graph_mode",
        "decoding_mode",
        "eagle_choices",
        "enable_chunked_context",
        "enable_context_fmha_fp32_acc",
        "enable_kv_cache_reuse",
        "encoder_model_path",
        "exclude_input_in_output",
        "executor_worker_path",
        "gpt_model_path",
        "gpt_model_type",
        "gpu_device_ids",
        "gpu_weights_percent",
        "guided_decoding_backend",
        "iter_stats_max_iterations",
        "kv_cache_free_gpu_mem_fraction",
        "kv_cache_host_memory_bytes",
        "kv_cache_onboard_blocks",
        "lookahead_ngram_size",
        "lookahead_verification_set_size",
        "lookahead_window_size",
        "lora_cache_gpu_memory_fraction",
        "lora_cache_host_memory_bytes",
        "lora_cache_max_adapter_size",
        "lora_cache_optimal_adapter_size",
        "lora_prefetch_dir",
        "max_attention_window_size",
        "max_beam_width",
        "max_tokens_in_paged_kv_cache",
        "medusa_choices",
        "multi_block_mode",
        "normalize_log_probs",
        "num_nodes",
        "participant_ids",
        "recv_poll_period_ms",
        "request_stats_max_iterations",
        "sink_token_length",
        "speculative_decoding_fast_logits",
        "stats_check_period_ms",
        "tokenizer_dir",
        "xgrammar_tokenizer_info_path",
    }
)
BY_MODEL: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "tensorrt_llm": CORE,
        "preprocessing": frozenset(
            {
                "add_special_tokens",
                "engine_dir",
                "hf_model_path",
                "max_num_images",
                "multimodal_model_path",
                "tokenizer_dir",
            }
        ),
        "postprocessing": frozenset({"skip_special_tokens", "tokenizer_dir"}),
        "tensorrt_llm_bls": frozenset(
            {
                "accumulate_tokens",
                "multimodal_encoders_name",
                "tensorrt_llm_draft_model_name",
                "tensorrt_llm_model_name",
            }
        ),
        "ensemble": frozenset(),
    }
)
OURS = "engine_"
"""What a client may read back over ModelConfig; TensorRT-LLM's backend passes it over."""


def unknown(model: str, names: frozenset[str]) -> list[str]:
    """Return the names that model would pass over in silence, sorted."""
    return sorted(name for name in names - BY_MODEL[model] if not name.startswith(OURS))
