"""`postprocessing`: token ids to text, right across the responses of a stream.

Upstream decodes each response alone, which loses characters whose bytes lie in several
tokens. Here the core sends along the few tokens before (`previous_ids`) and whether more will
come, so that this model needs no state of its own: it may have any number of instances, and
nothing is left behind by clients that go away. From a core that sends neither, a response is
taken as a whole answer.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import parent
import triton_python_backend_utils as pb_utils
from byte_level import Detokenizer, visible, vocabulary
from numpy.typing import NDArray


class TritonPythonModel:
    """Triton's entry: made once per instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the vocabulary of the engine in `tokenizer_dir`."""
        parent.follow()
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        home = Path(args["model_repository"]) / args["model_version"]
        path = (home / said["tokenizer_dir"]).resolve() / "tokenizer.json"
        hidden = said["skip_special_tokens"] != "false"
        self._text = Detokenizer(visible(path) if hidden else vocabulary(path))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response for each request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        sent = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        beams = self._beams(sent)
        output = pb_utils.Tensor("OUTPUT", np.array([beams], dtype=np.object_))
        return pb_utils.InferenceResponse(output_tensors=[output])

    def _beams(self, sent: dict[str, NDArray[Any]]) -> list[bytes]:
        previous = sent["PREVIOUS_IDS"].ravel().tolist() if "PREVIOUS_IDS" in sent else []
        finished = bool(sent["FINISHED"].ravel()[0]) if "FINISHED" in sent else True
        tokens, lengths = sent["TOKENS_BATCH"][0], sent["SEQUENCE_LENGTH"][0]
        return [
            self._text.added(previous, row[:length].tolist(), finished=finished).encode()
            for row, length in zip(tokens, lengths.tolist(), strict=True)
        ]
