"""Which prompts share a beginning: hashes of blocks of token ids, each of all before it too.

An engine that has served one prompt has the KV cache of its blocks; another prompt with the same
first blocks starts where they end. Hashes are of one router's run and never leave it.
"""

from __future__ import annotations

BLOCK_TOKENS = 64
"""Tokens of one block: two of the embedded engine's and of TensorRT-LLM's default."""

MOST_BLOCKS = 64
"""A prompt is compared by its first 4,096 tokens; that is where prompts are alike."""


def blocks(ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return a hash for each whole block at the beginning of `ids`, that of its prefix."""
    found: list[int] = []
    before = 0
    for start in range(
        0, min(len(ids) - 1, MOST_BLOCKS * BLOCK_TOKENS) - BLOCK_TOKENS + 1, BLOCK_TOKENS
    ):
        before = hash((before, ids[start : start + BLOCK_TOKENS]))
        found.append(before)
    return tuple(found)
