"""Each rule: the ask that breaks it and the one next to it that does not."""

from dataclasses import replace

import pytest

from enginebuild import rules
from enginebuild.ask import Ask
from enginebuild.plan import Plan, Question, Refused, plan
from enginebuild.precision import BY_FAITHFULNESS, PRECISIONS, allowed
from enginebuild.rules import refusals
from enginebuild.spec import known, load_model, load_sku
from enginebuild.workshop import needed, workshop_refusals


def asked(model="llama-3.1-8b", sku="h100-sxm", precision="fp8", **changed):
    return Ask(model, load_model(model), sku, load_sku(sku), precision, **changed)


def names(ask):
    return {refusal.rule for refusal in refusals(ask)}


@pytest.mark.parametrize(
    ("why", "ask", "rule"),
    [
        ("as it should be", asked(), None),
        ("a CPU has no figures", asked(sku="cpu-x86"), "sku-figures"),
        ("no such precision", asked(precision="fp7"), "precision-known"),
        ("Ampere has no FP8", asked(sku="a10g"), "precision-sm"),
        ("Ampere has no FP8", asked(sku="a100-80"), "precision-sm"),
        ("Ada has FP8", asked(sku="l4"), None),
        ("Hopper has no FP4", asked(precision="nvfp4"), "precision-sm"),
        ("Blackwell has FP4", asked(sku="b200", precision="nvfp4"), None),
        ("Blackwell has no AWQ kernels", asked(sku="b200", precision="int4_awq"), "precision-sm"),
        ("W4A8 needs FP8", asked(sku="a100-80", precision="w4a8_awq"), "precision-sm"),
        ("no FP4 engine of Qwen", asked("qwen3-8b", "b200", "nvfp4"), "nvfp4-families"),
        ("PyTorch has one", asked("qwen3-8b", "b200", "nvfp4", output="llmapi"), None),
        ("an FP4 engine of Mixtral", asked("mixtral-8x7b", "b200", "nvfp4"), None),
        ("gpt-oss is no engine", asked("gpt-oss-20b", precision="w4a16_mxfp4"), "engine-flow"),
        (
            "gpt-oss in PyTorch",
            asked("gpt-oss-20b", precision="w4a16_mxfp4", output="llmapi"),
            None,
        ),
        ("MXFP4 is not widened", asked("gpt-oss-20b", output="llmapi"), "precision-published"),
        (
            "MXFP4 is not made",
            asked(precision="w4a16_mxfp4", output="llmapi"),
            "precision-published",
        ),
        ("more ranks than GPUs", asked(tp=2), "gpu-count"),
        ("more GPUs than ranks", asked(gpus=2), "gpu-count"),
        ("two GPUs", asked(gpus=2, tp=2), None),
        ("more than a machine holds", asked(gpus=16, tp=16), "gpu-count"),
        ("no GPUs", asked(gpus=0), "gpu-count"),
        ("nine heads by two", asked("smollm2-135m-instruct", gpus=2, tp=2), "head-split"),
        ("nine heads by three", asked("smollm2-135m-instruct", gpus=3, tp=3), None),
        ("32 layers by three", asked(gpus=3, tp=1, pp=3), "head-split"),
        ("chunks without paged FMHA", asked(paged_context_fmha=False), "chunked-context"),
        ("chunks without a paged cache", asked(paged_kv_cache=False), "chunked-context"),
        ("no chunks", asked(paged_context_fmha=False, chunked_context=False), None),
        (
            "profiles and an optimum",
            asked(multiple_profiles=True, opt_num_tokens=64),
            "multiple-profiles",
        ),
        ("profiles", asked(multiple_profiles=True), None),
        (
            "a prompt longer than a step",
            asked(chunked_context=False, max_input_len=9000, max_seq_len=10000),
            "whole-prompt",
        ),
        ("the same in chunks", asked(max_input_len=9000, max_seq_len=10000), None),
        (
            "a prompt as long as a step",
            asked(chunked_context=False, max_input_len=8192, max_seq_len=10000),
            None,
        ),
        ("beyond training", asked(max_seq_len=131073), "context-length"),
        ("as trained", asked(max_seq_len=131072), None),
        ("no room to answer", asked(max_input_len=2048, max_seq_len=2048), "context-length"),
        (
            "plugins on SM100",
            asked(sku="b200", plugins=frozenset({"gemm_swiglu_plugin"})),
            "plugins-sm100",
        ),
        ("plugins on SM90", asked(plugins=frozenset({"gemm_swiglu_plugin"})), None),
        ("too large", asked("llama-3.3-70b", "l4"), "weights-memory"),
        ("a pool under one sequence", asked("llama-3.3-70b", max_seq_len=131072), "kv-pool"),
        ("a pool over one sequence", asked("llama-3.3-70b", max_seq_len=4096), None),
    ],
)
def test_a_rule_refuses_what_breaks_it_and_nothing_else(why, ask, rule):
    assert names(ask) == ({rule} if rule else set()), why


@pytest.mark.parametrize(
    ("sm", "has", "has_not"),
    [
        (80, {"bf16", "int8_sq", "int4_awq"}, {"fp8", "w4a8_awq", "nvfp4"}),
        (86, {"bf16", "int8_sq", "int4_awq"}, {"fp8", "w4a8_awq", "nvfp4"}),
        (89, {"fp8", "int4_awq", "w4a8_awq"}, {"nvfp4", "w4a8_mxfp4", "w4a16_mxfp4"}),
        (90, {"fp8", "int4_awq", "w4a8_awq", "w4a16_mxfp4"}, {"nvfp4"}),
        (100, {"fp8", "nvfp4", "w4a8_mxfp4"}, {"int4_awq", "w4a8_awq"}),
        (120, {"fp8", "nvfp4", "w4a8_mxfp4"}, {"int4_awq", "w4a8_awq"}),
    ],
)
def test_the_table_of_precision_against_sm(sm, has, has_not):
    assert has <= set(allowed(sm))
    assert not has_not & set(allowed(sm))


def test_every_precision_has_a_place_in_the_order():
    assert set(BY_FAITHFULNESS) == set(PRECISIONS)


def test_every_refusal_says_why_and_whence_and_a_way_out():
    broken = (
        asked(sku="a10g"),
        asked("qwen3-8b", "b200", "nvfp4"),
        asked(tp=2),
        asked("smollm2-135m-instruct", gpus=2, tp=2),
        asked(paged_context_fmha=False),
        asked(multiple_profiles=True, opt_num_tokens=64),
        asked(chunked_context=False, max_input_len=9000, max_seq_len=10000),
        asked(max_seq_len=131073),
    )
    for refusal in (one for ask in broken for one in refusals(ask)):
        assert refusal.reason
        assert refusal.source
        assert refusal.nearest
        assert refusal.sentence().count("..") == 0


def test_all_reasons_are_told_at_once():
    ask = asked(sku="a10g", tp=2, paged_context_fmha=False)
    assert {"precision-sm", "gpu-count", "chunked-context"} <= names(ask)


@pytest.mark.parametrize("rule", rules.FIRST + rules.MACHINE + rules.LIMITS)
def test_a_rule_is_silent_on_a_sound_ask(rule):
    assert rule(asked()) is None


@pytest.mark.parametrize(
    ("model", "sku", "nearest"),
    [
        ("llama-3.3-70b", "l4", ("--sku l4 --gpus", "--gpus 1")),
        ("llama-3.1-405b", "h100-sxm", ("--sku h100-sxm --gpus 4",)),
        ("llama-3.1-405b", "a10g", ("--sku h200 --gpus 2",)),
        ("mixtral-8x7b", "a10g", ("--sku a10g --gpus", "--gpus 1")),
    ],
)
def test_what_does_not_fit_names_what_does(model, sku, nearest):
    found = plan(Question(model, sku))
    assert isinstance(found, Refused)
    (refusal,) = found.refusals
    assert refusal.rule == "weights-memory"
    for part in nearest:
        assert part in refusal.nearest


@pytest.mark.parametrize("model", ["llama-3.3-70b", "llama-3.1-405b", "mixtral-8x7b"])
@pytest.mark.parametrize("sku", [sku for sku in known("skus") if sku != "cpu-x86"])
def test_the_nearest_build_is_one_that_works(model, sku):
    found = plan(Question(model, sku))
    if isinstance(found, Plan):
        return
    for refusal in found.refusals:
        for option in refusal.nearest.removeprefix("Smallest fit: ").split("; or "):
            words = option.split()
            again = Question(model, words[1], words[5], gpus=int(words[3]))
            assert isinstance(plan(again), Plan), option


def test_calibration_needs_the_sixteen_bit_model_on_the_gpus():
    (refusal,) = workshop_refusals(asked("llama-3.3-70b", "h200"))
    assert refusal.rule == "build-gpu-memory"
    assert "Quantise on 2 x h200" in refusal.nearest
    assert workshop_refusals(asked("llama-3.3-70b", "h200", gpus=2, tp=2)) == ()
    assert workshop_refusals(asked()) == ()


def test_conversion_needs_the_checkpoint_in_host_memory():
    ask = asked()
    least = needed(ask).host_bytes / (1 << 30)
    assert workshop_refusals(ask, host_memory_gib=least + 1) == ()
    (refusal,) = workshop_refusals(ask, host_memory_gib=least - 1)
    assert refusal.rule == "build-host-memory"


def test_published_weights_are_not_calibrated():
    ask = replace(asked("gpt-oss-20b", precision="w4a16_mxfp4"), output="llmapi")
    assert not needed(ask).calibrates
