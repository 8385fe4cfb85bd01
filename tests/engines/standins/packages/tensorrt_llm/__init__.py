"""Stands for tensorrt_llm's LLM API: takes what LLM() takes, and decodes nothing real.

The names are those of BaseLlmArgs and KvCacheConfig of the 1.2 line, which forbid others.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

ARGUMENTS = {
    "model", "tokenizer", "dtype", "revision", "tensor_parallel_size", "pipeline_parallel_size",
    "context_parallel_size", "gpus_per_node", "enable_attention_dp", "load_format", "enable_lora",
    "lora_config", "kv_cache_config", "enable_chunked_prefill", "guided_decoding_backend",
    "iter_stats_max_iterations", "scheduler_config", "cache_transceiver_config",
    "speculative_config", "max_batch_size", "max_num_tokens", "max_seq_len", "max_input_len",
    "max_beam_width",
}  # fmt: skip
CACHE = {
    "enable_block_reuse", "max_tokens", "max_attention_window", "sink_token_length",
    "free_gpu_memory_fraction", "host_cache_size", "onboard_blocks", "cross_kv_cache_fraction",
    "secondary_offload_min_priority", "event_buffer_max_size",
    "attention_dp_events_gather_period_ms", "enable_partial_reuse", "copy_on_partial_reuse",
    "use_uvm", "max_gpu_total_bytes", "dtype", "mamba_ssm_cache_dtype", "tokens_per_block",
}  # fmt: skip


class SamplingParams:
    """How to decode; only what the smoke asks for."""

    def __init__(self, *, max_tokens):
        self.max_tokens = max_tokens


class LLM:
    """Loads nothing."""

    def __init__(self, **settings):
        unknown = set(settings) - ARGUMENTS | set(settings["kv_cache_config"]) - CACHE
        assert not unknown, f"LLM() takes no {unknown}"
        assert (Path(settings["model"]) / "config.json").is_file(), settings["model"]
        print("tensorrt_llm: stand-in, nothing is loaded", flush=True)
        if os.environ.get("STANDIN_FAIL") == "LLM":
            print("CUDA out of memory (asked for by the test)", flush=True)
            sys.exit(3)

    def generate(self, inputs, sampling_params=None, use_tqdm=True):
        """Return one answer of ids that follow the prompt's."""
        assert isinstance(inputs[0], int)
        ids = [inputs[-1] + n for n in range(sampling_params.max_tokens)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids)])

    def shutdown(self):
        """End nothing."""
