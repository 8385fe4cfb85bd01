"""Which prompts share a beginning: hashes of blocks of token ids, each of all before it too.

An engine that has served one prompt has the KV cache of its blocks; another prompt with the same
first blocks starts where they end. Hashes are of one router's run and never leave it.
"""

from __future__ import annotations

from collections import OrderedDict

BLOCK_TOKENS = 64
"""Tokens of one block: two of the embedded engine's and of TensorRT-LLM's default."""

MOST_BLOCKS = 64
"""A prompt is compared by its first 4,096 tokens; that is where prompts are alike."""

MOST_KNOWN = 1 << 16
"""Blocks that are remembered of one engine, however large its cache is, and of one pool."""


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


class PrefixCache:
    """Which blocks an engine should still have cached: the last ones that were sent to it."""

    def __init__(self, kv_tokens: int) -> None:
        self._most = min(MOST_KNOWN, kv_tokens // BLOCK_TOKENS)
        self._known: OrderedDict[int, None] = OrderedDict()

    def tokens(self, blocks: tuple[int, ...]) -> int:
        """Return how many tokens are cached of a prompt that begins with `blocks`."""
        known, count = self._known, 0
        if blocks and blocks[-1] in known:  # no ending is kept without what it stands on
            return len(blocks) * BLOCK_TOKENS
        for block in blocks:
            if block not in known:
                break
            count += 1
        return count * BLOCK_TOKENS

    def remember(self, blocks: tuple[int, ...]) -> None:
        """Note that a prompt was sent; an ending goes before the beginning it stands on."""
        known = self._known
        for block in reversed(blocks):
            known[block] = None
            known.move_to_end(block)
        while len(known) > self._most:
            known.popitem(last=False)


class Homes:
    """Which of a pool's engines each block was last sent to."""

    def __init__(self) -> None:
        self._names: OrderedDict[int, str] = OrderedDict()

    def find(self, blocks: tuple[int, ...]) -> str | None:
        """Return the engine that was last sent most of such a beginning."""
        for block in reversed(blocks):
            name = self._names.get(block)
            if name is not None:
                return name
        return None

    def sent(self, blocks: tuple[int, ...], name: str) -> None:
        """Note that a prompt with such a beginning was sent to an engine."""
        names = self._names
        for block in reversed(blocks):
            names[block] = name
            names.move_to_end(block)
        while len(names) > MOST_KNOWN:
            names.popitem(last=False)
