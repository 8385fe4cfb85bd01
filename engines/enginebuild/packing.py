"""From what the tools left to the folder that serves: files, settings, manifest."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from enginebuild import checkpoint, llmapi_contract, manifest
from enginebuild.checkpoint import CHAT_TEMPLATE, CONFIG, SOURCE, TEXT_FILES, TOKENIZER
from enginebuild.errors import BuildError
from enginebuild.job import gather, put
from enginebuild.model_spec import Model
from enginebuild.planned import Planned
from enginebuild.render_gpu import SERVED_AT
from enginebuild.steps import Site

UNPACKED = "checkpoint"
PLAN = "plan.json"
MODEL_YAML = "model.yaml"
BUILT_AS = ("max_batch_size", "max_num_tokens", "max_input_len", "max_seq_len")


def take(folder: Callable[[Site], Path], model_id: str, model: Model, site: Site) -> None:
    """Check that a checkpoint is the model's, hash it, and name it for the steps after."""
    found = folder(site)
    checkpoint.require(found, model_id, model)
    site.tell(f"hashing {found}")
    write_source(site.folder, found, checkpoint.content(found))


def write_source(folder: Path, found: Path, content: Mapping[str, str]) -> None:
    """Write where the checkpoint is and what it holds."""
    inside = found.is_relative_to(folder)
    path = found.relative_to(folder) if inside else found
    body = {"path": str(path), "content": dict(content)}
    (folder / SOURCE).write_text(manifest.canonical(body), encoding="utf-8")


def source(site: Site) -> Path:
    """Return the folder of the checkpoint that `take` found or made."""
    taken = site.made["take"]
    return taken / str(_source(taken)["path"])


def source_content(taken: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the checkpoint."""
    found: dict[str, str] = _source(taken)["content"]
    return found


def taken_content(taken: Path) -> str:
    """Return one hash of the checkpoint's content, wherever it lies."""
    return manifest.text_sha256(manifest.canonical(source_content(taken)))


def require_engine(folder: Path, build: Planned) -> None:
    """Pass if the compiler wrote the engine that was asked of it.

    Raises:
        BuildError: if a rank is missing, or its own record says other limits.
    """
    ranks = sorted(path.name for path in folder.glob("rank*.engine"))
    expected = [f"rank{rank}.engine" for rank in range(build.gpus)]
    if ranks != sorted(expected):
        raise BuildError(f"trtllm-build wrote {ranks}, and {build.gpus} ranks are {expected}")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for name in BUILT_AS:
        said, wanted = config["build_config"].get(name), getattr(build.limits, name)
        if said != wanted:
            raise BuildError(f"trtllm-build wrote an engine of {name} {said}; asked was {wanted}")


def package(
    build: Planned, made: str, about: Callable[[Site], Mapping[str, Any]], site: Site
) -> None:
    """Write the folder that serves: the engine or the weights, the text files, the manifest."""
    model = source(site)
    serves = model if made == "take" else site.made[made]
    if build.plan.output == "engine":
        gather(serves, site.folder)
    else:
        for path in checkpoint.files(serves):
            put(path, site.folder / path.name)
        settings = llmapi_contract.settings(build, str(SERVED_AT / "tensorrt_llm/1/engine"))
        text = yaml.safe_dump(settings, sort_keys=True)
        (site.folder / MODEL_YAML).write_text(text, encoding="utf-8")
    for name in (TOKENIZER, *TEXT_FILES):
        if (model / name).is_file() and not (site.folder / name).exists():
            put(model / name, site.folder / name)
    template = checkpoint.chat_template(model)
    (site.folder / CHAT_TEMPLATE).unlink(missing_ok=True)
    (site.folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    _write(site.folder / manifest.ENGINE, runtime(build))
    _write(site.folder / PLAN, build.as_json())
    checkpoint.require_tokenizer(site.folder / TOKENIZER, build.plan.model, build.spec.model)
    manifest.write(site.folder, about(site))


def runtime(build: Planned) -> dict[str, Any]:
    """Return what the router and the Python models read at load: limits and token ids."""
    limits = build.limits
    return {
        "model": build.plan.model,
        "tokenizer": TOKENIZER,
        "chat_template": CHAT_TEMPLATE,
        "vocab_size": build.spec.model.architecture.vocab_size,
        **build.spec.model.tokens.model_dump(),
        "max_batch_size": limits.max_batch_size,
        "max_queue_size": limits.max_queue_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_input_len": limits.max_input_len,
        "max_seq_len": limits.max_seq_len,
        "tokens_per_block": limits.tokens_per_block,
        "kv_blocks": build.kv_tokens // limits.tokens_per_block,
        "step_s": list(build.plan.step_s),
    }


def _source(taken: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((taken / SOURCE).read_text(encoding="utf-8"))
    return found


def _write(path: Path, body: Mapping[str, Any]) -> None:
    path.write_text(manifest.canonical(body), encoding="utf-8")
