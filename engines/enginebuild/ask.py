"""What is asked for, and the value that says why it cannot be."""

from collections.abc import Callable
from dataclasses import dataclass

from enginebuild.capacity import Deployment
from enginebuild.precision import PRECISIONS
from enginebuild.spec import Model, Sku


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an ask cannot work. `nearest` says what would, or is empty where nothing is known."""

    rule: str
    reason: str
    source: str
    nearest: str = ""

    def sentence(self) -> str:
        """Return it as a person reads it."""
        mended = f" {self.nearest}." if self.nearest else ""
        return f"{self.reason}.{mended} [{self.rule}: {self.source}]"


@dataclass(frozen=True, slots=True)
class Ask:
    """A build as it is asked for. Lengths and `max_num_tokens` in tokens."""

    model_id: str
    model: Model
    sku_id: str
    sku: Sku
    precision: str
    gpus: int = 1
    tp: int = 1
    pp: int = 1
    output: str = "engine"
    max_batch_size: int = 1
    max_num_tokens: int = 8192
    max_input_len: int = 1024
    max_seq_len: int = 2048
    kv_fraction: float = 0.9
    chunked_context: bool = True
    paged_kv_cache: bool = True
    paged_context_fmha: bool = True
    multiple_profiles: bool = False
    opt_num_tokens: int | None = None
    plugins: frozenset[str] = frozenset()

    def deployment(self) -> Deployment:
        """Return what it would run on; the SKU must have a GPU and know the precision."""
        assert self.sku.gpu is not None, "asked of a GPU only"
        precision = PRECISIONS[self.precision]
        return Deployment(self.model.architecture, self.sku.gpu, precision, self.tp, self.pp)

    @property
    def sm(self) -> int:
        """Return the GPU's compute capability."""
        assert self.sku.gpu is not None, "asked of a GPU only"
        return self.sku.gpu.sm


Rule = Callable[[Ask], Refusal | None]
