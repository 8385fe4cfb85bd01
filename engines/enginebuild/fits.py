"""The nearest ask that works, where one does not: what a refusal ends with."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from enginebuild import goals
from enginebuild.ask import Ask
from enginebuild.goals import Goal
from enginebuild.performance import Workload
from enginebuild.precision import BY_FAITHFULNESS
from enginebuild.rules import machine_refusals, refusals
from enginebuild.spec import SPECS, known, load_sku

GPUS = (1, 2, 4, 8)


def smallest_fits(ask: Ask, goal: Goal, workload: Workload, specs: Path = SPECS) -> str:
    """Return the smallest builds that would hold the model, as part of a sentence, or nothing.

    Two are named where both exist: on the SKU asked for, the fewest GPUs and then the most
    faithful precision; and of the other SKUs the one of least memory, on as few GPUs.
    """
    found = [
        next(_on_more(ask, goal, workload), ""),
        next(_elsewhere(ask, goal, workload, specs), ""),
    ]
    named = [one for one in found if one]
    return f"Smallest fit: {'; or '.join(named)}" if named else ""


def works(ask: Ask, goal: Goal, workload: Workload) -> bool:
    """Say whether at least one whole request of the workload fits, and nothing else refuses."""
    if machine_refusals(ask):
        return False
    return not refusals(goals.limited(ask, goal, workload, workload.tokens))


def _on_more(ask: Ask, goal: Goal, workload: Workload) -> Iterator[str]:
    for gpus in (n for n in GPUS if n >= ask.gpus):
        for precision in _precisions(ask):
            wider = replace(ask, gpus=gpus, tp=gpus, pp=1, precision=precision)
            if works(wider, goal, workload):
                yield f"--sku {ask.sku_id} --gpus {gpus} --precision {precision}"


def _elsewhere(ask: Ask, goal: Goal, workload: Workload, specs: Path) -> Iterator[str]:
    skus = [(name, load_sku(name, specs)) for name in known("skus", specs) if name != ask.sku_id]
    by_memory = sorted((sku.gpu.memory_gib, name, sku) for name, sku in skus if sku.gpu)
    for gpus, (_, name, sku) in itertools.product(GPUS, by_memory):
        there = replace(ask, sku=sku, sku_id=name, gpus=gpus, tp=gpus, pp=1)
        for precision in _precisions(there):
            if works(replace(there, precision=precision), goal, workload):
                yield f"--sku {name} --gpus {gpus} --precision {precision}"


def _precisions(ask: Ask) -> list[str]:
    """Return what the SKU has, from the precision asked for to smaller ones."""
    first = BY_FAITHFULNESS.index(ask.precision) if ask.precision in BY_FAITHFULNESS else 0
    order = [*BY_FAITHFULNESS[first:], *BY_FAITHFULNESS[:first][::-1]]
    return [one for one in order if one in ask.sku.precisions]
