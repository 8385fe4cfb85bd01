"""TensorRT-LLM's tensors for one call, and what one response holds.

Names and types are those of the `inflight_batcher_llm` template's `tensorrt_llm` model.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from tritonclient.grpc import service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forebay.values import Call, Guide, Sampling

FINAL = "triton_final_response"

_SCALARS = (
    ("min_tokens", "min_tokens", "INT32", "<i"),
    ("temperature", "temperature", "FP32", "<f"),
    ("top_p", "runtime_top_p", "FP32", "<f"),
    ("top_k", "runtime_top_k", "INT32", "<i"),
    ("seed", "seed", "UINT64", "<Q"),
    ("repetition_penalty", "repetition_penalty", "FP32", "<f"),
    ("presence_penalty", "presence_penalty", "FP32", "<f"),
    ("frequency_penalty", "frequency_penalty", "FP32", "<f"),
)

GREEDY_TOP_K = 1


def infer_request(
    model: str, call: Call, guide: Guide | None, bad: Sequence[Sequence[int]], ends: tuple[int, int]
) -> pb.ModelInferRequest:
    """Return the request of one call; `ends` are the engine's end and pad ids."""
    ids = np.asarray(call.prepared.ids, dtype="<i4")
    request = pb.ModelInferRequest(model_name=model, id=call.request.id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    _add(request, "input_ids", "INT32", [1, len(ids)], ids.tobytes())
    _add(request, "input_lengths", "INT32", [1, 1], struct.pack("<i", len(ids)))
    _add(request, "request_output_len", "INT32", [1, 1], struct.pack("<i", call.max_tokens))
    _add(request, "end_id", "INT32", [1, 1], struct.pack("<i", ends[0]))
    _add(request, "pad_id", "INT32", [1, 1], struct.pack("<i", ends[1]))
    for flag in ("streaming", "exclude_input_in_output"):
        _add(request, flag, "BOOL", [1, 1], b"\x01")
    _add_sampling(request, call.request.sampling)
    if bad:
        words = words_list(bad)
        _add(request, "bad_words_list", "INT32", [1, *words.shape], words.tobytes())
    if guide is not None:
        _add_text(request, "guided_decoding_guide_type", guide.kind)
        if guide.kind != "json":
            _add_text(request, "guided_decoding_guide", guide.source)
    return request


def _add_sampling(request: pb.ModelInferRequest, sampling: Sampling) -> None:
    for field, tensor, kind, form in _SCALARS:
        value = getattr(sampling, field)
        if value is None or (field == "temperature" and value == 0):
            continue
        _add(request, tensor, kind, [1, 1], struct.pack(form, value))
    if sampling.temperature == 0 and sampling.top_k is None:
        _add(request, "runtime_top_k", "INT32", [1, 1], struct.pack("<i", GREEDY_TOP_K))
    if sampling.logprobs:
        _add(request, "return_log_probs", "BOOL", [1, 1], b"\x01")


def words_list(words: Sequence[Sequence[int]]) -> np.ndarray:
    """Return words as `[2, n]`: all ids in a row, then the end of each word, padded with -1."""
    flat = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    padded = ends + [-1] * (len(flat) - len(ends))
    return np.asarray([flat, padded], dtype="<i4")


def _add(
    request: pb.ModelInferRequest, name: str, kind: str, shape: Iterable[int], raw: bytes
) -> None:
    request.inputs.add(name=name, datatype=kind, shape=list(shape))
    request.raw_input_contents.append(raw)


def _add_text(request: pb.ModelInferRequest, name: str, text: str) -> None:
    encoded = text.encode()
    _add(request, name, "BYTES", [1, 1], struct.pack("<I", len(encoded)) + encoded)


def is_final(response: pb.ModelInferResponse) -> bool:
    """Return whether this is the last response of its request."""
    return FINAL in response.parameters and response.parameters[FINAL].bool_param


def ids_of(response: pb.ModelInferResponse) -> list[int]:
    """Return the new ids of a response; a response without any is an empty list."""
    raw = _raw(response, "output_ids")
    return list(struct.unpack(f"<{len(raw) // 4}i", raw))


def logprobs_of(response: pb.ModelInferResponse) -> tuple[float, ...]:
    """Return the log-probability of each new id, where it was asked for."""
    raw = _raw(response, "output_log_probs")
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def _raw(response: pb.ModelInferResponse, name: str) -> bytes:
    for at, output in enumerate(response.outputs):
        if output.name == name:
            raw: bytes = response.raw_output_contents[at]
            return raw
    return b""
