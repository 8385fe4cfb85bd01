"""A GGUF's tokenizer as Hugging Face `tokenizer.json`, for code that must count tokens exactly.

Only byte-level BPE of the `smollm` kind is written: digits split one by one, no BOS added,
control tokens kept whole. Another pre-tokenizer name is refused rather than approximated.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from enginebuild.errors import WeightsError

CONTROL = 3
USER_DEFINED = 4
DIGITS_SPLIT = frozenset({"smollm"})


@dataclass(frozen=True, slots=True)
class TextFiles:
    """The two text files derived from a GGUF."""

    tokenizer_json: str
    chat_template: str


def derive(weights: Path) -> TextFiles:
    """Return `tokenizer.json` and the chat template of a GGUF file.

    Raises:
        WeightsError: if the file lacks them, or uses a tokenizer this cannot express.
    """
    reader = GGUFReader(weights)
    model = _field(reader, "tokenizer.ggml.model")
    pre = _field(reader, "tokenizer.ggml.pre")
    if model != "gpt2" or pre not in DIGITS_SPLIT:
        raise WeightsError(f"{weights}: no tokenizer.json can be written for {model}/{pre}")
    return TextFiles(
        tokenizer_json=_byte_level_bpe(
            _field(reader, "tokenizer.ggml.tokens"),
            _field(reader, "tokenizer.ggml.merges"),
            _field(reader, "tokenizer.ggml.token_type"),
        ),
        chat_template=_field(reader, "tokenizer.chat_template"),
    )


def _byte_level_bpe(tokens: list[str], merges: list[str], kinds: list[int]) -> str:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        whole = [token for token, its in zip(tokens, kinds, strict=True) if its == kind]
        tokenizer.add_tokens(
            [AddedToken(token, special=special, normalized=False) for token in whole]
        )
    return str(tokenizer.to_str(pretty=False))


def _field(reader: GGUFReader, name: str) -> Any:
    found = reader.get_field(name)
    if found is None:
        raise WeightsError(f"the GGUF has no {name}")
    return found.contents()
