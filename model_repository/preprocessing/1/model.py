"""`preprocessing`: a text to the token ids, word lists and end tokens that the core reads.

Upstream's names and shapes. The text is taken as it is: no chat template is applied and no
special token added, so a client of the ensemble writes the model's own turns if it wants them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import parent
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from tokenizers import Tokenizer
from word_lists import stop_variants, word_list

REFUSED = (
    "DECODER_QUERY",
    "IMAGE_BYTES",
    "IMAGE_URL",
    "IMAGES",
    "VIDEO_BYTES",
    "EMBEDDING_BIAS_WORDS",
    "EMBEDDING_BIAS_WEIGHTS",
    "PROMPT_TABLE_EXTRA_ID",
)


class InvalidQueryError(Exception):
    """The request cannot be tokenised; the text is the sentence for its sender."""


class TritonPythonModel:
    """Triton's entry: made once per instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and the ids of the engine in `tokenizer_dir`."""
        parent.follow()
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        home = Path(args["model_repository"]) / args["model_version"]
        engine = (home / said["tokenizer_dir"]).resolve()
        self._tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
        self._special = said["add_special_tokens"] == "true"
        ids = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
        self._end_id, self._pad_id = ids["end_id"], ids["pad_id"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response for each request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            made = self._outputs({name: array for name, array in tensors.items() if array.size})
        except InvalidQueryError as error:
            fault = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(output_tensors=[], error=fault)
        tensors_out = [pb_utils.Tensor(name, array) for name, array in made.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors_out)

    def _outputs(self, sent: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name in REFUSED:
            if name in sent:
                raise InvalidQueryError(f"{name} is not supported: this model reads text only")
        query = _texts(sent, "QUERY")
        if len(query) != 1:
            raise InvalidQueryError("send one text in each request")
        ids = self._encode(query[0])
        stops = [
            variant for word in _texts(sent, "STOP_WORDS_DICT") for variant in stop_variants(word)
        ]
        return {
            "INPUT_ID": np.array([ids], dtype=np.int32),
            "REQUEST_INPUT_LEN": np.array([[len(ids)]], dtype=np.int32),
            "DECODER_INPUT_ID": np.zeros((1, 0), dtype=np.int32),
            "REQUEST_DECODER_INPUT_LEN": np.zeros((1, 1), dtype=np.int32),
            "BAD_WORDS_IDS": word_list(map(self._encode, _texts(sent, "BAD_WORDS_DICT"))),
            "STOP_WORDS_IDS": word_list(map(self._encode, stops)),
            "EMBEDDING_BIAS": np.zeros((1, 0), dtype=np.float32),
            "REQUEST_OUTPUT_LEN": sent["REQUEST_OUTPUT_LEN"].astype(np.int32),
            "OUT_END_ID": sent.get("END_ID", np.array([[self._end_id]])).astype(np.int32),
            "OUT_PAD_ID": sent.get("PAD_ID", np.array([[self._pad_id]])).astype(np.int32),
            "OUT_PROMPT_TABLE_EXTRA_IDS": np.zeros((1, 0), dtype=np.uint64),
        }

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=self._special).ids
        return ids


def _texts(sent: dict[str, NDArray[Any]], name: str) -> list[str]:
    """Return the texts of a string tensor; empty ones count as absent."""
    if name not in sent:
        return []
    try:
        texts = [raw.decode() if isinstance(raw, bytes) else str(raw) for raw in sent[name].ravel()]
    except UnicodeDecodeError as error:
        raise InvalidQueryError(f"{name} is not UTF-8 text") from error
    return [text for text in texts if text] if name != "QUERY" else texts
