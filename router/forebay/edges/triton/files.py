"""What travels with an engine: its limits, its tokenizer, its chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from forebay.edges.triton import manifest
from forebay.edges.triton.prompt import ChatTemplate
from forebay.errors import SettingsError
from forebay.values import Abilities

if TYPE_CHECKING:
    from pathlib import Path

    from forebay.edges.triton.manifest import Stated

GUIDES = frozenset({"json", "json_schema", "regex"})
"""Guides that TensorRT-LLM's tensors carry and its engines enforce while decoding."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much an engine holds at once, and the seconds of its steps where the build states them.

    `step_s` are the fixed seconds of a step and those of one more stream, token of context and
    token of a prompt.
    """

    kv_tokens: int = 1 << 40
    max_batch: int = 1 << 20
    step_tokens: int = 8192
    step_s: tuple[float, float, float, float] | None = None

    @classmethod
    def of(cls, engine: dict[str, Any]) -> Room:
        """Return what `engine.json` says; what it leaves out is unbounded, its speed unknown."""
        most = cls()
        said = engine.get("step_s")
        return cls(
            kv_tokens=engine.get("kv_blocks", most.kv_tokens) * engine.get("tokens_per_block", 1),
            max_batch=engine.get("max_batch_size", most.max_batch),
            step_tokens=engine.get("max_num_tokens", most.step_tokens),
            step_s=None if said is None else tuple(map(float, said)),  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """One engine directory, read once at start."""

    tokenizer: Tokenizer
    template: ChatTemplate
    abilities: Abilities
    end_id: int
    pad_id: int
    stated: Stated | None = None
    """What the manifest says, by which Triton's engine is known; None without a manifest."""
    room: Room = Room()

    @classmethod
    def read(cls, folder: Path) -> EngineFiles:
        """Return what the router needs of an engine directory.

        Raises:
            SettingsError: naming the file that is missing or wrong, and how to make it.
        """
        try:
            stated = manifest.read(folder)
            engine: dict[str, Any] = json.loads((folder / "engine.json").read_bytes())
            tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
            template = ChatTemplate((folder / "chat_template.jinja").read_text("utf-8"))
            abilities = Abilities(engine["max_input_len"], engine["max_seq_len"], GUIDES)
            ids = engine["end_id"], engine["pad_id"]
            return cls(tokenizer, template, abilities, *ids, stated, Room.of(engine))
        except FileNotFoundError as error:
            raise SettingsError(
                f"{folder} holds no engine ({error.filename} is missing); "
                "build it with `forebay engines build`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{folder} holds a broken engine ({type(error).__name__}: {error}); "
                "build it again with `forebay engines build`"
            ) from error
