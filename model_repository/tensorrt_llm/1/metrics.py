"""The engine's gauges, with the family names and labels of TensorRT-LLM's Triton backend.

Every change of a value costs a message to Triton, so a gauge is set only when its value
changes, and the two that change with every step at most every `STATS_PERIOD_S`, which is
upstream's own default of `stats_check_period_ms`. Families this engine has no true number
for (reused blocks, disaggregated serving) are left out.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATS_PERIOD_S = 0.1
TOKEN_BUCKETS = [10.0, 50.0, 100.0, 500.0, 1000.0]

_FAMILIES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "nv_trt_llm_request_metrics": (
        "TRT LLM request metrics",
        "request_type",
        ("active", "max", "scheduled", "context", "waiting"),
    ),
    "nv_trt_llm_runtime_memory_metrics": (
        "TRT LLM runtime memory metrics",
        "memory_type",
        ("cpu", "gpu", "pinned"),
    ),
    "nv_trt_llm_kv_cache_block_metrics": (
        "TRT LLM KV cache block metrics",
        "kv_cache_block_type",
        ("max", "free", "used", "tokens_per", "fraction"),
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "TRT LLM inflight_batcher-specific metrics",
        "inflight_batcher_specific_metric",
        ("total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"),
    ),
    "nv_trt_llm_general_metrics": (
        "General TRT LLM metrics",
        "general_type",
        ("timestamp", "iteration_counter"),
    ),
}
_REQUESTS, _MEMORY, _KV, _BATCHER, _GENERAL = _FAMILIES
_LENGTHS = {
    "nv_llm_input_token_len": ("total_input_tokens", "Tokens of the prompt, by request"),
    "nv_llm_output_token_len": ("total_output_tokens", "Tokens of the answer, by request"),
}


@dataclass(frozen=True, slots=True)
class Load:
    """The engine's state after one step. `context` requests have decoded no token yet."""

    active: int
    scheduled: int
    context: int
    context_tokens: int
    used_blocks: int
    iteration: int


class Gauges:
    """Publishes `Load`s. One per model; `pb_utils` is Triton's module."""

    def __init__(self, pb_utils: Any, labels: Mapping[str, str]) -> None:
        self._gauges: dict[tuple[str, str], Any] = {}
        self._values: dict[tuple[str, str], float] = {}
        self._families: list[Any] = []
        self._stats_at = 0.0
        for family, (about, label, names) in _FAMILIES.items():
            made = self._family(pb_utils, family, about, pb_utils.MetricFamily.GAUGE)
            for name in names:
                self._gauges[family, name] = made.Metric(labels={**labels, label: name})
        self._lengths: dict[str, Any] = {}
        for family, (kind, about) in _LENGTHS.items():
            made = self._family(pb_utils, family, about, pb_utils.MetricFamily.HISTOGRAM)
            self._lengths[family] = made.Metric(
                labels={**labels, "response_metric_type": kind}, buckets=TOKEN_BUCKETS
            )

    def fix(self, *, requests: int, blocks: int, tokens_per_block: int) -> None:
        """Publish what never changes, and an idle engine."""
        self._set(_REQUESTS, "max", requests)
        self._set(_KV, "max", blocks)
        self._set(_KV, "tokens_per", tokens_per_block)
        for name in ("gpu", "pinned"):
            self._set(_MEMORY, name, 0)
        for name in ("micro_batch_id", "paused_requests"):
            self._set(_BATCHER, name, 0)
        self.publish(Load(0, 0, 0, 0, 0, 0), blocks)

    def publish(self, load: Load, blocks: int) -> None:
        """Publish the state after a step; `blocks` is the cache's size."""
        self._set(_REQUESTS, "active", load.active)
        self._set(_REQUESTS, "scheduled", load.scheduled)
        self._set(_REQUESTS, "waiting", load.active - load.scheduled)
        self._set(_REQUESTS, "context", load.context)
        self._set(_KV, "used", load.used_blocks)
        self._set(_KV, "free", blocks - load.used_blocks)
        self._set(_KV, "fraction", load.used_blocks / blocks)
        self._set(_BATCHER, "total_context_tokens", load.context_tokens)
        self._set(_BATCHER, "generation_requests", max(0, load.scheduled - load.context))
        now = time.monotonic()
        if load.active and now - self._stats_at < STATS_PERIOD_S:
            return
        self._stats_at = now
        self._set(_GENERAL, "timestamp", time.time_ns() // 1000)
        self._set(_GENERAL, "iteration_counter", load.iteration)
        self._set(_MEMORY, "cpu", _resident_bytes())

    def finished(self, input_tokens: int, output_tokens: int) -> None:
        """Count the lengths of one request that has ended."""
        self._lengths["nv_llm_input_token_len"].observe(input_tokens)
        self._lengths["nv_llm_output_token_len"].observe(output_tokens)

    def close(self) -> None:
        """Let go of Triton's objects while Triton still listens: later they crash the stub."""
        self._gauges.clear()
        self._lengths.clear()
        self._families.clear()

    def _family(self, pb_utils: Any, name: str, about: str, kind: Any) -> Any:
        made = pb_utils.MetricFamily(name=name, description=about, kind=kind)
        self._families.append(made)
        return made

    def _set(self, family: str, name: str, value: float) -> None:
        key = (family, name)
        if self._values.get(key) != value:
            self._gauges[key].set(value)
            self._values[key] = value


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")
