"""From ids, as they arrive, to text: nothing lost, nothing doubled, cut at a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class AnswerText:
    """The text of one answer.

    A character may span tokens and a space may belong to the next one, so ids are decoded with
    what came before; the end of the answer is taken from decoding it whole, which is what the
    pieces must add up to.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._ids: list[int] = []
        self._decoded = 0
        self._held = ""
        self.stopped = False

    def feed(self, ids: list[int]) -> str:
        """Return text that is sure to stand, after `ids` more tokens."""
        self._ids += ids
        pieces = [self._stream.step(self._tokenizer, token) for token in ids]
        text = "".join(piece for piece in pieces if piece)
        self._decoded += len(text)
        return self._cut(text, last=False)

    def finish(self) -> str:
        """Return the rest: what was held back, and what an unfinished character decodes to."""
        if self.stopped:
            return ""
        whole = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return self._cut(whole[self._decoded :], last=True)

    def _cut(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            # The first to be complete, so that how the tokens arrived makes no difference.
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = 0 if last else max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` may begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
