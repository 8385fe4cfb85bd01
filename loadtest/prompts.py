"""Prompts of real text, cut to a wanted number of tokens.

A corpus is a ring of the tokens of one file under `data/prompts`. A prompt begins at a random
word of it, so that a thousand prompts of an eighty-question file do not meet in the engine's
prefix cache by accident; requests that should meet there are those of a session.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "prompts"
TOKENIZER = ROOT / "model_repository" / "tensorrt_llm" / "1" / "engine" / "tokenizer.json"

CHARACTERS_A_TOKEN = 4
"""What stands for a token where no engine is built: the usual rule for English text."""


class PromptsError(Exception):
    """A prompt file that cannot be read; the message says which and why."""


class Splitter(Protocol):
    """Cuts text into the strings of its tokens; joined, they are the text again."""

    def pieces(self, text: str) -> list[str]:
        """Return one string for each token."""
        ...


class EngineTokens:
    """The tokens of the engine itself."""

    def __init__(self, path: Path = TOKENIZER) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def pieces(self, text: str) -> list[str]:
        """Return each token's text; a token inside one character has none of its own."""
        starts = [start for start, _ in self._tokenizer.encode(text).offsets]
        # Offsets leave out the space before a word; a piece reaches to where the next begins.
        edges = [0, *(max(start - 1, 0) if _spaced(text, start) else start for start in starts[1:])]
        return [text[a:b] for a, b in zip(edges, [*edges[1:], len(text)], strict=True)]


def _spaced(text: str, start: int) -> bool:
    return start > 0 and text[start - 1] == " "


class RatioTokens:
    """A stand-in where no engine is built: four characters are a token."""

    def pieces(self, text: str) -> list[str]:
        """Return the text in fours."""
        return [
            text[at : at + CHARACTERS_A_TOKEN] for at in range(0, len(text), CHARACTERS_A_TOKEN)
        ]


def splitter(path: Path = TOKENIZER) -> Splitter:
    """Return the engine's tokens where there is an engine, else the ratio."""
    return EngineTokens(path) if path.exists() else RatioTokens()


class Corpus:
    """One file's text as a ring of tokens."""

    def __init__(self, texts: Sequence[str], tokens: Splitter) -> None:
        self._ring = [piece for text in texts for piece in tokens.pieces(text.strip() + "\n\n")]
        self._starts = [at for at, piece in enumerate(self._ring) if piece[:1] in (" ", "\n")]
        if not self._starts:
            raise PromptsError("a corpus needs some words")

    def cut(self, tokens: int, draw: Random) -> str:
        """Return that many tokens of running text, from a random word on."""
        at = draw.choice(self._starts)
        ring = self._ring
        whole, rest = divmod(at + tokens, len(ring))
        parts = ring[at : at + tokens] if not whole else [*ring[at:], *ring * (whole - 1)]
        return "".join(parts if not whole else [*parts, *ring[:rest]])


@lru_cache(8)
def corpus(name: str, folder: Path = FOLDER) -> Corpus:
    """Return the corpus of `data/prompts/NAME.jsonl`.

    Raises:
        PromptsError: there is no such file, or a line of it holds no text.
    """
    path = folder / f"{name}.jsonl"
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in folder.glob("*.jsonl")))
        raise PromptsError(f"no prompts named {name} in {folder.name}; there are {known}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return Corpus([_text(path, at, line) for at, line in enumerate(lines, 1) if line], splitter())


def _text(path: Path, line: int, written: str) -> str:
    try:
        said = json.loads(written)
        if "turns" in said:
            return "\n".join(said["turns"])
        return str(said["prompt"] if "prompt" in said else said["question"])
    except (ValueError, KeyError, TypeError) as error:
        raise PromptsError(
            f"{path.name}:{line}: no prompt, question or turns in this line: {error}"
        ) from error
