"""Calls to the engine's Triton, for its own tests: keyword arguments in, whole answers out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

_KINDS = {
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float16": "FP16",
    "uint64": "UINT64",
    "uint8": "UINT8",
    "bool": "BOOL",
    "object": "BYTES",
}
_NUMBERS = {
    "num_return_sequences": np.int32,
    "end_id": np.int32,
    "beam_width": np.int32,
    "runtime_top_k": np.int32,
    "top_k": np.int32,
    "min_tokens": np.int32,
    "max_tokens": np.int32,
    "lora_task_id": np.uint64,
    "seed": np.uint64,
}


@dataclass
class Answer:
    """Everything one request brought back."""

    responses: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def tokens(self) -> list[int]:
        return [token for one in self.responses for token in one["output_ids"].ravel().tolist()]

    @property
    def text(self) -> str:
        return b"".join(one["text_output"].ravel()[0] for one in self.responses).decode()


class Engine:
    """A connection to one Triton."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.stub = GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def core(self, ids: list[int], tokens: int, **inputs: Any) -> Answer:
        """Return the whole answer of `tensorrt_llm`, streamed."""
        return self.ask(core_request(ids, tokens, **inputs))

    def ensemble(self, text: str, tokens: int, **inputs: Any) -> Answer:
        """Return the whole answer of `ensemble`, streamed."""
        sent = {"text_input": text, "max_tokens": tokens, "stream": True, **inputs}
        return self.ask(request("ensemble", sent))

    def ask(self, asked: Any) -> Answer:
        answer = Answer()
        for response in self.stub.ModelStreamInfer(iter([asked]), timeout=100):
            if response.error_message:
                answer.error = response.error_message
                break
            answer.responses.append(outputs(response.infer_response))
        return answer

    def open(self, asked: Any) -> Any:
        """Return a call whose responses the caller reads, and may cancel."""
        return self.stub.ModelStreamInfer(iter([asked]), timeout=100)


def core_request(ids: list[int], tokens: int, **inputs: Any) -> Any:
    sent = {
        "input_ids": np.array([ids], dtype=np.int32),
        "input_lengths": np.array([[len(ids)]], dtype=np.int32),
        "request_output_len": np.array([[tokens]], dtype=np.int32),
        "streaming": True,
        **inputs,
    }
    return request("tensorrt_llm", sent)


def request(model: str, sent: dict[str, Any]) -> Any:
    asked = pb.ModelInferRequest(model_name=model)
    for name, value in sent.items():
        array = _array(name, value)
        asked.inputs.add(name=name, datatype=_KINDS[array.dtype.name], shape=array.shape)
        asked.raw_input_contents.append(_raw(array))
    return asked


def outputs(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.datatype == "BYTES":
            array = np.array(list(_texts(raw)), dtype=object)
        else:
            kind = next(name for name, kind in _KINDS.items() if kind == tensor.datatype)
            array = np.frombuffer(raw, dtype=kind)
        found[tensor.name] = array.reshape(list(tensor.shape))
    return found


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, bool):
        return np.array([[value]])
    if isinstance(value, str | bytes):
        return np.array([[value.encode() if isinstance(value, str) else value]], dtype=object)
    return np.array([[value]], dtype=_NUMBERS.get(name, np.float32))


def _raw(array: np.ndarray) -> bytes:
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(len(text).to_bytes(4, "little") + text for text in array.ravel())


def _texts(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        yield raw[at + 4 : at + 4 + size]
        at += 4 + size
