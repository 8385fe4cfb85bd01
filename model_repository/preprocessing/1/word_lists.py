"""Words as the core wants them: ids end to end in one row, where each word ends in the other."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def word_list(words: Iterable[list[int]]) -> NDArray[Any]:
    """Return tokenised words as INT32 `[1, 2, n]`; offsets end with -1. No words: `[1, 2, 0]`."""
    ids: list[int] = []
    ends: list[int] = []
    for word in words:
        if word:
            ids.extend(word)
            ends.append(len(ids))
    ends.extend([-1] * (len(ids) - len(ends)))
    return np.array([[ids, ends]], dtype=np.int32)


def stop_variants(word: str) -> tuple[str, ...]:
    """Return the texts whose tokens mean that stop word: alone, and after a space.

    In running text a word's tokens include the space before it, and a stop word without it
    would never be found.
    """
    return (word,) if word[0].isspace() else (word, f" {word}")
