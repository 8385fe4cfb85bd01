"""Weights written as Hugging Face's `safetensors`: a header of JSON, then the bytes.

Layout: eight bytes of the header's length, little-endian; the header, padded with spaces to
eight bytes; each tensor's bytes at its `data_offsets`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNED = 8
BF16_BYTES = 2


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves of 32-bit floats, rounded to nearest, ties to even; no NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def write_bf16(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], NDArray[np.float32]],
) -> None:
    """Write tensors in bf16, one at a time: only one is ever held in 32 bits."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):
        size = BF16_BYTES * int(np.prod(shapes[name]))
        header[name] = {
            "dtype": "BF16",
            "shape": list(shapes[name]),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNED)
    with path.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for name in sorted(shapes):
            values = read(name)
            assert values.shape == shapes[name], name
            stream.write(bf16(values).tobytes())
