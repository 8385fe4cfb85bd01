"""The programs that a build runs, and where they are: in NVIDIA's container but for one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginebuild.machine import TENSORRT_LLM, Machine, probe

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-triton"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a build runs. `examples` is TensorRT-LLM's folder of that name.

    Its place in the container is from memory: `--examples` names another. `python` is the
    container's, and not the one this project runs in. `called` is what a person is told ran;
    stand-ins say there what they are. `environment` is the one that Triton runs the embedded
    engine in.
    """

    examples: Path = Path("/app/examples")
    called: str = f"TensorRT-LLM {TENSORRT_LLM}"
    environment: Path = ENVIRONMENT
    mpirun: str = "mpirun"
    trtllm_build: str = "trtllm-build"
    fetch: str = "hf"
    python: str = "python3"
    machine: Callable[[], Machine] = probe

    @property
    def convert(self) -> tuple[str, str]:
        """The command of convert_checkpoint.py for the Llama family."""
        return (
            self.python,
            str(self.examples / "models" / "core" / "llama" / "convert_checkpoint.py"),
        )

    @property
    def quantize(self) -> tuple[str, str]:
        """The command of quantize.py."""
        return self.python, str(self.examples / "quantization" / "quantize.py")

    def packaged(self, package: str) -> Path | None:
        """Return where Triton's environment has that package, or None where it has not."""
        found = sorted(self.environment.glob(f"lib/python3.*/site-packages/{package}"))
        return found[0] if found else None

    def run(self, gpus: int) -> tuple[str, ...]:
        """Return the command of run.py: under mpirun, a rank for each GPU, where there are more."""
        ranks = (self.mpirun, "-n", str(gpus)) if gpus > 1 else ()
        return (*ranks, self.python, str(self.examples / "run.py"))
