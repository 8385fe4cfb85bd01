"""A SKU as data: the machine an engine is built for."""

from typing import Literal, Self

from pydantic import Field, model_validator

from enginebuild.strict import Positive, PositiveNumber, Strict


class DenseTflops(Strict):
    """Peak dense tensor rates of one GPU, in 10^12 operations a second; no sparsity counted.

    A rate that is absent is one the tensor cores do not have.
    """

    bf16: PositiveNumber
    int8: PositiveNumber | None = None
    fp8: PositiveNumber | None = None
    fp4: PositiveNumber | None = None


class Link(Strict):
    """What joins the GPUs of one machine. `gb_s` is 10^9 bytes a second, one way, of one GPU."""

    kind: Literal["nvlink", "nvlink-bridge", "pcie"]
    gb_s: PositiveNumber


class Gpu(Strict):
    """One GPU's figures. `sm` is its compute capability: 90 for 9.0."""

    sm: Literal[80, 86, 89, 90, 100, 103, 120]
    memory_gib: PositiveNumber
    memory_tb_s: PositiveNumber
    dense_tflops: DenseTflops
    link: Link
    gpus_per_node: Positive
    power_w: Positive


class Sku(Strict):
    """A machine an engine is built for; `gpu` holds its figures, where it has one."""

    name: str
    kind: Literal["cpu", "gpu"]
    precisions: tuple[str, ...] = Field(min_length=1)
    gpu: Gpu | None = None

    @model_validator(mode="after")
    def _figures_where_there_is_a_gpu(self) -> Self:
        if (self.kind == "gpu") != (self.gpu is not None):
            msg = "kind: gpu needs the section gpu, and kind: cpu must not have it"
            raise ValueError(msg)
        return self
