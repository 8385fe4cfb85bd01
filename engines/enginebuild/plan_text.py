"""A plan as a person reads it, and as a program does."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from enginebuild.ask import Refusal
from enginebuild.capacity import GIB
from enginebuild.measured import Estimate
from enginebuild.plan import Plan, Refused

KIB = 1 << 10


def as_json(found: Plan | Refused, measured: Estimate | str | None = None) -> dict[str, Any]:
    """Return one object of plain values; `planned` tells a plan from a refusal."""
    if isinstance(found, Refused):
        return {
            "planned": False,
            "model": found.model,
            "sku": found.sku,
            "precision": found.precision,
            "gpus": found.gpus,
            "refusals": [_refusal(one) for one in found.refusals],
        }
    body = dataclasses.asdict(found)
    body["planned"] = True
    body["build_refusals"] = [_refusal(one) for one in found.build_refusals]
    body["expected"] = dataclasses.asdict(found.chosen)
    if isinstance(measured, Estimate):
        body["aiconfigurator"] = dataclasses.asdict(measured)
    elif measured is not None:
        body["aiconfigurator"] = {"absent": measured}
    return body


def as_text(plan: Plan, measured: Estimate | str | None = None) -> str:
    """Return the plan in lines of at most 100 columns."""
    parts = (_head(plan), _memory(plan), _limits(plan), _points(plan), _curves(plan))
    lines = [line for part in parts for line in (*part, "")]
    lines.extend(_beside(plan, measured))
    lines.extend(f"To build it: {one.sentence()}" for one in plan.build_refusals)
    return "\n".join(lines).rstrip()


def _refusal(one: Refusal) -> dict[str, str]:
    return {**dataclasses.asdict(one), "sentence": one.sentence()}


def _head(plan: Plan) -> Iterator[str]:
    gpus = f"{plan.gpus} GPU" + ("s" if plan.gpus > 1 else "")
    layout = f"{gpus}, tp {plan.tp}, pp {plan.pp}"
    yield f"{plan.model} on {plan.sku} ({plan.sku_name}), {layout}"
    shape = plan.workload
    yield (
        f"{plan.precision}, output {plan.output}, goal {plan.goal}; requests of "
        f"{shape.input_tokens} tokens in, {shape.output_tokens} out"
    )


def _memory(plan: Plan) -> Iterator[str]:
    held, cache = plan.memory, plan.cache
    yield "memory of each GPU"
    for name, size in (
        ("weights", held.weights),
        ("activations", held.activations),
        ("runtime", held.runtime),
        ("KV pool", held.kv_pool),
        ("total", held.total),
    ):
        note = ""
        if name == "KV pool":
            note = (
                f"  {cache.bytes_per_token / KIB:g} KiB a token, {cache.blocks} blocks, "
                f"{cache.tokens} tokens"
            )
        yield f"  {name:<12}{size / GIB:8.2f} GiB{note}"


def _limits(plan: Plan) -> Iterator[str]:
    limits = plan.limits
    yield "limits"
    yield f"  max_batch_size {limits.max_batch_size}, max_num_tokens {limits.max_num_tokens}"
    yield (
        f"  max_input_len {limits.max_input_len}, max_seq_len {limits.max_seq_len} "
        f"(the longest that fits: {plan.cache.longest_tokens})"
    )
    yield (
        f"  kv_cache_free_gpu_mem_fraction {limits.kv_fraction:.2f}, "
        f"tokens_per_block {limits.tokens_per_block}"
    )


def _points(plan: Plan) -> Iterator[str]:
    yield "  batch     TTFT ms     TPOT ms    tokens/s  bound by"
    for one in plan.points:
        yield (
            f"{one.batch:7d}{one.ttft_ms:12.1f}{one.tpot_ms:12.2f}{one.tokens_per_s:12.0f}"
            f"  {one.bound}"
        )


def _curves(plan: Plan) -> Iterator[str]:
    yield "  precision     most tokens/s   at batch     TPOT ms   (each at its largest batch)"
    for curve in plan.curves:
        last = curve.points[-1]
        mark = " <- planned" if curve.precision == plan.precision else ""
        yield (
            f"  {curve.precision:<14}{last.tokens_per_s:13.0f}{last.batch:11d}"
            f"{last.tpot_ms:12.2f}{mark}"
        )


def _beside(plan: Plan, measured: Estimate | str | None) -> Iterator[str]:
    if isinstance(measured, Estimate):
        ours = plan.chosen
        yield (
            f"aiconfigurator {measured.version} at batch {measured.batch}: "
            f"TTFT {measured.ttft_ms:.1f} ms, TPOT {measured.tpot_ms:.2f} ms, "
            f"{measured.tokens_per_s:.0f} tokens/s (ours {ours.tokens_per_s:.0f})"
        )
    elif measured is not None:
        yield measured
