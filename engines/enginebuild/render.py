"""`config.pbtxt` of the four Triton models, built as protobuf messages and printed.

Nothing is substituted into text: a value either fits the message or the build fails. The
four agree with each other because they are made from one `BuildSpec`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import contract
from enginebuild.contract import Kind, Tensor
from enginebuild.spec import BuildSpec

CANCELLATION_CHECK_PERIOD_MS = 100
ENGINE_DIRECTORY = "engine"
TOKENIZER_DIRECTORY = "../../tensorrt_llm/1/engine"


def configs(spec: BuildSpec, digest: str) -> dict[str, str]:
    """Return the text of `config.pbtxt` for each model of the repository, by its name.

    Args:
        spec: The build.
        digest: The engine manifest's digest, which a client can read back over ModelConfig.
    """
    made = (preprocessing(spec), core(spec, digest), postprocessing(spec), ensemble(spec))
    return {message.name: _printed(message) for message in made}


def core(spec: BuildSpec, digest: str) -> Any:
    """Return the config of `tensorrt_llm`: decoupled, in-flight batched, paged."""
    outputs = (*contract.CORE_OUTPUTS, contract.OURS_PREVIOUS, contract.OURS_FINISHED)
    config = _model("tensorrt_llm", spec, contract.CORE_INPUTS, outputs)
    config.model_transaction_policy.decoupled = True
    limits = spec.build.limits
    _set_parameters(
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
            "engine_manifest_digest": digest,
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


def preprocessing(spec: BuildSpec) -> Any:
    """Return the config of `preprocessing`: text to token ids, without special tokens added."""
    config = _model(
        "preprocessing", spec, contract.PREPROCESSING_INPUTS, contract.PREPROCESSING_OUTPUTS
    )
    _set_parameters(config, {"tokenizer_dir": TOKENIZER_DIRECTORY, "add_special_tokens": "false"})
    return config


def postprocessing(spec: BuildSpec) -> Any:
    """Return the config of `postprocessing`: token ids to text, right across responses."""
    config = _model(
        "postprocessing", spec, contract.POSTPROCESSING_INPUTS, contract.POSTPROCESSING_OUTPUTS
    )
    _set_parameters(config, {"tokenizer_dir": TOKENIZER_DIRECTORY, "skip_special_tokens": "true"})
    return config


def ensemble(spec: BuildSpec) -> Any:
    """Return the config of `ensemble`: text in, text out, with upstream's renames."""
    config = pb.ModelConfig(
        name="ensemble",
        platform="ensemble",
        max_batch_size=spec.build.limits.max_batch_size,
        input=map(_input, contract.ENSEMBLE_INPUTS),
        output=map(_output, contract.ENSEMBLE_OUTPUTS),
    )
    outside = {tensor.name for tensor in contract.ENSEMBLE_INPUTS}
    _add_step(
        config,
        "preprocessing",
        contract.PREPROCESSING_RENAMES,
        {inner: between for inner, (between, _) in contract.BETWEEN.items()},
    )
    handed = {core_input: between for between, core_input in contract.BETWEEN.values()}
    passed = {
        tensor.name: contract.CORE_RENAMES.get(tensor.name, tensor.name)
        for tensor in contract.CORE_INPUTS
        if tensor.name not in handed
        and contract.CORE_RENAMES.get(tensor.name, tensor.name) in outside
    }
    results = {t.name: t.name for t in contract.ENSEMBLE_OUTPUTS if t.name != "text_output"}
    ids = {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"}
    ours = {"previous_ids": "_PREVIOUS_IDS", "finished": "_FINISHED"}
    _add_step(config, "tensorrt_llm", handed | passed, ids | ours | results)
    _add_step(
        config,
        "postprocessing",
        {
            "TOKENS_BATCH": "_TOKENS_BATCH",
            "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH",
            "PREVIOUS_IDS": "_PREVIOUS_IDS",
            "FINISHED": "_FINISHED",
        },
        {"OUTPUT": "text_output"},
    )
    return config


def _model(name: str, spec: BuildSpec, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> Any:
    return pb.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=spec.build.limits.max_batch_size,
        dynamic_batching=pb.ModelDynamicBatching(),
        input=map(_input, inputs),
        output=map(_output, outputs),
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.Kind.KIND_CPU)],
    )


def _input(tensor: Tensor) -> Any:
    made = pb.ModelInput(
        name=tensor.name,
        data_type=_data_type(tensor),
        dims=tensor.dims,
        optional=tensor.optional,
        allow_ragged_batch=tensor.kind is Kind.RAGGED,
    )
    if tensor.kind is Kind.SCALAR:
        made.reshape.SetInParent()
    return made


def _output(tensor: Tensor) -> Any:
    return pb.ModelOutput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.dims)


def _data_type(tensor: Tensor) -> Any:
    return pb.DataType.Value(f"TYPE_{tensor.data_type}")


def _set_parameters(config: Any, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        config.parameters[key].string_value = value


def _add_step(
    config: Any, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)


def _printed(config: Any) -> str:
    text: str = text_format.MessageToString(config)
    text_format.Parse(text, pb.ModelConfig())
    return text
