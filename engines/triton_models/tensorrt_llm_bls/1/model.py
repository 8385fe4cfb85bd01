"""`tensorrt_llm_bls`: text in, text out, by calling the three models and not by an ensemble.

It does what the ensemble cannot with a core that returns token ids alone: it keeps the tokens of
each sequence, so that a character whose bytes lie in several responses is not lost. A request
takes one thread while it is answered. Cancelling reaches the core where the server lets a model
cancel its own requests; before, the core runs to its end.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TO_PREPROCESSING = {
    "text_input": "QUERY",
    "decoder_text_input": "DECODER_QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}
TO_CORE = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
}
BETWEEN = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "STOP_WORDS_IDS": "stop_words_list",
    "BAD_WORDS_IDS": "bad_words_list",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
}
IDS = ("output_ids", "sequence_length")


class CallFailedError(Exception):
    """One of the three models refused or failed; the text is its own."""


class TritonPythonModel:
    """Triton's entry: made once per instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the core's name, and which outputs a client may ask for."""
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._core = said["tensorrt_llm_model_name"]
        names = [output["name"] for output in config["output"]]
        self._passed = [name for name in names if name != "text_output"]

    def execute(self, requests: list[Any]) -> None:
        """Answer each request from a thread of its own."""
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sender = request.get_response_sender()
            wanted = set(request.requested_output_names())
            threading.Thread(
                target=self._answer, args=(inputs, wanted, sender), daemon=True
            ).start()

    def _answer(self, inputs: dict[str, Any], wanted: set[str], sender: Any) -> None:
        try:
            for response in self._responses(inputs, wanted, sender):
                sender.send(pb_utils.InferenceResponse(output_tensors=response))
        except Exception as error:  # noqa: BLE001 - a stream without its end would hang the client
            fault = pb_utils.TritonError(str(error))
            sender.send(pb_utils.InferenceResponse(output_tensors=[], error=fault))
        finally:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _responses(
        self, inputs: dict[str, Any], wanted: set[str], sender: Any
    ) -> Iterator[list[Any]]:
        passed = [name for name in self._passed if name in wanted]
        kept: dict[int, list[int]] = {}
        responses = self._generated(inputs, passed)
        for response in responses:
            found = _outputs(response)
            if sender.is_cancelled():
                if hasattr(responses, "cancel"):
                    responses.cancel()
                return
            if "output_ids" not in found:
                continue
            sequence = int(found["sequence_index"].ravel()[0])
            fresh = found["output_ids"][0, 0, : found["sequence_length"].ravel()[0]].tolist()
            before = kept.setdefault(sequence, [])
            text = self._text(before, fresh, finished=False)
            before += fresh
            yield _tensors(text, {name: found[name] for name in passed if name in found})
        for sequence, before in kept.items():
            if text := self._text(before, [], finished=True):
                yield _tensors(text, {"sequence_index": np.array([[sequence]], np.int32)})

    def _generated(self, inputs: dict[str, Any], passed: Iterable[str]) -> Any:
        """Return the core's responses to a request in text."""
        own = {TO_PREPROCESSING[n]: array for n, array in inputs.items() if n in TO_PREPROCESSING}
        ids = _outputs(_call("preprocessing", own, list(BETWEEN)))
        core = {TO_CORE.get(n, n): a for n, a in inputs.items() if n not in TO_PREPROCESSING}
        core |= {BETWEEN[name]: array for name, array in ids.items() if array.size}
        names = [*IDS, *passed]
        request = _request(self._core, core, [*names, *_unless(names, "sequence_index")])
        return request.exec(decoupled=True)

    def _text(self, before: list[int], fresh: list[int], *, finished: bool) -> bytes:
        """Return the text that `fresh` adds; an unfinished character waits for the next."""
        sent = {
            "TOKENS_BATCH": np.array([[fresh or [0]]], np.int32),
            "SEQUENCE_LENGTH": np.array([[len(fresh)]], np.int32),
            "FINISHED": np.array([[finished]]),
        }
        if before:
            sent["PREVIOUS_IDS"] = np.array([before], np.int32)
        text: bytes = _outputs(_call("postprocessing", sent, ["OUTPUT"]))["OUTPUT"].ravel()[0]
        return text


def _unless(names: list[str], name: str) -> list[str]:
    return [] if name in names else [name]


def _request(model: str, inputs: dict[str, Any], names: list[str]) -> Any:
    return pb_utils.InferenceRequest(
        model_name=model,
        inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
        requested_output_names=names,
    )


def _call(model: str, inputs: dict[str, Any], names: list[str]) -> Any:
    return _request(model, inputs, names).exec()


def _outputs(response: Any) -> dict[str, Any]:
    if response.has_error():
        raise CallFailedError(response.error().message())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def _tensors(text: bytes, others: dict[str, Any]) -> list[Any]:
    made = [pb_utils.Tensor("text_output", np.array([[text]], np.object_))]
    return made + [pb_utils.Tensor(name, array) for name, array in others.items()]
