"""The pipeline with strict stand-ins of TensorRT-LLM's tools: made once, resumed, never half."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import standing

from enginebuild import BuildError, WeightsError, build, manifest
from enginebuild.spec import SPECS

pytestmark = pytest.mark.slow

BUILD = "llama-3.1-8b.h100-sxm.fp8.throughput"
CONVERTED = "mixtral-8x7b.h200.bf16.balanced"
TWO_GPUS = "llama-3.3-70b.h100-sxm-x2.fp8.throughput"
LLMAPI = "llama-3.1-8b.h100-sxm.bf16.llmapi"
STEPS = ("take", "quantize", "compile", "package", "smoke")


@pytest.fixture
def make(tmp_path):
    """Build into tmp_path with the stand-ins; returns what was built and what was told."""

    def made(build_id=BUILD, machine=standing.H100, **changed):
        model = build_id.partition(".h")[0]
        weights = tmp_path / "weights" / model
        if not weights.exists():
            standing.checkpoint(weights, model)
        told = []
        settings = {
            "repository": tmp_path / "models",
            "scratch": tmp_path / "scratch",
            "weights": weights,
            "toolbox": standing.toolbox(tmp_path / "bin", machine),
            "progress": told.append,
        }
        return build(build_id, **(settings | changed)), told

    return made


def texts(folder):
    return {path.name: path.read_text() for path in sorted(folder.glob("*.json"))}


def configs(repository):
    return {path.parent.name: path.read_text() for path in repository.glob("*/config.pbtxt")}


def done(told):
    return [line.partition(":")[0] for line in told if ": done in" in line]


def test_a_build_ends_in_a_package_that_verifies(make):
    built, told = make()
    assert done(told) == list(STEPS)
    assert manifest.verify(built.engine) == built.digest
    said = manifest.read(built.engine)
    assert said["gpu"] == {"name": standing.H100.gpu_name, "sm": 90, "driver": "590.44.01"}
    assert said["tools"] == standing.VERSIONS
    assert said["source_sha256"]["model.safetensors"]
    assert said["predicted"]["tokens_per_s"] > 0
    assert "--max_batch_size" in said["flags"]["compile"]
    assert {"rank0.engine", "config.json", "tokenizer.json", "chat_template.jinja"} <= set(
        said["files"]
    )


def test_a_current_engine_costs_no_step(make):
    first, _ = make()
    again, told = make()
    assert (again.digest, again.fresh) == (first.digest, False)
    assert done(told) == []


@pytest.mark.parametrize("build_id", [BUILD, TWO_GPUS, LLMAPI])
def test_two_builds_of_the_same_inputs_are_the_same_bytes(tmp_path, make, build_id):
    found = []
    for place in ("a", "b"):
        built, _ = make(
            build_id, repository=tmp_path / place / "models", scratch=tmp_path / place / "s"
        )
        found.append((texts(built.engine), configs(tmp_path / place / "models"), built.digest))
    assert found[0] == found[1]
    assert "plan.json" in found[0][0]


def test_ranks_are_one_engine_each(make):
    built, _ = make(TWO_GPUS)
    assert sorted(p.name for p in built.engine.glob("*.engine")) == ["rank0.engine", "rank1.engine"]


def test_sixteen_bits_are_converted_and_not_quantised(make):
    h200 = replace(standing.H100, gpu_name="NVIDIA H200")
    _, told = make(CONVERTED, machine=h200)
    assert done(told) == ["take", "convert", "compile", "package", "smoke"]


def test_llmapi_packages_the_checkpoint_with_its_settings(make):
    built, told = make(LLMAPI)
    assert done(told) == ["take", "package", "smoke"]
    assert (built.engine / "model.safetensors").is_file()
    assert "tensor_parallel_size: 1" in (built.engine / "model.yaml").read_text()


def test_other_weights_are_another_engine_and_moved_ones_are_not(tmp_path, make):
    first, _ = make()
    weights = tmp_path / "weights" / "llama-3.1-8b"
    moved = weights.rename(tmp_path / "elsewhere")
    same, told = make(weights=moved)
    assert (same.digest, done(told)) == (first.digest, ["take"])
    (moved / "model.safetensors").write_bytes(b"fine-tuned weights")
    other, told = make(weights=moved)
    assert other.digest != first.digest
    assert done(told) == list(STEPS)


@pytest.mark.parametrize("tool", ["quantize.py", "trtllm-build", "run.py"])
def test_a_failed_step_says_why_and_leaves_what_serves(tmp_path, make, monkeypatch, tool):
    served, _ = make(LLMAPI)
    before = configs(tmp_path / "models")
    monkeypatch.setenv("STANDIN_FAIL", tool)
    with pytest.raises(BuildError, match="asked for by the test") as told:
        make()
    assert "ended with status 3; all of it in" in str(told.value)
    assert manifest.verify(served.engine) == served.digest
    assert configs(tmp_path / "models") == before


@pytest.mark.parametrize(
    ("why", "machine", "said"),
    [
        ("another SM", replace(standing.H100, gpu_name="NVIDIA L4", sm=89), r"NVIDIA L4 \(SM89\)"),
        ("too few", replace(standing.H100, gpus=1), "takes 2 GPUs, and this machine has 1"),
        ("another release", replace(standing.H100, versions={"tensorrt_llm": "1.3.0"}), "1.3.0"),
        ("no TensorRT-LLM", replace(standing.H100, versions={}), "here is none"),
    ],
)
def test_a_machine_that_cannot_make_it_is_named_before_a_step(make, why, machine, said):
    with pytest.raises(BuildError, match=said):
        make(TWO_GPUS, machine=machine)


@pytest.mark.parametrize(
    ("why", "spoil", "said"),
    [
        ("another model", {"hidden_size": 8192}, "another model's weights"),
        ("quantised", {"quantization_config": {}}, "quantised already"),
    ],
)
def test_weights_that_are_not_the_models_are_named(tmp_path, make, why, spoil, said):
    standing.checkpoint(tmp_path / "weights" / "llama-3.1-8b", **spoil)
    with pytest.raises(WeightsError, match=said):
        make()


def test_a_tokenizer_of_another_model_is_named(tmp_path, make):
    weights = standing.checkpoint(tmp_path / "weights" / "llama-3.1-8b")
    standing.write_tokenizer(weights / "tokenizer.json", 200_000)
    with pytest.raises(WeightsError, match="it is another model's tokenizer"):
        make()
    standing.write_tokenizer(weights / "tokenizer.json", 7)
    with pytest.raises(WeightsError, match=r"has no token 128009, which ends llama-3\.1-8b"):
        make()


def test_a_name_without_a_revision_is_not_downloaded(make):
    with pytest.raises(WeightsError, match=r"hf download meta-llama/Llama-3\.1-8B-Instruct"):
        make(weights=None)


def test_a_pinned_revision_is_downloaded(tmp_path, make, monkeypatch):
    specs = tmp_path / "specs"
    specs.mkdir()
    for kind in ("builds", "models", "skus"):
        (specs / kind).mkdir()
        for path in (SPECS / kind).glob("*.yaml"):
            text = path.read_text()
            if path.stem == "llama-3.1-8b" and kind == "models":
                text = text.replace("  kind: hugg", f"  revision: {'a' * 40}\n  kind: hugg")
            (specs / kind / path.name).write_text(text)
    hub = standing.checkpoint(tmp_path / "hub")
    monkeypatch.setenv("STANDIN_HUB", str(hub))
    built, told = make(weights=None, specs=specs)
    assert done(told) == ["fetch", *STEPS]
    assert manifest.read(built.engine)["source"]["revision"] == "a" * 40


def test_the_checkouts_own_repository_is_not_built_into(make):
    from enginebuild.build import MODELS

    with pytest.raises(BuildError, match="name another with --repository"):
        make(repository=MODELS)


def drive(tmp_path, stop_at="", **environment):
    return standing.drive(BUILD, tmp_path, tmp_path / "weights", stop_at, **environment)


@pytest.mark.parametrize("step", [*STEPS, "installing"])
def test_killed_at_each_step_and_resumed(tmp_path, make, step):
    served, _ = make(LLMAPI)
    standing.checkpoint(tmp_path / "weights")
    stop_at = step if step == "installing" else f"{step}: started"
    standing.kill_at(drive(tmp_path, stop_at), lambda line: line == "STOPPED\n")
    assert manifest.verify(served.engine) == served.digest, "what serves was touched"
    built, told = make(weights=tmp_path / "weights")
    reached = STEPS.index(step) if step in STEPS else len(STEPS)
    assert [line for line in told if "done before" in line] == [
        f"{name}: done before" for name in STEPS[:reached]
    ]
    assert done(told) == list(STEPS[reached:])
    assert manifest.verify(built.engine) == built.digest
    assert not list(built.engine.parent.glob(".engine-*"))


@pytest.mark.parametrize("tool", ["quantize.py", "trtllm-build", "run.py"])
def test_killed_inside_a_tool_the_tool_dies_too_and_its_half_is_not_used(tmp_path, make, tool):
    standing.checkpoint(tmp_path / "weights")
    paused = tmp_path / "paused"
    process = drive(tmp_path, STANDIN_PAUSE=tool, STANDIN_PAUSED=str(paused))
    while not paused.exists():
        assert process.poll() is None
    standing.kill_at(process, lambda _: True)
    built, _ = make(weights=tmp_path / "weights")
    assert manifest.verify(built.engine) == built.digest
    assert "half-written.bin" not in json.dumps(manifest.read(built.engine))
    assert Path(built.engine / "rank0.engine").is_file()
