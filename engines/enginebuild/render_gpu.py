"""`config.pbtxt` of the models that serve a GPU build: TensorRT-LLM's backend, or its LLM API.

The manifest's digest, the SM, the versions and the limits are parameters of `tensorrt_llm`: a
router that shares no disk with Triton reads them over ModelConfig.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from enginebuild import contract, llmapi_contract, pbtxt, render
from enginebuild.planned import Planned

SERVED_AT = PurePosixPath("/models")
STATS_PERIOD_MS = 100


def configs(
    build: Planned,
    named: Mapping[str, str],
    versions: Mapping[str, str],
    served_at: PurePosixPath = SERVED_AT,
) -> dict[str, str]:
    """Return the text of `config.pbtxt` for each model of the repository, by its name.

    Args:
        build: The planned build.
        named: What names the engine: its manifest's digest and its text files' (`manifest.named`).
        versions: What the engine was made with, by package: `tensorrt_llm`, `tensorrt` ….
        served_at: Where Triton will see the repository; its backend takes absolute paths only.
    """
    batch = build.limits.max_batch_size
    if build.plan.output == "llmapi":
        return {"tensorrt_llm": pbtxt.printed(llmapi(build, named, versions))}
    made = (
        render.preprocessing(batch),
        core(build, named, versions, served_at),
        render.postprocessing(batch),
        render.ensemble(batch, continued=False),
        bls(batch),
    )
    return {message.name: pbtxt.printed(message) for message in made}


def core(
    build: Planned,
    named: Mapping[str, str],
    versions: Mapping[str, str],
    served_at: PurePosixPath,
) -> Any:
    """Return the config of `tensorrt_llm` for NVIDIA's backend, consistent with the engine."""
    limits = build.limits
    config = pbtxt.model(
        "tensorrt_llm",
        limits.max_batch_size,
        contract.CORE_INPUTS,
        contract.CORE_OUTPUTS,
        backend="tensorrtllm",
    )
    config.model_transaction_policy.decoupled = True
    config.dynamic_batching.preferred_batch_size.append(limits.max_batch_size)
    config.dynamic_batching.default_queue_policy.max_queue_size = limits.max_queue_size
    engine = str(served_at / "tensorrt_llm" / "1" / render.ENGINE_DIRECTORY)
    chunked = "true" if build.spec.build.chunked_context else "false"
    said = {
        "max_beam_width": "1",
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": engine,
        "tokenizer_dir": engine,
        "batch_scheduler_policy": "guaranteed_no_evict",
        "kv_cache_free_gpu_mem_fraction": str(limits.kv_fraction),
        "enable_kv_cache_reuse": "true",
        "enable_chunked_context": chunked,
        "max_attention_window_size": str(limits.max_seq_len),
        "normalize_log_probs": "true",
        "exclude_input_in_output": "false",
        "cancellation_check_period_ms": str(render.CANCELLATION_CHECK_PERIOD_MS),
        "stats_check_period_ms": str(STATS_PERIOD_MS),
        "recv_poll_period_ms": "0",
        "decoding_mode": "top_k_top_p",
        "guided_decoding_backend": "xgrammar",
        "num_nodes": "1",
        "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
    }
    if build.gpus > 1:
        said["gpu_device_ids"] = ",".join(str(rank) for rank in range(build.gpus))
    pbtxt.set_parameters(config, said | facts(build, named, versions))
    return config


def bls(max_batch_size: int) -> Any:
    """Return the config of `tensorrt_llm_bls`: the ensemble's tensors, decoupled."""
    config = pbtxt.model(
        "tensorrt_llm_bls",
        max_batch_size,
        contract.ENSEMBLE_INPUTS,
        contract.ENSEMBLE_OUTPUTS,
    )
    config.model_transaction_policy.decoupled = True
    pbtxt.set_parameters(
        config, {"accumulate_tokens": "true", "tensorrt_llm_model_name": "tensorrt_llm"}
    )
    return config


def llmapi(build: Planned, named: Mapping[str, str], versions: Mapping[str, str]) -> Any:
    """Return the config of `tensorrt_llm` for the LLM API: text in, text out, no batching."""
    config = pbtxt.model(
        "tensorrt_llm", 0, llmapi_contract.INPUTS, llmapi_contract.OUTPUTS, backend="python"
    )
    config.model_transaction_policy.decoupled = True
    pbtxt.set_parameters(config, facts(build, named, versions))
    return config


def facts(build: Planned, named: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, str]:
    """Return what the router checks: which engine this is, made for what, within which limits."""
    limits = build.limits
    return {
        "engine_build": build.spec.build_id,
        "engine_gpus": str(build.gpus),
        "engine_kv_tokens": str(build.kv_tokens),
        **named,
        "engine_max_batch_size": str(limits.max_batch_size),
        "engine_max_input_len": str(limits.max_input_len),
        "engine_max_num_tokens": str(limits.max_num_tokens),
        "engine_max_queue_size": str(limits.max_queue_size),
        "engine_max_seq_len": str(limits.max_seq_len),
        "engine_model": build.plan.model,
        "engine_pp": str(build.plan.pp),
        "engine_precision": build.plan.precision,
        "engine_sm": str(build.sm),
        "engine_tp": str(build.plan.tp),
        **{f"engine_version_{name}": version for name, version in sorted(versions.items())},
    }
