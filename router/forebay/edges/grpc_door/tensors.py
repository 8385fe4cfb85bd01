"""The ensemble's tensors, read from a KServe v2 request; nothing that was sent is ignored.

Names, types and shapes are those of TensorRT-LLM's `ensemble` (its inflight_batcher_llm
templates, release 1.2). What the router cannot honour is refused by name.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any

from forebay.errors import InvalidRequest
from forebay.policy.context import MAX_BAD, fault, few

if TYPE_CHECKING:
    from tritonclient.grpc import service_pb2 as kserve

HONOURED: dict[str, str] = {
    "text_input": "BYTES",
    "max_tokens": "INT32",
    "bad_words": "BYTES",
    "stop_words": "BYTES",
    "exclude_input_in_output": "BOOL",
    "top_k": "INT32",
    "top_p": "FP32",
    "temperature": "FP32",
    "repetition_penalty": "FP32",
    "min_tokens": "INT32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "seed": "UINT64",
    "end_id": "INT32",
    "return_log_probs": "BOOL",
    "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
    "stream": "BOOL",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
"""Tensors that the router passes on or answers itself, with their types on the wire."""

NEUTRAL: dict[str, tuple[str, tuple[Any, ...]]] = {
    "num_return_sequences": ("INT32", (1,)),
    "beam_width": ("INT32", (0, 1)),
    "length_penalty": ("FP32", (0.0, 1.0)),
    "prompt_vocab_size": ("INT32", (0,)),
    "return_context_logits": ("BOOL", (False,)),
    "return_generation_logits": ("BOOL", (False,)),
    "return_perf_metrics": ("BOOL", (False,)),
}
"""Tensors taken only with a value that asks for nothing."""

UNUSED: dict[str, str] = {"pad_id": "INT32"}
"""Tensors without meaning here: one sequence is answered as text, and text has no padding."""

REFUSED: dict[str, str] = {
    "decoder_text_input": "the router serves decoder-only models",
    "prompt_embedding_table": "the router takes text, no embeddings",
    "prompt_table_extra_id": "the router takes text, no embeddings",
    "embedding_bias_words": "the router cannot bias tokens; use bad_words",
    "embedding_bias_weights": "the router cannot bias tokens; use bad_words",
    "lora_task_id": "the router names models, not adapters",
    "lora_weights": "the router names models, not adapters",
    "lora_config": "the router names models, not adapters",
}
"""Tensors of the ensemble that no target of a policy could honour, and why."""

LISTS = frozenset({"stop_words", "bad_words"})
"""Tensors that hold any number of elements; all others hold one."""

_MAX_INPUTS = 64
_MAX_RANK = 8
_MAX_PARAMETERS = 16
_MAX_ELEMENTS = MAX_BAD
"""Of any one tensor: the longest list that means something, empty words included."""

_TYPES = {**HONOURED, **UNUSED, **{name: kind for name, (kind, _) in NEUTRAL.items()}}
_FORMATS = {"INT32": "<i", "FP32": "<f", "UINT64": "<Q", "BOOL": "<?"}
_CONTENTS = {
    "BYTES": "bytes_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "UINT64": "uint64_contents",
    "BOOL": "bool_contents",
}


def read(message: kserve.ModelInferRequest) -> dict[str, Any]:
    """Return the values sent, by tensor; lists for `LISTS`, else one value, text decoded.

    A tensor without elements is the same as none: TensorRT-LLM's own clients send such.

    Raises:
        InvalidRequest: a tensor is not known, cannot be honoured, or is not what it should be.
    """
    few("inputs", len(message.inputs), _MAX_INPUTS, "tensors")
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise InvalidRequest(
            f"raw_input_contents holds {len(raws)} buffers for {len(message.inputs)} inputs"
        )
    values: dict[str, Any] = {}
    for position, tensor in enumerate(message.inputs):
        if tensor.name in values:
            raise fault(tensor.name, "is given twice")
        few(tensor.name[:64] or "a tensor", len(tensor.shape), _MAX_RANK, "dimensions")
        if 0 in tensor.shape and (tensor.name in _TYPES or tensor.name in REFUSED):
            continue
        raw = raws[position] if raws else None
        values[tensor.name] = _value(tensor, raw)
    for name, (_, neutral) in NEUTRAL.items():
        if values.pop(name, neutral[0]) not in neutral:
            raise fault(name, f"cannot be honoured here beyond {neutral[-1]}")
    return values


def _value(tensor: kserve.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Any:
    """Return one tensor's value, checked against the type and shape that the ensemble declares."""
    name, kind = tensor.name, _TYPES.get(tensor.name)
    if kind is None:
        raise fault(name[:64], _unknown(name))
    if tensor.datatype != kind:
        raise fault(name, f"must be of type {kind}, and is {tensor.datatype[:16] or 'untyped'}")
    few(name, len(tensor.parameters), _MAX_PARAMETERS, "parameters")
    if any(key.startswith("shared_memory") for key in tensor.parameters):
        raise fault(name, "must be sent in the request: the router has no shared memory")
    found = _elements(tensor, raw, kind)
    shape = list(tensor.shape)
    if len(found) != prod(shape) or any(side < 0 for side in shape):
        raise fault(name, f"has shape {shape} and holds {len(found)} elements")
    if name in LISTS:
        if shape[:-1] not in ([], [1]):
            raise fault(name, f"has shape {shape}; the router takes a batch of 1: [1, n]")
        return [_text(name, word) for word in found if word]
    if len(found) != 1:
        raise fault(name, f"has shape {shape}; the router takes a batch of 1: [1, 1]")
    return _text(name, found[0]) if kind == "BYTES" else found[0]


def _unknown(name: str) -> str:
    if name in REFUSED:
        return f"cannot be honoured here: {REFUSED[name]}"
    return "is no tensor of the ensemble"


def _elements(
    tensor: kserve.ModelInferRequest.InferInputTensor, raw: bytes | None, kind: str
) -> list[Any]:
    if raw is None:
        held = getattr(tensor.contents, _CONTENTS[kind])
        few(tensor.name, len(held), _MAX_ELEMENTS, "elements")
        return list(held)
    if kind == "BYTES":
        return _split(tensor.name, raw)
    size = struct.calcsize(_FORMATS[kind])
    if len(raw) % size:
        raise fault(tensor.name, f"holds {len(raw)} bytes, which is no whole number of {kind}")
    few(tensor.name, len(raw) // size, _MAX_ELEMENTS, "elements")
    return [value for (value,) in struct.iter_unpack(_FORMATS[kind], raw)]


def _split(name: str, raw: bytes) -> list[bytes]:
    """Return the elements of a BYTES buffer: each stands behind its length, 4 bytes, little end."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + 4
        if start > len(raw):
            raise fault(name, "ends inside the length of an element")
        at = start + int.from_bytes(raw[at:start], "little")
        if at > len(raw):
            raise fault(name, "ends inside an element")
        if len(elements) == _MAX_ELEMENTS:
            raise fault(name, f"must hold at most {_MAX_ELEMENTS} elements, and holds more")
        elements.append(raw[start:at])
    return elements


def _text(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise fault(name, "is not UTF-8 text") from None
