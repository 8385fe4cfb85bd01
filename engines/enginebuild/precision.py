"""The precisions an engine can be built in: bytes, tensor rate, and where each one runs.

Sources of the table: TensorRT-LLM docs/source/features/quantization.md (precision against
SM), its legacy support matrix (INT8: SmoothQuant on SM80 and later), its legacy precision.md
(NVFP4 engines: LLaMA and Mixtral families). Scales add to the bytes of a weight: INT4 AWQ
2/128 (group 128, FP16), NVFP4 1/16 (block 16, FP8), MXFP4 1/32 (block 32, E8M0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Rate = Literal["bf16", "int8", "fp8", "fp4"]

AMPERE = frozenset({80, 86})
ADA = frozenset({89})
HOPPER = frozenset({90})
BLACKWELL = frozenset({100, 103, 120})
EVERY_SM = AMPERE | ADA | HOPPER | BLACKWELL

MATRIX = "TensorRT-LLM docs/source/features/quantization.md: precision against SM"
LEGACY = "TensorRT-LLM legacy support matrix: INT8 from SM80, FP8 from SM89"


@dataclass(frozen=True, slots=True)
class Precision:
    """One way to store and multiply weights.

    Bytes are of one weight, scales included: `linear_bytes` of attention and dense blocks,
    `expert_bytes` of experts. `linear_rate` and `expert_rate` name the tensor rate each
    multiplies at. `kv_bytes` is one element of the KV cache. `families` limits TensorRT-LLM
    engines; empty means any family.
    """

    name: str
    linear_bytes: float
    expert_bytes: float
    linear_rate: Rate
    expert_rate: Rate
    kv_bytes: int
    sms: frozenset[int]
    source: str
    engine_flow: bool = True
    families: frozenset[str] = frozenset()


INT4_AWQ_BYTES = 0.5 + 2 / 128
NVFP4_BYTES = 0.5 + 1 / 16
MXFP4_BYTES = 0.5 + 1 / 32

_ALL = (
    Precision("bf16", 2, 2, "bf16", "bf16", 2, EVERY_SM, LEGACY),
    Precision("fp8", 1, 1, "fp8", "fp8", 1, ADA | HOPPER | BLACKWELL, MATRIX),
    Precision("int8_sq", 1, 1, "int8", "int8", 1, EVERY_SM, LEGACY),
    Precision("int8_wo", 1, 1, "bf16", "bf16", 2, EVERY_SM, LEGACY),
    Precision("w4a8_awq", INT4_AWQ_BYTES, INT4_AWQ_BYTES, "fp8", "fp8", 1, ADA | HOPPER, MATRIX),
    Precision(
        "int4_awq",
        INT4_AWQ_BYTES,
        INT4_AWQ_BYTES,
        "bf16",
        "bf16",
        2,
        AMPERE | ADA | HOPPER,
        MATRIX,
    ),
    Precision(
        "nvfp4",
        NVFP4_BYTES,
        NVFP4_BYTES,
        "fp4",
        "fp4",
        1,
        BLACKWELL,
        MATRIX,
        families=frozenset({"llama", "mixtral"}),
    ),
    Precision("w4a8_mxfp4", 2, MXFP4_BYTES, "bf16", "fp8", 1, BLACKWELL, MATRIX, engine_flow=False),
    Precision(
        "w4a16_mxfp4",
        2,
        MXFP4_BYTES,
        "bf16",
        "bf16",
        2,
        HOPPER,
        "TensorRT-LLM perf-overview: GPT-OSS on Hopper with the Triton MoE kernels",
        engine_flow=False,
    ),
)

PRECISIONS: Mapping[str, Precision] = MappingProxyType({p.name: p for p in _ALL})

# From the most faithful to the smallest: the order in which a plan falls back.
BY_FAITHFULNESS = (
    "bf16",
    "fp8",
    "int8_wo",
    "int8_sq",
    "w4a8_awq",
    "int4_awq",
    "nvfp4",
    "w4a8_mxfp4",
    "w4a16_mxfp4",
)


def allowed(sm: int) -> tuple[str, ...]:
    """Return the precisions that SM can run, the most faithful first."""
    return tuple(name for name in BY_FAITHFULNESS if sm in PRECISIONS[name].sms)
