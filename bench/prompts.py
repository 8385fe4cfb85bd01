"""The prompts that all ways are measured with: the same ids, whoever tokenises them.

They are whole lower-case words, each a token with its space, so that their text has exactly
these ids again; drawn at random, so that no prompt shares a block with another.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

TOKENIZER = Path(__file__).parent.parent / "model_repository/tensorrt_llm/1/engine/tokenizer.json"
PROMPT_TOKENS = 41


@lru_cache(1)
def words() -> dict[int, str]:
    """Return each token that is a space and a word, by its id."""
    vocabulary = json.loads(TOKENIZER.read_bytes())["model"]["vocab"]
    return {
        number: " " + token[1:]
        for token, number in sorted(vocabulary.items(), key=lambda pair: pair[1])
        if re.fullmatch("Ġ[a-z]{4,}", token)
    }


def ids(count: int, seed: int) -> list[list[int]]:
    """Return `count` prompts of `PROMPT_TOKENS` ids."""
    known = np.array(list(words()))
    drawn = np.random.default_rng(seed).choice(known, size=(count, PROMPT_TOKENS))
    rows: list[list[int]] = drawn.tolist()
    return rows


def texts(count: int, seed: int) -> list[str]:
    """Return the same prompts as text."""
    return ["".join(words()[token] for token in row) for row in ids(count, seed)]
