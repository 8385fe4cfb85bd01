"""A planned build as the command lines of TensorRT-LLM 1.2.1's tools. Pure.

Each option is written out even where it is the default: a default that moves between releases
must not move the engine.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from enginebuild import flags
from enginebuild.planned import Planned
from enginebuild.workshop import CALIBRATED

Route = Literal["convert", "quantize", "none"]

# Families whose checkpoints llama's convert_checkpoint.py reads; the others go through
# quantize.py, whose full_prec converts without quantising. From memory.
CONVERTED = frozenset({"llama", "mistral", "mixtral"})
UNCALIBRATED = frozenset({"bf16", "int8_wo"})
KV_DTYPE: Mapping[str, str] = MappingProxyType(
    {"fp8": "fp8", "w4a8_awq": "fp8", "nvfp4": "fp8", "int8_sq": "int8"}
)
GROUPED = frozenset({"int4_awq", "w4a8_awq"})
DTYPE = "bfloat16"
# Of the memory that is free beside whatever serves on that GPU; a few tokens need little.
SMOKE_KV_FRACTION = 0.2
AWQ_GROUP = 128
# Formats whose matrices the GEMM plugin multiplies; the others have kernels of their own.
GEMM_PLUGIN = frozenset({"bf16", "int8_wo", "int4_awq"})


def route(build: Planned) -> Route:
    """Return which tool makes the checkpoint: one of two, or none where it is served as it is."""
    precision = build.plan.precision
    if build.plan.output == "llmapi":
        return "quantize" if precision in CALIBRATED else "none"
    family = build.spec.model.architecture.family
    converted = precision in UNCALIBRATED and family in CONVERTED
    return "convert" if converted else "quantize"


def convert(build: Planned, model: Path, output: Path) -> list[str]:
    """Return the options of convert_checkpoint.py for a format without calibration."""
    words = [
        *("--model_dir", str(model)),
        *("--output_dir", str(output)),
        *("--dtype", DTYPE),
        *_split(build),
        *("--workers", str(build.gpus)),
    ]
    if build.plan.precision == "int8_wo":
        words += ["--use_weight_only", "--weight_only_precision", "int8"]
    return words


def quantize(build: Planned, model: Path, output: Path, seed: int = 1234) -> list[str]:
    """Return the options of quantize.py; for `llmapi` it writes a Hugging Face checkpoint."""
    precision = build.plan.precision
    words = [
        *("--model_dir", str(model)),
        *("--output_dir", str(output)),
        *("--dtype", DTYPE),
        *("--qformat", "full_prec" if precision == "bf16" else precision),
        *("--calib_size", str(build.spec.build.calibration_size)),
        *("--seed", str(seed)),
        *_split(build),
    ]
    if precision in KV_DTYPE:
        words += ["--kv_cache_dtype", KV_DTYPE[precision]]
    if precision in GROUPED:
        words += ["--awq_block_size", str(AWQ_GROUP)]
    if build.plan.output == "llmapi":
        words += ["--export_format", "hf"]
    return words


def trtllm_build(build: Planned, checkpoint: Path, output: Path) -> list[str]:
    """Return the options of trtllm-build, the spec's own switches last.

    Raises:
        FlagError: if a switch is no option of trtllm-build.
    """
    limits = build.limits
    said = {
        "checkpoint_dir": str(checkpoint),
        "output_dir": str(output),
        "max_batch_size": str(limits.max_batch_size),
        "max_input_len": str(limits.max_input_len),
        "max_seq_len": str(limits.max_seq_len),
        "max_num_tokens": str(limits.max_num_tokens),
        "max_beam_width": "1",
        "kv_cache_type": "paged",
        "tokens_per_block": str(limits.tokens_per_block),
        "remove_input_padding": "enable",
        "context_fmha": "enable",
        "use_paged_context_fmha": "enable",
        "use_fp8_context_fmha": "enable" if _fp8_cache(build) else "disable",
        "gpt_attention_plugin": "auto",
        "gemm_plugin": "auto" if build.plan.precision in GEMM_PLUGIN else "disable",
        "multiple_profiles": "disable",
        "workers": str(build.gpus),
        "log_level": "info",
    } | build.spec.build.switches
    words = [word for name, value in said.items() for word in (f"--{name}", value)]
    flags.parse(flags.BUILD, words)
    return words


def run(engine: Path, tokenizer: Path, output: Path, prompt: str, tokens: int) -> list[str]:
    """Return the options of run.py that decode a few tokens greedily and write their ids."""
    words = [
        *("--engine_dir", str(engine)),
        *("--tokenizer_dir", str(tokenizer)),
        *("--input_text", prompt),
        "--no_add_special_tokens",
        "--no_prompt_template",
        *("--max_output_len", str(tokens)),
        *("--top_k", "1"),
        *("--output_csv", str(output)),
        *("--kv_cache_free_gpu_memory_fraction", str(SMOKE_KV_FRACTION)),
        *("--log_level", "info"),
    ]
    flags.parse(flags.RUN, words)
    return words


def _fp8_cache(build: Planned) -> bool:
    return KV_DTYPE.get(build.plan.precision) == "fp8"


def _split(build: Planned) -> list[str]:
    return ["--tp_size", str(build.plan.tp), "--pp_size", str(build.plan.pp)]
