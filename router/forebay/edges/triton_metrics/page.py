"""What one metrics page says of one model, and whether it says anything new.

Families and labels are TensorRT-LLM's: `nv_trt_llm_request_metrics{request_type}`,
`nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type}`,
`nv_trt_llm_inflight_batcher_metrics{inflight_batcher_specific_metric}` and
`nv_trt_llm_general_metrics{general_type}`; `nv_inference_pending_request_count` is Triton's.
A page that does not tell the model's active requests and its KV cache is no scrape: load that
is unknown is not full. A number that is negative, not finite or absurd makes the page none, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from forebay.values import Scrape

if TYPE_CHECKING:
    from collections.abc import Mapping

    Told = Mapping[tuple[str, str], float]

MOST = 1e18
"""More than any number of a true page: a timestamp in microseconds is a thousandth of it."""

_ENGINE = {
    "request": "request_type",
    "kv_cache_block": "kv_cache_block_type",
    "inflight_batcher": "inflight_batcher_specific_metric",
    "general": "general_type",
}
"""Each family of the engine, with the label that says which of its numbers a line holds."""

_LINE = re.compile(
    r"^nv_(?:trt_llm_(request|kv_cache_block|inflight_batcher|general)_metrics"
    r"|inference_(pending)_request_count)"
    r"""\{((?:[^}"\n]|"(?:[^"\\\n]|\\.)*+")*+)\} +(\S+)""",
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(page: str, model: str, at_s: float) -> Scrape | None:
    """Return what a metrics page says of `model`, or None where it does not tell its load.

    Raises:
        ValueError: a number is none, negative or not finite.
    """
    told = _told(page, model)
    active, kv_used = told.get(("request", "active")), _kv_used(told)
    if active is None or kv_used is None:
        return None
    scheduled = told.get(("request", "scheduled"))
    # Before v0.18.0 the backend told no `waiting`; it is this difference.
    waiting = max(0.0, active - (active if scheduled is None else scheduled))
    return Scrape(
        at_s=at_s,
        active=int(active),
        waiting=int(told.get(("request", "waiting"), waiting)),
        scheduled=int(scheduled or 0),
        max_requests=_count(told, "request", "max"),
        kv_used=kv_used,
        kv_blocks_max=_count(told, "kv_cache_block", "max"),
        kv_blocks_used=_count(told, "kv_cache_block", "used"),
        tokens_per_block=_count(told, "kv_cache_block", "tokens_per"),
        context_tokens=_count(told, "inflight_batcher", "total_context_tokens"),
        generating=_count(told, "inflight_batcher", "generation_requests"),
        iterations=_maybe(told, "general", "iteration_counter"),
        stats_at_us=_maybe(told, "general", "timestamp"),
        pending=_count(told, "pending", ""),
    )


def _told(page: str, model: str) -> Told:
    told: dict[tuple[str, str], float] = {}
    for family, pending, written, value in _LINE.findall(page):
        labels = dict(_LABEL.findall(written))
        if labels.get("model") != model:
            continue
        number = float(value)
        if family == "inflight_batcher" and -MOST <= number < 0:
            number = 0.0  # the difference of two counts that were not taken at one moment
        if not 0 <= number <= MOST:
            raise ValueError(f"{model} has {value} as {family or pending}")
        told[family or pending, labels.get(_ENGINE.get(family, ""), "")] = number
    return told


def _kv_used(told: Told) -> float | None:
    """Return the share of KV blocks in use; told as such only from v0.18.0 on."""
    fraction = told.get(("kv_cache_block", "fraction"))
    if fraction is None:
        most, used = told.get(("kv_cache_block", "max")), told.get(("kv_cache_block", "used"))
        if not most or used is None:
            return None
        fraction = used / most
    return min(1.0, fraction)


def _count(told: Told, family: str, kind: str) -> int:
    return int(told.get((family, kind), 0))


def _maybe(told: Told, family: str, kind: str) -> int | None:
    number = told.get((family, kind))
    return None if number is None else int(number)


class Freshness:
    """Whether each scrape of an engine is news, or numbers that nobody renews any more.

    An engine writes its numbers as it steps, and only then. So:

    * Any of its own numbers differs from the last scrape, its timestamp and iteration counter
      above all: the engine has stepped since, and the scrape is fresh.
    * Nothing differs, the page says that nobody is inside or waiting, and none of ours is
      inside: an idle engine does not step, its numbers stay true, and the scrape is fresh.
    * Nothing differs although the page says somebody is inside, or we know it: either one
      step takes that long, or the numbers are frozen. In both cases they are as old as they
      were; the last fresh scrape stays, and its age grows until admission takes the load for
      unknown. An engine of TensorRT-LLM that went idle may be left telling its last step's
      requests for ever: those phantoms age away in the same way and refuse nobody.

    What cannot be told apart: numbers that froze while they said "idle" look like an idle
    engine until the router sends something there itself, or Triton counts requests that wait
    in front of it. `pending` is Triton's own and moves though the engine's numbers are frozen,
    so it is no sign of life.
    """

    def __init__(self) -> None:
        self._last: Scrape | None = None

    def fresh(self, scrape: Scrape, own: int) -> bool:
        """Return whether a scrape is news. `own` is the most of ours inside around it."""
        last, self._last = self._last, scrape
        if last is None or _engines(last) != _engines(scrape):
            return True
        return not (scrape.active or scrape.waiting or scrape.pending or own)


def _engines(scrape: Scrape) -> tuple[float | None, ...]:
    """Return the numbers that the engine itself writes."""
    return (
        scrape.stats_at_us,
        scrape.iterations,
        scrape.active,
        scrape.waiting,
        scrape.scheduled,
        scrape.kv_blocks_used,
        scrape.kv_used,
        scrape.context_tokens,
        scrape.generating,
    )
