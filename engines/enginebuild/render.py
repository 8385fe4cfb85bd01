"""`config.pbtxt` of the four Triton models, built as protobuf messages and printed.

Nothing is substituted into text: a value either fits the message or the build fails. The
four agree with each other because they are made from one `BuildSpec`.
"""

from collections.abc import Mapping
from typing import Any

from enginebuild import contract, pbtxt
from enginebuild.contract import Tensor
from enginebuild.spec import BuildSpec

CANCELLATION_CHECK_PERIOD_MS = 100
ENGINE_DIRECTORY = "engine"
TOKENIZER_DIRECTORY = "../../tensorrt_llm/1/engine"


def configs(spec: BuildSpec, named: Mapping[str, str]) -> dict[str, str]:
    """Return the text of `config.pbtxt` for each model of the repository, by its name.

    Args:
        spec: The build.
        named: What names the engine (`manifest.named`), for clients to read over ModelConfig.
    """
    batch = spec.build.limits.max_batch_size
    made = (
        preprocessing(batch),
        core(spec, named),
        postprocessing(batch),
        ensemble(batch, continued=True),
    )
    return {message.name: pbtxt.printed(message) for message in made}


def core(spec: BuildSpec, named: Mapping[str, str]) -> Any:
    """Return the config of `tensorrt_llm`: decoupled, in-flight batched, paged."""
    limits = spec.build.limits
    outputs = (*contract.CORE_OUTPUTS, contract.OURS_PREVIOUS, contract.OURS_FINISHED)
    config = pbtxt.model("tensorrt_llm", limits.max_batch_size, contract.CORE_INPUTS, outputs)
    config.model_transaction_policy.decoupled = True
    pbtxt.set_parameters(
        config,
        {
            "max_beam_width": "1",
            "FORCE_CPU_ONLY_INPUT_TENSORS": "yes",
            "gpt_model_type": "inflight_fused_batching",
            "gpt_model_path": ENGINE_DIRECTORY,
            "tokenizer_dir": ENGINE_DIRECTORY,
            "batch_scheduler_policy": "guaranteed_no_evict",
            "max_tokens_in_paged_kv_cache": str(
                spec.build.kv_cache.blocks * spec.build.kv_cache.tokens_per_block
            ),
            "enable_kv_cache_reuse": "true",
            "enable_chunked_context": "true",
            "exclude_input_in_output": "false",
            "cancellation_check_period_ms": str(CANCELLATION_CHECK_PERIOD_MS),
            "decoding_mode": "top_k_top_p",
            "guided_decoding_backend": "xgrammar",
            **named,
            "engine_max_batch_size": str(limits.max_batch_size),
            "engine_max_input_len": str(limits.max_input_len),
            "engine_max_num_tokens": str(limits.max_num_tokens),
            "engine_max_queue_size": str(limits.max_queue_size),
            "engine_max_seq_len": str(limits.max_seq_len),
            "engine_model": spec.build.model,
            "engine_profile": spec.build.profile,
        },
    )
    return config


def preprocessing(max_batch_size: int) -> Any:
    """Return the config of `preprocessing`: text to token ids, without special tokens added."""
    config = pbtxt.model(
        "preprocessing",
        max_batch_size,
        contract.PREPROCESSING_INPUTS,
        contract.PREPROCESSING_OUTPUTS,
    )
    pbtxt.set_parameters(
        config, {"tokenizer_dir": TOKENIZER_DIRECTORY, "add_special_tokens": "false"}
    )
    return config


def postprocessing(max_batch_size: int) -> Any:
    """Return the config of `postprocessing`: token ids to text, right across responses."""
    config = pbtxt.model(
        "postprocessing",
        max_batch_size,
        contract.POSTPROCESSING_INPUTS,
        contract.POSTPROCESSING_OUTPUTS,
    )
    pbtxt.set_parameters(
        config, {"tokenizer_dir": TOKENIZER_DIRECTORY, "skip_special_tokens": "true"}
    )
    return config


def ensemble(max_batch_size: int, *, continued: bool) -> Any:
    """Return the config of `ensemble`: text in, text out, with upstream's renames.

    `continued` says that the core tells where its responses join, as ours does and TensorRT-LLM's
    does not; without it postprocessing takes each response as a whole answer.
    """
    config = pbtxt.pipeline(
        "ensemble", max_batch_size, contract.ENSEMBLE_INPUTS, contract.ENSEMBLE_OUTPUTS
    )
    outside = {tensor.name for tensor in contract.ENSEMBLE_INPUTS}
    pbtxt.add_step(
        config,
        "preprocessing",
        contract.PREPROCESSING_RENAMES,
        {inner: between for inner, (between, _) in contract.BETWEEN.items()},
    )
    handed = {core_input: between for between, core_input in contract.BETWEEN.values()}
    passed = {
        tensor.name: _outer(tensor)
        for tensor in contract.CORE_INPUTS
        if tensor.name not in handed and _outer(tensor) in outside
    }
    results = {t.name: t.name for t in contract.ENSEMBLE_OUTPUTS if t.name != "text_output"}
    ids = {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"}
    ours = {"previous_ids": "_PREVIOUS_IDS", "finished": "_FINISHED"} if continued else {}
    pbtxt.add_step(config, "tensorrt_llm", handed | passed, ids | ours | results)
    read = {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"}
    joined = {"PREVIOUS_IDS": "_PREVIOUS_IDS", "FINISHED": "_FINISHED"} if continued else {}
    pbtxt.add_step(config, "postprocessing", read | joined, {"OUTPUT": "text_output"})
    return config


def _outer(tensor: Tensor) -> str:
    return contract.CORE_RENAMES.get(tensor.name, tensor.name)
