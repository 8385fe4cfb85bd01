"""Byte-level BPE as bytes: what a token is, and what text a run of tokens adds to a stream.

A token may hold part of a character, and a special token holds no text at all, so decoding
each response alone loses characters. What a stream has to show after more tokens depends
only on the unfinished character before them: its first byte lies at most three bytes back.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path


def vocabulary(tokenizer_json: Path) -> list[bytes]:
    """Return the bytes of every token, by token id; added tokens are their own text."""
    content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    byte_of = _byte_alphabet()
    added = {token["id"] for token in content["added_tokens"]}
    pairs = sorted((index, token) for token, index in content["model"]["vocab"].items())
    return [
        token.encode() if index in added else bytes(byte_of[character] for character in token)
        for index, token in pairs
    ]


def visible(tokenizer_json: Path) -> list[bytes]:
    """Return the vocabulary with special tokens emptied: they are not shown to people."""
    content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    tokens = vocabulary(tokenizer_json)
    for token in content["added_tokens"]:
        if token["special"]:
            tokens[token["id"]] = b""
    return tokens


class Detokenizer:
    """Turns token ids into text, whole or as they arrive."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = tokens

    def added(self, previous: Iterable[int], fresh: Iterable[int], *, finished: bool) -> str:
        """Return the text that `fresh` adds after `previous`.

        The texts of a sequence's responses, joined, are the text of all its tokens. An
        unfinished character waits for the next response; at the end it becomes U+FFFD.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self._bytes(previous))
        return decoder.decode(self._bytes(fresh), finished)

    def _bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(self._tokens[token] for token in ids)


def _byte_alphabet() -> dict[str, int]:
    """Return byte-level BPE's printable stand-in of each byte: itself where it is printable."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {chr(256 + order): byte for order, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted
