"""The three kinds of spec file — models, SKUs, builds — read strictly.

A key nobody knows, a name that does not exist and a value out of range are errors at the
line they stand on: `FILE:LINE:COL: message; did you mean NAME?`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pydantic import model_validator

from enginebuild.errors import SpecError
from enginebuild.gpu_spec import GpuBuild, GpuSpec
from enginebuild.model_spec import (
    Architecture,
    GgufModel,
    GgufSource,
    HuggingFaceSource,
    Model,
    SpecialTokens,
)
from enginebuild.sku_spec import Gpu, Sku
from enginebuild.strict import Positive, Sha256, StepSeconds, Strict, read_choice, read_named

__all__ = [
    "SPECS",
    "Architecture",
    "Build",
    "BuildSpec",
    "EngineSpec",
    "GgufModel",
    "GgufSource",
    "Gpu",
    "GpuBuild",
    "GpuSpec",
    "HuggingFaceSource",
    "KvCache",
    "Limits",
    "Model",
    "Positive",
    "Sha256",
    "Sku",
    "SpecialTokens",
    "Strict",
    "known",
    "load",
    "load_model",
    "load_sku",
]

SPECS = Path(__file__).resolve().parents[1]


class Limits(Strict):
    """What the engine accepts. Lengths in tokens, `max_num_tokens` in tokens of one step."""

    max_batch_size: Positive
    max_queue_size: Positive
    max_num_tokens: Positive
    max_input_len: Positive
    max_seq_len: Positive

    @model_validator(mode="after")
    def _room_to_answer(self) -> Self:
        if self.max_input_len >= self.max_seq_len:
            msg = (
                f"max_input_len {self.max_input_len} leaves no token to generate "
                f"within max_seq_len {self.max_seq_len}"
            )
            raise ValueError(msg)
        return self


class KvCache(Strict):
    """The paged cache: its block size in tokens, and how many blocks there are."""

    tokens_per_block: Positive
    blocks: Positive


class Build(Strict):
    """One engine: a model for a SKU, under limits, made by one builder."""

    model: str
    sku: str
    builder: Literal["openvino"]
    profile: Literal["fast", "accurate"]
    limits: Limits
    kv_cache: KvCache
    openvino: dict[str, str | int]
    step_s: StepSeconds | None = None

    @model_validator(mode="after")
    def _longest_sequence_fits(self) -> Self:
        pool = self.kv_cache.blocks * self.kv_cache.tokens_per_block
        if pool < self.limits.max_seq_len:
            msg = (
                f"kv_cache holds {pool} tokens, fewer than one sequence of "
                f"max_seq_len {self.limits.max_seq_len}"
            )
            raise ValueError(msg)
        return self


class BuildSpec(Strict):
    """A build with the model and SKU it names."""

    build_id: str
    build: Build
    model: GgufModel
    sku: Sku


EngineSpec = BuildSpec | GpuSpec
SHAPES: Mapping[str, type[Build] | type[GpuBuild]] = MappingProxyType(
    {"openvino": Build, "trtllm": GpuBuild, "llmapi": GpuBuild}
)


def load(build_id: str, specs: Path = SPECS) -> EngineSpec:
    """Return the build of that id with its model and SKU; its `builder` says which kind it is.

    Raises:
        SpecError: naming file, line and column, with the nearest known name.
    """
    build = read_choice(specs / "builds", build_id, "builder", SHAPES)
    named = load_model(build.model, specs)
    sku = load_sku(build.sku, specs)
    if isinstance(build, GpuBuild):
        return GpuSpec(build_id=build_id, build=build, model=named, sku=sku)
    return _embedded(build_id, build, named, sku, specs)


def _embedded(build_id: str, build: Build, named: Model, sku: Sku, specs: Path) -> BuildSpec:
    if not isinstance(named.source, GgufSource):
        raise SpecError(
            f"{specs / 'builds' / build_id}.yaml: builder {build.builder} takes a gguf package, "
            f"and {build.model} comes from {named.source.kind}"
        )
    model = GgufModel.model_validate(named.model_dump())
    if build.limits.max_seq_len > model.architecture.context_length:
        raise SpecError(
            f"{specs / 'builds' / build_id}.yaml: max_seq_len {build.limits.max_seq_len} is beyond "
            f"the {model.architecture.context_length} tokens {build.model} was trained for"
        )
    precision = build.openvino.get("INFERENCE_PRECISION_HINT")
    if precision is not None and precision not in sku.precisions:
        raise SpecError(
            f"{specs / 'builds' / build_id}.yaml: {build.sku} has no precision {precision}; "
            f"it has {', '.join(sku.precisions)}"
        )
    return BuildSpec(build_id=build_id, build=build, model=model, sku=sku)


def load_model(model_id: str, specs: Path = SPECS) -> Model:
    """Return the model of that id.

    Raises:
        SpecError: if there is none, or its file is wrong.
    """
    return read_named(specs / "models", model_id, Model)


def load_sku(sku_id: str, specs: Path = SPECS) -> Sku:
    """Return the SKU of that id.

    Raises:
        SpecError: if there is none, or its file is wrong.
    """
    return read_named(specs / "skus", sku_id, Sku)


def known(kind: Literal["builds", "models", "skus"], specs: Path = SPECS) -> tuple[str, ...]:
    """Return the ids of that kind, sorted: a spec's id is its file's name."""
    return tuple(sorted(path.stem for path in (specs / kind).glob("*.yaml")))
