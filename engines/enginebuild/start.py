"""How Triton is started for an engine: alone for one GPU, under mpirun with a rank for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRITON = "/opt/tritonserver/bin/tritonserver"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where Triton listens, Triton's own defaults."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002


def ranks(manifest: Mapping[str, Any]) -> int:
    """Return how many processes serve the engine: one for each GPU, and one on a CPU."""
    if manifest["builder"] == "llmapi":  # its LLM starts its own workers
        return 1
    return int(manifest.get("tp", 1)) * int(manifest.get("pp", 1))


def command(
    repository: Path, world: int, ports: Ports, *, triton: str = TRITON, address: str = "127.0.0.1"
) -> list[str]:
    """Return the command line.

    As TensorRT-LLM's launch_triton_server.py has it: each rank is a Triton of its own with its
    own shared-memory prefix; only rank 0 loads the models around the engine.
    """
    served = [_rank(repository, rank, ports, triton, address) for rank in range(world)]
    if world == 1:
        return served[0]
    words = ["mpirun"]
    for rank, one in enumerate(served):
        words += [*([":"] if rank else []), "-n", "1", *one]
    return words


def _rank(repository: Path, rank: int, ports: Ports, triton: str, address: str) -> list[str]:
    alone = ["--model-control-mode=explicit", "--load-model=tensorrt_llm"] if rank else []
    return [
        triton,
        f"--model-repository={repository}",
        *alone,
        f"--grpc-port={ports.grpc}",
        f"--http-port={ports.http}",
        f"--metrics-port={ports.metrics}",
        f"--grpc-address={address}",
        f"--http-address={address}",
        f"--metrics-address={address}",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=30",
        f"--backend-config=python,shm-region-prefix-name=forebay{rank}_",
    ]
