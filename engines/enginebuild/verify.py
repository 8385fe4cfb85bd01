"""Whether an installed engine is the one that was built, for this machine, and is what serves.

Each refusal is a sentence that says what is wrong and what to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import checkpoint, manifest
from enginebuild.errors import BuildError
from enginebuild.spec import SPECS, load_model, load_sku

TEXT = {
    checkpoint.TOKENIZER: "prompts would become other tokens than the model knows",
    checkpoint.CHAT_TEMPLATE: "conversations would be laid out as the model was not trained",
}


class Mismatch(BuildError):
    """An engine that must not serve."""


def verify(
    repository: Path, *, sku: str | None = None, sm: int | None = None, specs: Path = SPECS
) -> dict[str, Any]:
    """Return the manifest of the engine in a repository that may serve it.

    Args:
        repository: The Triton model repository.
        sku: The SKU that will serve it, by its id; its SM is compared.
        sm: The compute capability of this machine's GPU, where there is one: 90 for 9.0.
        specs: Where models and SKUs are read.

    Raises:
        BuildError: if it is changed, for another SM, or not what config.pbtxt names.
    """
    engine = repository / "tensorrt_llm" / "1" / "engine"
    said = manifest.read(engine)
    _text_files(engine, said["files"])
    manifest.verify(engine)
    _machine(said, sku, sm, specs)
    checkpoint.require_tokenizer(
        engine / checkpoint.TOKENIZER, said["model"], load_model(said["model"], specs)
    )
    _config(repository / "tensorrt_llm" / "config.pbtxt", said)
    return said


def _text_files(engine: Path, files: Mapping[str, Any]) -> None:
    for name, harm in TEXT.items():
        path = engine / name
        if path.is_file() and manifest.file_sha256(path) != files[name]["sha256"]:
            raise Mismatch(
                f"{path} is not the one this engine was built with: {harm}. Put the model's own "
                "back, or build the engine again"
            )


def _machine(said: Mapping[str, Any], sku: str | None, sm: int | None, specs: Path) -> None:
    built = said.get("gpu")
    if sku is not None:
        gpu = load_sku(sku, specs).gpu
        sm = gpu.sm if gpu else None
        if built is None and gpu is not None:
            raise Mismatch(f"the engine of {said['build']} is for {said['sku']}, not for {sku}")
    if built is None or (sm is None and sku is None):
        return
    if sm != built["sm"]:
        here = f"SM{sm}" if sm else "no GPU"
        raise Mismatch(
            f"the engine of {said['build']} was compiled on {built['name']} (SM{built['sm']}), "
            f"and {sku or 'this machine'} has {here}: an engine runs on the SM it was compiled "
            f"for. Build one for {sku or 'this GPU'}: forebay engines list"
        )


def _config(path: Path, said: Mapping[str, Any]) -> None:
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), pb.ModelConfig())
    except FileNotFoundError as error:
        raise Mismatch(f"{path} is missing: Triton would not load it; build again") from error
    except text_format.ParseError as error:
        raise Mismatch(f"{path} cannot be read: {error}; build again") from error
    named = config.parameters["engine_manifest_digest"].string_value
    if named != said["digest"]:
        raise Mismatch(
            f"{path} names the engine {named[:12]}, and {said['digest'][:12]} is installed beside "
            "it: one of them is from another build; build again"
        )
