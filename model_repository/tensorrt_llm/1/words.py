"""Stop words as token sequences: reading upstream's list format, and finding one in a stream."""

from typing import Any

from numpy.typing import NDArray


def words_of(array: NDArray[Any], vocab_size: int) -> tuple[tuple[int, ...], ...]:
    """Return the words of a `[2, n]` list: ids in the first row, end offsets in the second.

    The second row holds where each word ends, counted from 0, then -1 to its end.

    Raises:
        ValueError: if an offset goes backwards or beyond the ids, or an id is no token.
    """
    ids, offsets = array[0].tolist(), array[1].tolist()
    words: list[tuple[int, ...]] = []
    start = 0
    for end in offsets:
        if end < 0:
            break
        if not start < end <= len(ids):
            raise ValueError(f"offset {end} does not follow {start} within {len(ids)} ids")
        word = tuple(ids[start:end])
        if not all(0 <= token < vocab_size for token in word):
            raise ValueError(f"a word holds a token outside 0..{vocab_size - 1}")
        words.append(word)
        start = end
    return tuple(words)


class StopWords:
    """Holds back the tokens that may turn out to be the start of a stop word.

    Tokens are fed as they are decoded; what is certain not to belong to a stop word comes out.
    A stop word itself never does, nor does anything after it.
    """

    def __init__(self, words: tuple[tuple[int, ...], ...]) -> None:
        self._words = words
        self._held: list[int] = []
        self.found = False

    def feed(self, token: int) -> list[int]:
        """Return the tokens that may be sent now that `token` has been decoded."""
        if not self._words:
            return [token]
        if self.found:
            return []
        self._held.append(token)
        for word in self._words:
            if tuple(self._held[-len(word) :]) == word:
                self.found = True
                certain = self._held[: len(self._held) - len(word)]
                self._held = []
                return certain
        keep = self._undecided()
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return certain

    def flush(self) -> list[int]:
        """Return what was held back, because no further token will come."""
        held, self._held = self._held, []
        return held

    def _undecided(self) -> int:
        """Return the length of the longest tail that begins some stop word."""
        longest = min(len(self._held), max(map(len, self._words)) - 1)
        for size in range(longest, 0, -1):
            tail = tuple(self._held[-size:])
            if any(word[:size] == tail for word in self._words):
                return size
        return 0
