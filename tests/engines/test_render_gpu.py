"""What is rendered for NVIDIA's backend: parsed, consistent with the build, the same twice."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import argv, contract, flags, llmapi_contract, parameters, pbtxt, render_gpu
from enginebuild.errors import BuildError
from enginebuild.planned import planned
from enginebuild.spec import GpuSpec, known, load

GPU_BUILDS = [name for name in known("builds") if isinstance(load(name), GpuSpec)]
ENGINES = [name for name in GPU_BUILDS if load(name).build.builder == "trtllm"]
LLMAPI = [name for name in GPU_BUILDS if name not in ENGINES]
DIGEST = "d" * 64
NAMED = {"engine_manifest_digest": DIGEST, "engine_tokenizer_sha256": "e" * 64}
VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}
TWO_GPUS = "llama-3.3-70b.h100-sxm-x2.fp8.throughput"


def texts(name):
    return render_gpu.configs(planned(load(name)), NAMED, VERSIONS)


def parsed(name):
    return {one: text_format.Parse(text, pb.ModelConfig()) for one, text in texts(name).items()}


def said(config):
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.mark.parametrize("name", GPU_BUILDS)
def test_two_renders_are_the_same_bytes_with_nothing_left_to_fill_in(name):
    assert texts(name) == texts(name)
    assert "${" not in "".join(texts(name).values())


@pytest.mark.parametrize("name", ENGINES)
def test_the_core_is_in_flight_decoupled_paged_and_chunked_as_it_was_built(name):
    build = planned(load(name))
    core = parsed(name)["tensorrt_llm"]
    told = said(core)
    assert core.backend == "tensorrtllm"
    assert core.model_transaction_policy.decoupled
    assert told["gpt_model_type"] == "inflight_fused_batching"
    assert told["gpt_model_path"] == "/models/tensorrt_llm/1/engine"
    line = flags.parse(
        flags.BUILD, argv.trtllm_build(build, render_gpu.SERVED_AT, render_gpu.SERVED_AT)
    )
    assert line["kv_cache_type"] == "paged"
    assert float(told["kv_cache_free_gpu_mem_fraction"]) == build.limits.kv_fraction
    if told["enable_chunked_context"] == "true":
        assert line["use_paged_context_fmha"] == "enable"
    else:
        assert line["max_num_tokens"] >= line["max_input_len"]
    assert core.max_batch_size == line["max_batch_size"]
    assert list(core.dynamic_batching.preferred_batch_size) == [line["max_batch_size"]]
    assert int(told["max_beam_width"]) == line["max_beam_width"]


@pytest.mark.parametrize("name", GPU_BUILDS)
def test_a_client_reads_back_which_engine_this_is(name):
    build = planned(load(name))
    told = said(parsed(name)["tensorrt_llm"])
    assert told["engine_manifest_digest"] == DIGEST
    assert told["engine_sm"] == str(build.sm)
    assert told["engine_version_tensorrt_llm"] == "1.2.1"
    assert int(told["engine_max_seq_len"]) == build.limits.max_seq_len


def test_ranks_are_given_their_gpus():
    assert said(parsed(TWO_GPUS)["tensorrt_llm"])["gpu_device_ids"] == "0,1"
    assert "gpu_device_ids" not in said(parsed(ENGINES[0])["tensorrt_llm"])


@pytest.mark.parametrize("name", ENGINES[:1])
def test_the_ensemble_joins_what_each_model_declares(name):
    configs = parsed(name)
    assert set(configs) == {
        "preprocessing",
        "tensorrt_llm",
        "postprocessing",
        "ensemble",
        "tensorrt_llm_bls",
    }
    made = {tensor.name for tensor in configs["ensemble"].input}
    for step in configs["ensemble"].ensemble_scheduling.step:
        config = configs[step.model_name]
        declared = {tensor.name: tensor for tensor in config.input}
        assert set(step.input_map) <= set(declared)
        assert {n for n, t in declared.items() if not t.optional} <= set(step.input_map)
        assert set(step.input_map.values()) <= made, step.model_name
        assert set(step.output_map) <= {tensor.name for tensor in config.output}
        made |= set(step.output_map.values())
    assert {tensor.name for tensor in configs["ensemble"].output} <= made


def test_nvidias_core_has_no_tensor_of_ours():
    outputs = {tensor.name for tensor in parsed(ENGINES[0])["tensorrt_llm"].output}
    assert outputs == {tensor.name for tensor in contract.CORE_OUTPUTS}
    assert not outputs & {"previous_ids", "finished"}


def test_bls_has_the_ensembles_tensors_and_streams():
    configs = parsed(ENGINES[0])
    bls, ensemble = configs["tensorrt_llm_bls"], configs["ensemble"]
    assert bls.model_transaction_policy.decoupled
    assert [tensor.name for tensor in bls.input] == [tensor.name for tensor in ensemble.input]
    assert [tensor.name for tensor in bls.output] == [tensor.name for tensor in ensemble.output]
    assert said(bls)["tensorrt_llm_model_name"] == "tensorrt_llm"


@pytest.mark.parametrize("name", LLMAPI)
def test_llmapi_takes_text_and_is_not_batched(name):
    config = parsed(name)["tensorrt_llm"]
    assert config.backend == "python"
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert config.model_transaction_policy.decoupled
    assert config.input[0].name == "text_input"
    build = planned(load(name))
    kwargs = llmapi_contract.settings(build, "/models/tensorrt_llm/1/engine")
    assert kwargs["tensor_parallel_size"] * kwargs["pipeline_parallel_size"] == build.gpus
    assert kwargs["kv_cache_config"]["free_gpu_memory_fraction"] == build.limits.kv_fraction


def test_a_parameter_nobody_reads_is_refused():
    config = pbtxt.model("tensorrt_llm", 1, (), ())
    with pytest.raises(BuildError, match="tensorrt_llm has no parameter enable_chunked_contxt"):
        pbtxt.set_parameters(config, {"enable_chunked_contxt": "true"})
    assert parameters.unknown("tensorrt_llm", frozenset({"engine_sm", "max_beam_width"})) == []
