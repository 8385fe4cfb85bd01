"""A build for GPUs as steps: take the checkpoint, quantise or convert, compile, package.

`llmapi` goes the same way without the compiler: its package is the checkpoint itself with the
settings of TensorRT-LLM's PyTorch backend beside it.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from enginebuild import argv, checkpoint, from_gguf, machine, manifest, packing, render_gpu
from enginebuild.builders import openvino
from enginebuild.errors import WeightsError
from enginebuild.gpu_spec import GpuSpec
from enginebuild.job import PACKAGE, TEXT_MODELS, Job
from enginebuild.machine import Machine
from enginebuild.model_spec import GgufSource, HuggingFaceSource
from enginebuild.planned import Planned, planned
from enginebuild.steps import Site, Step
from enginebuild.toolbox import Toolbox

GPU_MODELS = Path(__file__).resolve().parents[2] / "triton_models"
"""Python models that only GPU builds serve."""
ANYWHERE = Path()
"""Stands for a step's folder in what a step is about: where it works changes nothing."""


def job(spec: GpuSpec, weights: Path | None, toolbox: Toolbox, specs: Path, sources: Path) -> Job:
    """Return the build as steps, after every rule has been asked.

    Raises:
        BuildError: if a rule refuses it, or this machine cannot make it.
    """
    build = planned(spec, specs)
    here = toolbox.machine()
    machine.require(here, build)
    found = _sources(build, weights, toolbox)
    first = tuple(step for step in found if step.result is not None)
    then = (*(step for step in found if step.result is None), *_made(build, here, toolbox))
    versions = dict(here.versions)
    configs = partial(render_gpu.configs, build, versions=versions)
    return Job(spec.build_id, first, then, configs, _python(build, sources))


def _python(build: Planned, sources: Path) -> dict[str, Path]:
    if build.plan.output == "llmapi":
        return {"tensorrt_llm": GPU_MODELS / "llmapi"}
    own = {model: sources / model for model in TEXT_MODELS}
    return {**own, "tensorrt_llm_bls": GPU_MODELS / "tensorrt_llm_bls"}


def _sources(build: Planned, weights: Path | None, toolbox: Toolbox) -> tuple[Step, ...]:
    """Return the steps that end with `take`, whose folder names the checkpoint and its content."""
    model, model_id = build.spec.model, build.plan.model
    if isinstance(model.source, GgufSource):
        return (_unpack(build, weights, model.source),)
    if weights is not None:
        checkpoint.files(weights)
        about = {"path": str(weights.resolve()), "stamps": checkpoint.stamps(weights)}
        taken = partial(packing.take, lambda _: weights.resolve(), model_id, model)
        return (Step("take", about, taken, packing.taken_content),)
    fetch = _fetch(model_id, model.source, toolbox)
    fetched = partial(packing.take, lambda site: site.made["fetch"], model_id, model)
    return fetch, Step("take", {}, fetched)


def _unpack(build: Planned, weights: Path | None, source: GgufSource) -> Step:
    """Return the step that writes a GGUF as a Hugging Face checkpoint."""

    def make(site: Site) -> None:
        gguf = openvino.locate(source, weights)
        site.tell(f"writing {gguf.name} as a checkpoint in bf16")
        openvino.check(source, gguf)
        into = site.folder / packing.UNPACKED
        into.mkdir()
        from_gguf.write(gguf, build.spec.model, into)
        packing.write_source(site.folder, into, checkpoint.content(into))

    code = Path(from_gguf.__file__).read_text(encoding="utf-8")
    about = {"sha256": source.sha256, "code": manifest.text_sha256(code)}
    return Step("take", about | {"model": build.spec.model.model_dump()}, make)


def _fetch(model_id: str, source: HuggingFaceSource, toolbox: Toolbox) -> Step:
    if source.revision is None:
        raise WeightsError(
            f"{model_id} names no revision of {source.repo}, and a name alone says nothing about "
            f"its content: run hf download {source.repo} --local-dir DIR, and give --weights DIR"
        )
    said = ["download", source.repo, "--revision", source.revision, "--local-dir"]

    def make(site: Site) -> None:
        site.run([toolbox.fetch, *said, str(site.folder)])

    return Step("fetch", {"repo": source.repo, "revision": source.revision}, make)


def _made(build: Planned, here: Machine, toolbox: Toolbox) -> tuple[Step, ...]:
    ties = {"versions": dict(here.versions), "sm": here.sm}
    steps: list[Step] = []
    route = argv.route(build)
    if route != "none":
        words = argv.convert if route == "convert" else argv.quantize
        tool = toolbox.convert if route == "convert" else toolbox.quantize

        def checkpointed(site: Site) -> None:
            site.run([*tool, *words(build, packing.source(site), site.folder)])

        about = {**ties, "argv": words(build, ANYWHERE, ANYWHERE)}
        steps.append(Step(route, about, checkpointed))
    if build.plan.output == "engine":

        def compiled(site: Site) -> None:
            made = argv.trtllm_build(build, site.made[route], site.folder)
            site.run([toolbox.trtllm_build, *made])
            packing.require_engine(site.folder, build)

        about = {**ties, "argv": argv.trtllm_build(build, ANYWHERE, ANYWHERE)}
        steps.append(Step("compile", about, compiled))
    made = steps[-1].name if steps else "take"
    flags = {step.name: step.about["argv"] for step in steps}
    package = partial(packing.package, build, made, lambda site: _about(build, here, site, flags))
    steps.append(Step(PACKAGE, {**ties, "planned": build.as_json()}, package))
    return tuple(steps)


def _about(build: Planned, here: Machine, site: Site, flags: dict[str, Any]) -> dict[str, Any]:
    """Return what the manifest says of the build, beside its files."""
    source = build.spec.model.source
    pinned = source.model_dump()
    return {
        "build": build.spec.build_id,
        "builder": build.spec.build.builder,
        "inputs": site.key,
        "model": build.plan.model,
        "source": pinned,
        "source_sha256": packing.source_content(site.made["take"]),
        "sku": build.plan.sku,
        "precision": build.plan.precision,
        "tp": build.plan.tp,
        "pp": build.plan.pp,
        "gpu": {"name": here.gpu_name, "sm": here.sm, "driver": here.driver},
        "tools": dict(here.versions),
        "limits": dataclasses.asdict(build.limits),
        "kv_tokens": build.kv_tokens,
        "flags": flags,
        "predicted": dataclasses.asdict(build.plan.chosen),
    }
