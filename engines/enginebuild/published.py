"""Published throughput: the rows, how each was run, and what the roofline says of that run."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from enginebuild import capacity, replay
from enginebuild.capacity import Deployment
from enginebuild.precision import PRECISIONS
from enginebuild.roofline import FITTED, Constants, Roofline
from enginebuild.spec import SPECS, Model, Sku, load_model, load_sku
from enginebuild.strict import Positive, PositiveNumber, Strict, read_file, read_named

VALIDATION = SPECS / "validation"
KV_FRACTION = 0.95  # "in many cases we also use": both published pages

Shape = Annotated[str, Field(pattern=r"^\d+,\d+$")]


class Table(Strict):
    """One table of a published page: a model in one layout, by SKU and shape of request."""

    source: str
    model: str
    precision: str
    layout: Literal["tp", "dep"]
    tp: Positive
    pp: Positive
    per: Literal["replica", "gpu"]
    fitted: Literal["dense", "moe", "no"]
    skus: tuple[str, ...]
    tokens_per_s: dict[Shape, tuple[PositiveNumber | None, ...]]

    @model_validator(mode="after")
    def _one_figure_per_sku(self) -> Self:
        for shape, figures in self.tokens_per_s.items():
            if len(figures) != len(self.skus):
                msg = f"{shape} has {len(figures)} figures for {len(self.skus)} SKUs"
                raise ValueError(msg)
        return self


class Published(Strict):
    """All tables, and the number of requests each shape was run with."""

    requests: dict[Shape, Positive]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure. `tokens_per_s` is of the whole replica, whatever was printed."""

    table: Table
    sku: str
    input_tokens: int
    output_tokens: int
    requests: int
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """The limits a published run was served under, as far as they can be worked out."""

    max_batch_size: int
    max_num_tokens: int
    in_flight: int


def rows(path: Path = VALIDATION / "published.yaml") -> Iterator[Row]:
    """Yield every published figure, in the file's order."""
    published = read_file(path, Published)
    for table in published.tables:
        scale = table.tp * table.pp if table.per == "gpu" else 1
        for shape, figures in table.tokens_per_s.items():
            input_tokens, output_tokens = (int(part) for part in shape.split(","))
            for sku, figure in zip(table.skus, figures, strict=True):
                if figure is not None:
                    requests = published.requests[shape]
                    yield Row(table, sku, input_tokens, output_tokens, requests, figure * scale)


@functools.cache
def sku_of(name: str) -> Sku:
    """Return a SKU of ours, or one that only published tables know."""
    if (VALIDATION / "skus" / f"{name}.yaml").is_file():
        return read_named(VALIDATION / "skus", name, Sku)
    return load_sku(name)


@functools.cache
def _model(name: str) -> Model:
    return load_model(name)


def deployment(row: Row) -> Deployment:
    """Return what the row ran on."""
    gpu = sku_of(row.sku).gpu
    assert gpu is not None, "published figures are of GPUs"
    table = row.table
    network = _model(table.model).architecture
    return Deployment(network, gpu, PRECISIONS[table.precision], table.tp, table.pp)


def served(row: Row, of: Deployment) -> Served:
    """Return the limits that `trtllm-bench` picks for a run, and the sequences it can hold.

    It takes the KV cache as 95 % of the memory beside the weights, caps the batch at 4096,
    rounds up, and sizes a step for the mean share of prompts, at least 2048 tokens
    (tensorrt_llm/bench/build/tuning.py). A whole prompt must also fit beside the batch.
    """
    length = row.input_tokens + row.output_tokens
    spare = of.gpu.memory_gib * capacity.GIB - capacity.weights_bytes(of)
    hoped = KV_FRACTION * spare / (capacity.kv_bytes_per_token(of) * length)
    batch = min(hoped, 4096) / of.pp
    tokens = min(batch * (1 + row.input_tokens / row.output_tokens), 32768)
    max_batch = _rounded_up(batch, ((256, 32), (1024, 128), (math.inf, 256)), least=64)
    max_tokens = _rounded_up(tokens, ((4096, 256), (8192, 512), (math.inf, 1024)), least=2048)
    max_tokens = max(max_tokens, row.input_tokens + max_batch)
    pool = capacity.memory(
        of, max_num_tokens=max_tokens, max_batch_size=max_batch, kv_fraction=KV_FRACTION
    ).kv_pool
    held = capacity.sequences(capacity.blocks(of, pool), length)
    return Served(max_batch, max_tokens, min(held, max_batch * of.pp))


def predicted_tokens_per_s(row: Row, constants: Constants = FITTED) -> float | None:
    """Return our figure for that run, or None for a layout that is not modelled."""
    if row.table.layout != "tp":
        return None
    of = deployment(row)
    limits = served(row, of)
    if limits.in_flight < 1:
        return None
    run = replay.Run(
        row.input_tokens,
        row.output_tokens,
        row.requests,
        limits.in_flight,
        limits.max_num_tokens * of.pp,
        padded=True,
    )
    took = replay.seconds(run, Roofline(of, constants))
    return row.requests * row.output_tokens / took


def _rounded_up(value: float, steps: tuple[tuple[float, int], ...], least: int) -> int:
    step = next(size for limit, size in steps if value < limit)
    return max(least, step * math.ceil(value / step))
