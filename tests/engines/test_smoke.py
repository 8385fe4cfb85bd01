"""An engine that does not generate is not installed, and what was made of it is not lost."""

import shutil
import time
from pathlib import Path

import pytest
import standing

from enginebuild import BuildError, argv, build, commands, flags, manifest, smoke, steps
from enginebuild.flags import RUN
from enginebuild.spec import SPECS, load
from enginebuild.toolbox import Toolbox

pytestmark = pytest.mark.slow

BUILD = "llama-3.1-8b.h100-sxm.fp8.throughput"
TWO_GPUS = "llama-3.3-70b.h100-sxm-x2.fp8.throughput"
LLMAPI = "llama-3.1-8b.h100-sxm.bf16.llmapi"


@pytest.fixture
def make(tmp_path):
    def made(build_id=BUILD, **changed):
        told = []
        settings = {
            "repository": tmp_path / "models",
            "scratch": tmp_path / "scratch",
            "weights": standing.checkpoint(tmp_path / "weights", build_id.partition(".h")[0]),
            "toolbox": standing.toolbox(tmp_path / "bin"),
            "progress": told.append,
        }
        return build(build_id, **(settings | changed)), told

    return made


@pytest.mark.parametrize("build_id", [BUILD, TWO_GPUS, LLMAPI])
def test_what_is_installed_has_decoded_and_the_output_says_by_what(make, build_id):
    _, told = make(build_id)
    said = [line for line in told if line.startswith("smoke: 8 tokens by ")]
    assert len(said) == 1, told
    assert "stand-ins of TensorRT-LLM, which compile and decode nothing" in said[0]
    assert told.index(said[0]) < next(i for i, one in enumerate(told) if "installing" in one)


@pytest.mark.parametrize(
    ("build_id", "variable", "value", "said"),
    [
        (BUILD, "STANDIN_FAIL", "run.py", "engine plan cannot be deserialised"),
        (LLMAPI, "STANDIN_FAIL", "LLM", "CUDA out of memory"),
        (BUILD, "STANDIN_DECODES", "999999", "it decoded .*999999.* and tokens are 0 to 128255"),
    ],
)
def test_one_that_does_not_generate_is_not_installed_and_not_made_again(
    tmp_path, make, monkeypatch, build_id, variable, value, said
):
    serves, _ = make(build_id, weights=standing.checkpoint(tmp_path / "old", "llama-3.1-8b"))
    weights = standing.checkpoint(tmp_path / "new", "llama-3.1-8b")
    (weights / "model.safetensors").write_bytes(b"fine-tuned")
    monkeypatch.setenv(variable, value)
    with pytest.raises(BuildError, match=said) as told:
        make(build_id, weights=weights)
    assert "what serves was left alone" in str(told.value)
    assert manifest.verify(serves.engine) == serves.digest
    monkeypatch.delenv(variable)
    again, told = make(build_id, weights=weights)
    assert again.digest != serves.digest
    assert [line for line in told if "done in" in line] == [told[-2]]
    assert told[-2].startswith("smoke: done in")


def test_it_can_be_left_out(make, monkeypatch):
    monkeypatch.setenv("STANDIN_FAIL", "run.py")
    built, told = make(tried=False)
    assert manifest.verify(built.engine) == built.digest
    assert not [line for line in told if line.startswith("smoke")]


def test_runs_options_are_the_tools_own():
    words = argv.run(Path("/e"), Path("/t"), Path("/o.csv"), "hello there", 8)
    said = flags.parse(RUN, words)
    assert (said["engine_dir"], said["tokenizer_dir"]) == ("/e", "/t")
    assert said["max_output_len"] == 8
    assert said["top_k"] == 1
    assert said["kv_cache_free_gpu_memory_fraction"] < 0.5, "it may share its GPU with what serves"


@pytest.mark.parametrize(("gpus", "ranks"), [(1, ()), (2, ("mpirun", "-n", "2"))])
def test_a_rank_for_each_gpu(gpus, ranks):
    assert Toolbox(examples=Path("/x")).run(gpus) == (*ranks, "python3", "/x/run.py")


def test_packaged_weights_are_found_in_tritons_environment(tmp_path):
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "weights"
    package.mkdir(parents=True)
    assert Toolbox(environment=tmp_path).packaged("weights") == package
    assert Toolbox(environment=tmp_path).packaged("others") is None


def tried_embedded(tmp_path, environment):
    """Run the embedded engine's smoke on a package that has a tokenizer and nothing else."""
    spec = load("smollm2-135m-instruct.cpu-x86")
    package = tmp_path / "package"
    package.mkdir()
    standing.write_tokenizer(package / "tokenizer.json", 2_000)
    step = smoke.step(spec, Toolbox(environment=environment), Path("model_repository"), SPECS)
    step.make(steps.Site(tmp_path, {"package": package}, tmp_path / "log", "key", print))


def test_the_embedded_engine_needs_its_environment(tmp_path):
    with pytest.raises(BuildError, match="which runs the embedded engine, is missing: make venv"):
        tried_embedded(tmp_path, tmp_path / "none")


def test_an_engine_that_hangs_is_stopped(tmp_path, monkeypatch):
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho loading\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(smoke, "EMBEDDED_S", 0.3)
    began_s = time.monotonic()
    with pytest.raises(BuildError, match=r"took longer than 0 s and was stopped(.|\n)*loading"):
        tried_embedded(tmp_path, tmp_path / "environment")
    assert time.monotonic() - began_s < 10


def test_a_command_in_time_is_not_stopped(tmp_path):
    commands.run([shutil.which("true"), "x"], tmp_path / "log", print, 30)
