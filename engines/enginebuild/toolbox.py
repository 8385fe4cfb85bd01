"""The programs of a GPU build, and where they are in NVIDIA's container."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginebuild.machine import Machine, probe


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a GPU build runs. `examples` is TensorRT-LLM's folder of that name.

    Its place in the container is from memory: `--examples` names another. `python` is the
    container's, and not the one this project runs in.
    """

    examples: Path = Path("/app/examples")
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
