"""A Hugging Face checkpoint on this machine: that it is the model's, and what its content is."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from enginebuild import manifest
from enginebuild.errors import WeightsError
from enginebuild.model_spec import Model

SOURCE = "source.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
TEXT_FILES = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
SHAPE = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "attention_heads",
    "num_key_value_heads": "kv_heads",
    "vocab_size": "vocab_size",
}


def files(folder: Path) -> tuple[Path, ...]:
    """Return the checkpoint's files, sorted: weights, configuration, tokenizer.

    Raises:
        WeightsError: if the folder holds no checkpoint.
    """
    if not (folder / CONFIG).is_file():
        raise WeightsError(f"{folder} holds no Hugging Face checkpoint: {CONFIG} is missing")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in {".safetensors", ".json", ".jinja", ".model"}
    ]
    if not any(path.suffix == ".safetensors" for path in found):
        raise WeightsError(f"{folder} holds no weights: no .safetensors file")
    if not (folder / TOKENIZER).is_file():
        raise WeightsError(f"{folder} holds no {TOKENIZER}: the router counts tokens with it")
    return tuple(found)


def require(folder: Path, model_id: str, model: Model) -> None:
    """Pass if the checkpoint is of that model, in 16 bits, with a tokenizer that fits.

    Raises:
        WeightsError: naming what differs.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for theirs, ours in SHAPE.items():
        said, expected = config.get(theirs), getattr(model.architecture, ours)
        if said != expected:
            raise WeightsError(
                f"{folder / CONFIG} has {theirs} {said}, and {model_id} has {expected}: "
                "these are another model's weights"
            )
    if "quantization_config" in config and model.published_precision == "bf16":
        raise WeightsError(
            f"{folder} is quantised already; take the 16-bit checkpoint, which is quantised here"
        )
    require_tokenizer(folder / TOKENIZER, model_id, model)


def require_tokenizer(path: Path, model_id: str, model: Model) -> None:
    """Pass if every token of that tokenizer is one of the model's, its end token among them.

    Raises:
        WeightsError: if it is another model's tokenizer.
    """
    tokenizer = Tokenizer.from_file(str(path))
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= model.architecture.vocab_size:
        raise WeightsError(
            f"{path} has token {highest}, and {model_id} has {model.architecture.vocab_size} "
            "tokens: it is another model's tokenizer"
        )
    if tokenizer.id_to_token(model.tokens.end_id) is None:
        raise WeightsError(
            f"{path} has no token {model.tokens.end_id}, which ends {model_id}'s answers: it is "
            "another model's tokenizer"
        )


def content(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each of the checkpoint's files by name."""
    return {path.name: manifest.file_sha256(path) for path in files(folder)}


def stamps(folder: Path) -> list[list[Any]]:
    """Return name, bytes and time of change of each file: what says that hashes still hold."""
    found = [(path, path.stat()) for path in files(folder)]
    return [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in found]


def chat_template(folder: Path) -> str:
    """Return the chat template, from its own file or the tokenizer's configuration.

    Raises:
        WeightsError: if the checkpoint has none.
    """
    own = folder / CHAT_TEMPLATE
    if own.is_file():
        return own.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    template = said.get("chat_template")
    if not isinstance(template, str):
        raise WeightsError(f"{folder} has no chat template: put {CHAT_TEMPLATE} into it")
    return template
