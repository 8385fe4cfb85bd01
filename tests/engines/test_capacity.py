"""What fits: the arithmetic, against figures worked out by hand and published ones."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebuild import capacity, goals
from enginebuild.ask import Ask
from enginebuild.capacity import GIB, Deployment
from enginebuild.performance import Workload, batches
from enginebuild.precision import PRECISIONS
from enginebuild.roofline import Roofline, Work
from enginebuild.spec import load_model, load_sku

model_of, sku_of = cache(load_model), cache(load_sku)
KIB = 1 << 10
SHAPE = Workload(1000, 1000)


def deployed(model="llama-3.1-8b", sku="h100-sxm", precision="fp8", tp=1, pp=1, memory_gib=None):
    gpu = sku_of(sku).gpu
    assert gpu is not None
    if memory_gib is not None:
        gpu = gpu.model_copy(update={"memory_gib": memory_gib})
    return Deployment(model_of(model).architecture, gpu, PRECISIONS[precision], tp, pp)


def asked(model="llama-3.1-8b", sku="h100-sxm", precision="fp8", gpus=1, memory_gib=None):
    of = sku_of(sku)
    if memory_gib is not None:
        gpu = of.gpu.model_copy(update={"memory_gib": memory_gib})
        of = of.model_copy(update={"gpu": gpu})
    return Ask(model, model_of(model), sku, of, precision, gpus=gpus, tp=gpus)


@pytest.mark.parametrize(
    ("model", "precision", "tp", "pp", "kib"),
    [
        # 2 * layers * KV heads * 128 * bytes; docs of NVIDIA's figures for the first six
        ("llama-3.1-8b", "bf16", 1, 1, 128),
        ("llama-3.1-8b", "fp8", 1, 1, 64),
        ("llama-3.3-70b", "bf16", 1, 1, 320),
        ("llama-3.3-70b", "fp8", 1, 1, 160),
        ("llama-3.1-405b", "bf16", 1, 1, 504),
        ("llama-3.1-405b", "fp8", 1, 1, 252),
        ("llama-3.3-70b", "fp8", 2, 1, 80),
        ("llama-3.3-70b", "fp8", 8, 1, 20),
        ("llama-3.3-70b", "fp8", 16, 1, 20),  # one KV head on each GPU at least
        ("llama-3.3-70b", "fp8", 2, 2, 40),
        ("gpt-oss-20b", "w4a16_mxfp4", 1, 1, 48),
        ("smollm2-135m-instruct", "bf16", 1, 1, 22.5),
    ],
)
def test_kv_bytes_of_a_token(model, precision, tp, pp, kib):
    of = deployed(model, precision=precision, tp=tp, pp=pp)
    assert capacity.kv_bytes_per_token(of) == kib * KIB


@pytest.mark.parametrize(
    ("model", "precision", "tp", "pp", "gigabytes"),
    [
        # linear weights * bytes + 16-bit embeddings, over the GPUs
        ("llama-3.1-8b", "bf16", 1, 1, 16.06),
        ("llama-3.1-8b", "fp8", 1, 1, 6.98 + 2.10),
        ("llama-3.3-70b", "fp8", 1, 1, 68.45 + 4.20),
        ("llama-3.3-70b", "fp8", 2, 1, (68.45 + 4.20) / 2),
        ("llama-3.3-70b", "int4_awq", 1, 1, 68.45 * 0.5156 + 4.20),
        ("llama-3.3-70b", "nvfp4", 1, 1, 68.45 * 0.5625 + 4.20),
        ("llama-3.3-70b", "fp8", 1, 2, (68.45 + 4.20) / 2),
        ("smollm2-135m-instruct", "bf16", 1, 1, 0.269),
        ("gpt-oss-20b", "w4a16_mxfp4", 1, 1, 13.74),
    ],
)
def test_weights_of_a_gpu(model, precision, tp, pp, gigabytes):
    of = deployed(model, precision=precision, tp=tp, pp=pp)
    assert capacity.weights_bytes(of) / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_a_pool_is_whole_blocks_of_what_is_left():
    of = deployed()
    held = capacity.memory(of, max_num_tokens=8192, max_batch_size=64, kv_fraction=0.9)
    assert held.free == held.total - held.weights - held.activations - held.runtime
    block = capacity.TOKENS_PER_BLOCK * capacity.kv_bytes_per_token(of)
    assert held.kv_pool % block == 0
    assert 0 <= held.free * 0.9 - held.kv_pool < block


def test_blocks_and_tokens_of_a_logged_server():
    """Legacy memory.md: 70.48 GiB free * 0.9 are 4060 blocks of 64 tokens at 256 KiB each."""
    pool = int(70.48 * 0.9 * GIB)
    assert pool // (64 * 256 * KIB) == pytest.approx(4060, abs=1)


memories = st.floats(min_value=4, max_value=300, allow_nan=False)
lengths = st.integers(min_value=1, max_value=20000)


@given(memories, memories, lengths, lengths)
def test_more_memory_never_fits_less(one, other, prompt, answer):
    less, more = sorted((one, other))
    shape = Workload(prompt, answer)
    small, large = (asked(memory_gib=gib) for gib in (less, more))
    assert goals.largest_batch(small, shape) <= goals.largest_batch(large, shape)
    assert goals.longest_sequence(small) <= goals.longest_sequence(large)


@given(
    st.integers(1, 32768),
    st.integers(1, 4096),
    st.floats(0.1, 0.9, allow_nan=False),
    memories,
)
def test_the_pool_shrinks_with_what_is_beside_it(tokens, batch, fraction, gib):
    of = deployed(memory_gib=gib)

    def pool(**changed):
        limits = {"max_num_tokens": tokens, "max_batch_size": batch, "kv_fraction": fraction}
        return capacity.memory(of, **{**limits, **changed}).kv_pool

    assert pool(max_num_tokens=tokens + 1024) <= pool()
    assert pool(max_batch_size=batch + 64) <= pool()
    assert pool(kv_fraction=fraction + 0.1) >= pool()
    assert pool() <= gib * GIB


@given(memories, lengths, lengths)
def test_the_largest_batch_fits_and_one_more_does_not(gib, prompt, answer):
    shape = Workload(prompt, answer)
    ask = asked(memory_gib=gib)
    largest = goals.largest_batch(ask, shape)

    def fits(batch):
        of = ask.deployment()
        held = capacity.memory(
            of,
            max_num_tokens=ask.max_num_tokens,
            max_batch_size=batch,
            kv_fraction=ask.kv_fraction,
        )
        return capacity.sequences(capacity.blocks(of, held.kv_pool), shape.tokens) >= batch

    assert largest == 0 or fits(largest)
    capped = {goals.LARGEST_BATCH, int(ask.max_num_tokens * answer // (prompt + answer)), 1}
    assert largest in capped or not fits(largest + 1)


@given(st.integers(1, 2000), st.integers(1, 30000), st.sampled_from(["fp8", "bf16", "int4_awq"]))
def test_a_larger_batch_never_lowers_throughput(batch, context, precision):
    """Each part of a step grows slower than the batch, so tokens a second never fall."""
    roofline = Roofline(deployed(precision=precision))

    def rate(size):
        return size / roofline.step(Work(0, 0, size, size * context, size)).total_s

    assert rate(batch + 1) >= rate(batch) * (1 - 1e-9)


@given(st.sampled_from([2, 4, 8]), st.integers(1, 512))
def test_splitting_shortens_the_step_but_not_below_its_share(tp, batch):
    work = Work(0, 0, batch, batch * 1000, batch)
    whole = Roofline(deployed("llama-3.3-70b", "h200")).step(work)
    split = Roofline(deployed("llama-3.3-70b", "h200", tp=tp)).step(work)
    assert split.memory_s + split.compute_s < whole.memory_s + whole.compute_s
    assert split.total_s > whole.total_s / tp
    assert split.communication_s > 0 == whole.communication_s


def test_one_sequence_is_bound_by_reading_the_weights():
    of = deployed("llama-3.3-70b", "h200")
    step = Roofline(of).step(Work(0, 0, 1, 1000, 1))
    fastest = capacity.weights_bytes(of) / (of.gpu.memory_tb_s * 1e12)
    assert step.bound == "memory"
    assert step.total_s > fastest


@pytest.mark.parametrize(("goal", "larger"), [("latency", "balanced"), ("balanced", "throughput")])
def test_a_goal_trades_latency_for_batch(goal, larger):
    small, large = (goals.limited(asked(), one, SHAPE) for one in (goal, larger))
    assert small.max_batch_size < large.max_batch_size
    (slow,) = goals.points(large, SHAPE, (large.max_batch_size,))
    (fast,) = goals.points(small, SHAPE, (small.max_batch_size,))
    assert fast.tpot_ms < slow.tpot_ms
    assert fast.tokens_per_s < slow.tokens_per_s


def test_a_goal_keeps_to_its_slowdown():
    ask = goals.limited(asked(), "latency", SHAPE)
    (alone,) = goals.points(ask, SHAPE, (1,))
    (full,) = goals.points(ask, SHAPE, (ask.max_batch_size,))
    slowdown = goals.PREFERENCES["latency"].slowdown
    assert slowdown is not None
    assert full.tpot_ms <= slowdown * alone.tpot_ms


def test_the_longest_sequence_is_what_the_model_was_trained_for_or_the_pool_holds():
    assert goals.limited(asked(), "balanced", SHAPE).max_seq_len == 131072
    tight = goals.limited(asked(sku="a10g", precision="bf16"), "balanced", SHAPE)
    assert 2000 < tight.max_seq_len < 131072
    assert tight.max_input_len == tight.max_seq_len - 1
    assert replace(tight, max_seq_len=1) != tight


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (11, (1, 2, 4, 8, 11))]
)
def test_batches_double_up_to_the_largest(largest, sizes):
    assert batches(largest) == sizes
