"""aiconfigurator's estimate of the same deployment, from kernels measured on the SKU.

An extra dependency, imported when it is asked: without it, or where it has no table for the
SKU, `estimate` returns the reason in place of figures.
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from enginebuild.performance import Workload

PACKAGE = "aiconfigurator"

# Our SKU to aiconfigurator's system; those absent have no measured TensorRT-LLM kernels there.
SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "a100-80": "a100_sxm",
        "l40s": "l40s",
        "h100-sxm": "h100_sxm",
        "h200": "h200_sxm",
        "b200": "b200_sxm",
        "gb200": "gb200",
        "rtx-pro-6000": "rtx_pro_6000_server",
    }
)
# Our model to the repository whose config.json it ships.
MODELS: Mapping[str, str] = MappingProxyType(
    {
        "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B",
        "llama-3.3-70b": "meta-llama/Meta-Llama-3.1-70B",
        "llama-3.1-405b": "meta-llama/Meta-Llama-3.1-405B",
        "qwen3-8b": "Qwen/Qwen3-8B",
        "qwen3-32b": "Qwen/Qwen3-32B",
        "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
        "gpt-oss-20b": "openai/gpt-oss-20b",
        "gpt-oss-120b": "openai/gpt-oss-120b",
    }
)
# Our precision to its modes for dense GEMMs, experts, KV cache and context attention.
MODES: Mapping[str, tuple[str, str, str, str]] = MappingProxyType(
    {
        "bf16": ("bfloat16", "bfloat16", "bfloat16", "bfloat16"),
        "fp8": ("fp8", "fp8", "fp8", "fp8"),
        "nvfp4": ("nvfp4", "nvfp4", "fp8", "fp8"),
        "int8_wo": ("int8_wo", "int8_wo", "bfloat16", "bfloat16"),
        "int4_awq": ("int4_wo", "int4_wo", "bfloat16", "bfloat16"),
        "w4a8_mxfp4": ("bfloat16", "w4a8_mxfp4_mxfp8", "fp8", "fp8"),
        "w4a16_mxfp4": ("bfloat16", "w4a16_mxfp4", "bfloat16", "bfloat16"),
    }
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What aiconfigurator expects. `tokens_per_s` is of the whole replica."""

    version: str
    batch: int
    ttft_ms: float
    tpot_ms: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """One deployment at one batch, in our names."""

    model: str
    sku: str
    precision: str
    tp: int
    pp: int
    batch: int
    workload: Workload


def installed() -> str | None:
    """Return aiconfigurator's version, or None where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def estimate(case: Case) -> Estimate | str:
    """Return the estimate, or why there is none."""
    found = installed()
    if found is None:
        return f"{PACKAGE} is not installed: pip install aiconfigurator==0.12.0"
    system, model = SYSTEMS.get(case.sku), MODELS.get(case.model)
    modes = MODES.get(case.precision)
    missing = next(
        (
            name
            for name, known in ((case.sku, system), (case.model, model), (case.precision, modes))
            if known is None
        ),
        None,
    )
    if missing is not None:
        return f"{PACKAGE} {found} has no table for {missing}"
    said = _ask(_arguments(case, system, model, modes))
    if isinstance(said, str):
        return f"{PACKAGE} {found}: {said}"
    rate = float(said.get("tokens/s", 0.0))
    return Estimate(
        found,
        case.batch,
        round(float(said["ttft"]), 2),
        round(float(said["tpot"]), 3),
        round(rate, 1),
    )


def _arguments(case: Case, system: Any, model: Any, modes: Any) -> dict[str, Any]:
    gemm, moe, kv_cache, attention = modes
    return {
        "model_path": model,
        "system_name": system,
        "isl": case.workload.input_tokens,
        "osl": case.workload.output_tokens,
        "batch_size": case.batch,
        "tp_size": case.tp,
        "pp_size": case.pp,
        "moe_tp_size": case.tp,
        "moe_ep_size": 1,
        "gemm_quant_mode": gemm,
        "moe_quant_mode": moe,
        "kvcache_quant_mode": kv_cache,
        "fmha_quant_mode": attention,
    }


def _ask(arguments: dict[str, Any]) -> dict[str, Any] | str:
    """Return aiconfigurator's row, or its complaint in one line; its prints go nowhere.

    It refuses by ValueError and RuntimeError and their kin: no table, no memory, no such mode.
    """
    api = importlib.import_module("aiconfigurator.cli.api")
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            row: dict[str, Any] = dict(api.cli_estimate(**arguments).get())
    except (ValueError, RuntimeError, LookupError, AttributeError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    finally:
        logging.disable(disabled)
    return row
