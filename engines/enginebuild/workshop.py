"""What making an engine takes, beside what serving it takes: host memory and GPU memory."""

import math
from dataclasses import dataclass

from enginebuild import capacity
from enginebuild.ask import Ask, Refusal
from enginebuild.capacity import GIB
from enginebuild.precision import PRECISIONS

# Formats whose scales come from running the model in 16 bits (quantize.py --qformat).
CALIBRATED = frozenset({"fp8", "int8_sq", "int4_awq", "w4a8_awq", "nvfp4"})
SIXTEEN_BIT_BYTES = 2
CALIBRATION_RESERVE = 1.1  # activations of calibration batches beside the weights; from memory
HOST_RESERVE_BYTES = 8 * GIB  # the container, CUDA and the builder itself; from memory


@dataclass(frozen=True, slots=True)
class Workshop:
    """Bytes that a build needs at its peak: of the host, and of all its GPUs together."""

    host_bytes: int
    gpu_bytes: int
    calibrates: bool


def needed(ask: Ask) -> Workshop:
    """Return what the build needs.

    Host: the 16-bit checkpoint as it is converted, and the converted one beside it. GPUs: the
    16-bit weights while they are calibrated, else the engine's own weights. A checkpoint that
    is already quantised needs neither: `ask.model` is then taken as it is.
    """
    deployment = ask.deployment()
    engine = capacity.weights_bytes(deployment) * deployment.gpus
    published = ask.model.published_precision
    whole = ask.model.architecture.parameters * SIXTEEN_BIT_BYTES if published == "bf16" else engine
    calibrates = ask.precision in CALIBRATED and published == "bf16"
    gpu = math.ceil(whole * CALIBRATION_RESERVE) if calibrates else engine
    return Workshop(whole + engine + HOST_RESERVE_BYTES, gpu, calibrates)


def workshop_refusals(ask: Ask, host_memory_gib: float | None = None) -> tuple[Refusal, ...]:
    """Return why the machine that serves could not also make the engine.

    These refuse a build and not a plan: an engine may be made on more GPUs than serve it, or
    from a checkpoint that is already quantised.
    """
    assert PRECISIONS[ask.precision], "the plan has refused what is no precision"
    assert ask.sku.gpu is not None
    need = needed(ask)
    found: list[Refusal] = []
    have = ask.sku.gpu.memory_gib * GIB * ask.gpus
    if need.calibrates and need.gpu_bytes > have:
        gpus = math.ceil(need.gpu_bytes / (ask.sku.gpu.memory_gib * GIB))
        found.append(
            Refusal(
                "build-gpu-memory",
                f"calibrating {ask.precision} holds the 16-bit model on the GPUs: "
                f"{need.gpu_bytes / GIB:.0f} GiB, and {ask.gpus} x {ask.sku_id} have "
                f"{have / GIB:.0f} GiB",
                "TensorRT-LLM quantize.py; truss asks for num_builder_gpus for the same reason",
                f"Quantise on {gpus} x {ask.sku_id}, or take a checkpoint already in "
                f"{ask.precision}",
            )
        )
    if host_memory_gib is not None and need.host_bytes > host_memory_gib * GIB:
        found.append(
            Refusal(
                "build-host-memory",
                f"converting holds {need.host_bytes / GIB:.0f} GiB of host memory, and there are "
                f"{host_memory_gib:.0f} GiB",
                "TensorRT-LLM issues 538, 743 and 1543: out of host memory while building",
                f"Build where {math.ceil(need.host_bytes / GIB)} GiB are free, or convert with "
                "--load_by_shard",
            )
        )
    return tuple(found)
