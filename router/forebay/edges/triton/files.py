"""What travels with an engine: its limits, its tokenizer, its chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from forebay.edges.triton.prompt import ChatTemplate
from forebay.errors import SettingsError
from forebay.values import Abilities

if TYPE_CHECKING:
    from pathlib import Path

GUIDES = frozenset({"json", "json_schema", "regex"})
"""Guides that TensorRT-LLM's tensors carry and its engines enforce while decoding."""


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """One engine directory, read once at start."""

    tokenizer: Tokenizer
    template: ChatTemplate
    abilities: Abilities
    end_id: int
    pad_id: int

    @classmethod
    def read(cls, folder: Path) -> EngineFiles:
        """Return what the router needs of an engine directory.

        Raises:
            SettingsError: naming the file that is missing or wrong, and how to make it.
        """
        try:
            engine: dict[str, Any] = json.loads((folder / "engine.json").read_bytes())
            tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
            template = ChatTemplate((folder / "chat_template.jinja").read_text("utf-8"))
            abilities = Abilities(engine["max_input_len"], engine["max_seq_len"], GUIDES)
            return cls(tokenizer, template, abilities, engine["end_id"], engine["pad_id"])
        except FileNotFoundError as error:
            raise SettingsError(
                f"{folder} holds no engine ({error.filename} is missing); "
                "build it with `forebay engines build`"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(
                f"{folder} holds a broken engine ({type(error).__name__}: {error}); "
                "build it again with `forebay engines build`"
            ) from error
