"""A build for a GPU as data: a model on a SKU, in a precision, towards a goal.

What the file does not say is derived from the capacity plan; what it says overrides the plan
and is held to the same rules.
"""

from typing import Annotated, Literal

from pydantic import Field

from enginebuild.model_spec import Model
from enginebuild.sku_spec import Sku
from enginebuild.strict import Positive, Strict

Fraction = Annotated[float, Field(gt=0, le=0.95)]


class RequestShape(Strict):
    """The typical request that the limits are sized for, in tokens."""

    input_tokens: Positive = 1000
    output_tokens: Positive = 1000


class GpuLimits(Strict):
    """Limits that override the plan's. Lengths in tokens, `max_queue_size` in requests."""

    max_batch_size: Positive | None = None
    max_num_tokens: Positive | None = None
    max_input_len: Positive | None = None
    max_seq_len: Positive | None = None
    max_queue_size: Positive | None = None
    kv_fraction: Fraction | None = None


class GpuBuild(Strict):
    """One engine for GPUs: `trtllm` compiles it, `llmapi` serves the checkpoint in PyTorch.

    `switches` are options of trtllm-build by name, on top of what the plan sets;
    `calibration_size` counts the samples that scales are taken from.
    """

    model: str
    sku: str
    builder: Literal["trtllm", "llmapi"]
    precision: str
    goal: Literal["latency", "throughput", "balanced"]
    gpus: Positive = 1
    tp: Positive | None = None
    pp: Positive | None = None
    requests: RequestShape = RequestShape()
    limits: GpuLimits = GpuLimits()
    chunked_context: bool = True
    switches: dict[str, str] = Field(default_factory=dict)
    calibration_size: Positive = 512


class GpuSpec(Strict):
    """A GPU build with the model and SKU it names."""

    build_id: str
    build: GpuBuild
    model: Model
    sku: Sku
