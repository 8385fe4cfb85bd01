"""What the builder writes for Triton: TensorRT-LLM's models, consistent with each other."""

import engine_modules
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import contract, render
from enginebuild.spec import load

FAST = "smollm2-135m-instruct.cpu-x86"
DIGEST = "0" * 64
NAMED = {"engine_manifest_digest": DIGEST}


def parsed(build_id=FAST):
    texts = render.configs(load(build_id), NAMED)
    return {name: text_format.Parse(text, pb.ModelConfig()) for name, text in texts.items()}


def test_every_model_is_rendered_and_parses():
    assert set(parsed()) == {"preprocessing", "tensorrt_llm", "postprocessing", "ensemble"}


def test_two_renders_are_the_same_bytes():
    spec = load(FAST)
    assert render.configs(spec, NAMED) == render.configs(spec, NAMED)


def test_core_is_decoupled_in_flight_batched_and_paged():
    core = parsed()["tensorrt_llm"]
    said = {key: value.string_value for key, value in core.parameters.items()}
    assert core.model_transaction_policy.decoupled
    assert said["gpt_model_type"] == "inflight_fused_batching"
    assert said["enable_chunked_context"] == "true"
    assert said["engine_manifest_digest"] == DIGEST
    assert int(said["cancellation_check_period_ms"]) <= 100
    assert "${" not in text_format.MessageToString(core)


def test_scalars_are_reshaped_and_lists_are_ragged():
    tensors = {tensor.name: tensor for tensor in parsed()["tensorrt_llm"].input}
    assert tensors["input_lengths"].HasField("reshape")
    assert not tensors["input_lengths"].optional
    assert tensors["input_ids"].allow_ragged_batch
    assert list(tensors["stop_words_list"].dims) == [2, -1]
    assert not tensors["mrope_position_deltas"].HasField("reshape")


def test_every_core_input_is_honoured_or_refused_by_name():
    inputs = engine_modules.of("tensorrt_llm", "inputs")
    rendered = {tensor.name for tensor in parsed()["tensorrt_llm"].input}
    assert rendered == inputs.HONOURED | set(inputs.REFUSED)
    assert not inputs.HONOURED & set(inputs.REFUSED)


def test_ensemble_feeds_every_step_what_it_declares():
    configs = parsed()
    ensemble = configs["ensemble"]
    made = {tensor.name for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        config = configs[step.model_name]
        declared = {tensor.name: tensor for tensor in config.input}
        assert set(step.input_map) <= set(declared)
        required = {name for name, tensor in declared.items() if not tensor.optional}
        assert required <= set(step.input_map), step.model_name
        assert set(step.input_map.values()) <= made, step.model_name
        assert set(step.output_map) <= {tensor.name for tensor in config.output}
        made |= set(step.output_map.values())
    assert {tensor.name for tensor in ensemble.output} <= made
    fed = {name for step in ensemble.ensemble_scheduling.step for name in step.input_map.values()}
    assert {tensor.name for tensor in ensemble.input} <= fed, "an input nobody reads"


@pytest.mark.parametrize(
    ("core", "outside"),
    [
        ("runtime_top_k", "top_k"),
        ("runtime_top_p", "top_p"),
        ("len_penalty", "length_penalty"),
        ("streaming", "stream"),
        ("request_output_len", "_REQUEST_OUTPUT_LEN"),
        ("temperature", "temperature"),
    ],
)
def test_renames_are_upstreams(core, outside):
    step = parsed()["ensemble"].ensemble_scheduling.step[1]
    assert step.input_map[core] == outside


def test_names_are_unique():
    for tensors in (
        contract.CORE_INPUTS,
        contract.CORE_OUTPUTS,
        contract.ENSEMBLE_INPUTS,
        contract.ENSEMBLE_OUTPUTS,
    ):
        names = [tensor.name for tensor in tensors]
        assert len(names) == len(set(names))
