"""The machine that builds: its GPUs, and the versions an engine will be tied to."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from enginebuild import commands
from enginebuild.errors import BuildError
from enginebuild.planned import Planned

TENSORRT_LLM = "1.2.1"
"""The last release with engines; Triton's containers 26.04 to 26.07 hold it."""
CONTAINER = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
VERSIONS = """
import importlib.metadata as m, json, os
found = {"cuda": os.environ["CUDA_VERSION"]} if "CUDA_VERSION" in os.environ else {}
for name in ("tensorrt_llm", "tensorrt", "torch"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
"""Run by the container's own Python; CUDA_VERSION is set by NVIDIA's images."""
QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a build runs on. `sm` is the first GPU's compute capability: 90 for 9.0."""

    gpu_name: str
    sm: int
    gpus: int
    driver: str
    versions: Mapping[str, str] = field(default_factory=dict)


def probe(nvidia_smi: str = "nvidia-smi", python: str = "python3") -> Machine:
    """Return this machine; `python` is the one that TensorRT-LLM is installed for.

    Raises:
        BuildError: if it has no GPU that the driver answers for.
    """
    try:
        said = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [nvidia_smi, *QUERY], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        rows = [[word.strip() for word in line.split(",")] for line in said.splitlines() if line]
        name, capability, driver = rows[0]
        sm = int(capability.replace(".", ""))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise BuildError(
            f"no GPU here that {nvidia_smi} can name ({type(error).__name__}). An engine is "
            f"compiled on the GPU that serves it: run this in {CONTAINER}, see docs/engines.md"
        ) from error
    return Machine(name, sm, len(rows), driver, _versions(python))


def require(machine: Machine, build: Planned) -> None:
    """Pass if that machine can make this build.

    Raises:
        BuildError: if its GPUs are others, or too few, or its TensorRT-LLM is another.
    """
    sku = build.plan.sku
    if machine.sm != build.sm:
        raise BuildError(
            f"{build.spec.build_id} is for {sku} (SM{build.sm}), and this machine has "
            f"{machine.gpu_name} (SM{machine.sm}): an engine runs on the SM it was compiled for"
        )
    if machine.gpus < build.gpus:
        raise BuildError(
            f"{build.spec.build_id} takes {build.gpus} GPUs, and this machine has {machine.gpus}"
        )
    found = machine.versions.get("tensorrt_llm")
    if found != TENSORRT_LLM:
        raise BuildError(
            f"{build.spec.build_id} is built by TensorRT-LLM {TENSORRT_LLM}, and here is "
            f"{found or 'none'}: run this in {CONTAINER}"
        )


def _versions(python: str) -> dict[str, str]:
    try:
        said = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [python, "-c", VERSIONS],
            env=commands.environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = json.loads(said)
    return found
