"""Every command line that is emitted is one the tool accepts, and says what the plan says."""

import shutil
from pathlib import Path

import pytest

from enginebuild import argv, flags
from enginebuild.flags import BUILD, CONVERT, QUANTIZE, FlagError
from enginebuild.planned import RefusedBuildError, planned
from enginebuild.spec import SPECS, GpuSpec, known, load

GPU_BUILDS = [name for name in known("builds") if isinstance(load(name), GpuSpec)]
ENGINES = [name for name in GPU_BUILDS if load(name).build.builder == "trtllm"]
MODEL, CHECKPOINT, ENGINE = Path("/in/model"), Path("/scratch/checkpoint"), Path("/scratch/engine")


@pytest.mark.parametrize("name", GPU_BUILDS)
def test_every_shipped_build_is_planned_and_accepted(name):
    build = planned(load(name))
    if argv.route(build) == "none":
        assert build.plan.output == "llmapi"
        return
    if argv.route(build) == "convert":
        said = flags.parse(CONVERT, argv.convert(build, MODEL, CHECKPOINT))
    else:
        said = flags.parse(QUANTIZE, argv.quantize(build, MODEL, CHECKPOINT))
    assert (said["tp_size"], said["pp_size"]) == (build.plan.tp, build.plan.pp)
    assert said["model_dir"] == str(MODEL)
    assert said["output_dir"] == str(CHECKPOINT)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_built_with_the_limits_of_its_plan(name):
    build = planned(load(name))
    said = flags.parse(BUILD, argv.trtllm_build(build, CHECKPOINT, ENGINE))
    for key in ("max_batch_size", "max_num_tokens", "max_input_len", "max_seq_len"):
        assert said[key] == getattr(build.limits, key), key
    assert said["kv_cache_type"] == "paged"
    assert said["use_paged_context_fmha"] == "enable"
    assert said["context_fmha"] == said["remove_input_padding"] == "enable"
    assert not (said["multiple_profiles"] == "enable" and said["opt_num_tokens"])
    assert build.kv_tokens >= build.limits.max_seq_len


@pytest.mark.parametrize("name", ENGINES)
def test_the_cache_has_the_width_the_plan_counted(name):
    build = planned(load(name))
    if argv.route(build) == "convert":
        assert build.precision.kv_bytes == 2
        return
    said = flags.parse(QUANTIZE, argv.quantize(build, MODEL, CHECKPOINT))
    assert (said["kv_cache_dtype"] is not None) == (build.precision.kv_bytes == 1)


@pytest.mark.parametrize(
    ("why", "tool", "words", "said"),
    [
        ("a misspelt flag", BUILD, ["--max_batchsize", "8"], "did you mean max_batch_size"),
        ("no abbreviations", BUILD, ["--max_batch", "8"], "unknown option"),
        ("a flag of older releases", BUILD, ["--auto_parallel", "2"], "unknown option"),
        ("a switch is no boolean", BUILD, ["--context_fmha", "true"], "none of enable, disable"),
        ("a plugin's type", BUILD, ["--gemm_plugin", "int8"], "none of auto, float16"),
        ("a number", BUILD, ["--max_seq_len", "4k"], "is no int"),
        ("a value missing", BUILD, ["--max_seq_len", "--dry_run"], "needs a value"),
        ("twice", BUILD, ["--max_seq_len", "1", "--max_decoder_seq_len", "2"], "given twice"),
        ("a stray word", BUILD, ["engine"], "belongs to no option"),
        ("a flag takes nothing", CONVERT, ["--use_fp8", "enable"], "belongs to no option"),
        ("a format", QUANTIZE, ["--qformat", "mxfp4"], "none of nvfp4, fp8"),
        ("a cache", QUANTIZE, ["--kv_cache_dtype", "bf16"], "none of int8, fp8"),
        ("another tool's", CONVERT, ["--qformat", "fp8"], "unknown option"),
    ],
)
def test_the_stand_in_is_strict(why, tool, words, said):
    with pytest.raises(FlagError, match=said):
        flags.parse(tool, words)


def test_lists_and_defaults_are_read():
    said = flags.parse(BUILD, ["--lora_dir", "a", "b", "--dry_run"])
    assert said["lora_dir"] == ["a", "b"]
    assert said["dry_run"] is True
    assert said["strip_plan"] is False
    assert said["max_num_tokens"] == 8192


@pytest.fixture
def specs(tmp_path):
    for kind in ("builds", "models", "skus"):
        shutil.copytree(SPECS / kind, tmp_path / kind)
    return tmp_path


@pytest.mark.parametrize(
    ("why", "name", "old", "new", "said"),
    [
        (
            "chunks without pages",
            ENGINES[0],
            "limits:",
            "switches: {use_paged_context_fmha: disable}\nlimits:",
            "chunked-context",
        ),
        (
            "two ways to profile",
            "llama-3.1-8b.h100-sxm.fp8.throughput",
            "multiple_profiles: enable",
            "multiple_profiles: enable\n  opt_num_tokens: '64'",
            "multiple-profiles",
        ),
        (
            "precision of another SM",
            "llama-3.1-8b.a10g.int4_awq.balanced",
            "int4_awq",
            "fp8",
            "precision-sm",
        ),
        (
            "a sequence beyond the pool",
            "llama-3.1-8b.l4.fp8.balanced",
            "max_seq_len: 8192",
            "max_seq_len: 131072\n  kv_fraction: 0.5",
            "kv-pool",
        ),
        (
            "ranks",
            "llama-3.3-70b.h100-sxm-x2.fp8.throughput",
            "tp: 2",
            "tp: 1\npp: 1",
            "gpu-count",
        ),
    ],
)
def test_a_build_that_cannot_work_is_refused_by_rule(specs, why, name, old, new, said):
    path = specs / "builds" / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RefusedBuildError, match=said):
        planned(load(name, specs), specs)


def test_a_switch_that_is_no_option_is_refused(specs):
    path = specs / "builds" / "llama-3.1-8b.h100-sxm.fp8.throughput.yaml"
    path.write_text(path.read_text().replace("multiple_profiles", "multiple_profile"))
    build = planned(load(path.stem, specs), specs)
    with pytest.raises(FlagError, match="did you mean multiple_profiles"):
        argv.trtllm_build(build, CHECKPOINT, ENGINE)


def test_a_builder_nobody_knows_is_refused_at_its_line(specs):
    path = specs / "builds" / f"{ENGINES[0]}.yaml"
    path.write_text(path.read_text().replace("builder: trtllm", "builder: trtlm"))
    with pytest.raises(Exception, match=r"\.yaml:4:1: no builder 'trtlm'; did you mean trtllm"):
        load(path.stem, specs)
