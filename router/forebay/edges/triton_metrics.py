"""The load of Triton's engines, scraped from `/metrics`.

Families and labels are TensorRT-LLM's: `nv_trt_llm_request_metrics{request_type}` and
`nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type}`. A page that does not name the model is
no scrape: load that is unknown is not full.
"""

from __future__ import annotations

import asyncio
import re
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from forebay.values import Scrape

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.ports import Clock

PERIOD_S = 0.25
TIMEOUT_S = 1.0
LIMIT_BYTES = 1 << 20

_LINE = re.compile(r"^nv_trt_llm_(request|kv_cache_block)_metrics\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def parse(page: str, model: str, at_s: float) -> Scrape | None:
    """Return what a metrics page says of `model`, or None where it does not name it."""
    found: dict[tuple[str, str], float] = {}
    for family, written, value in _LINE.findall(page):
        labels = dict(_LABEL.findall(written))
        category = labels.get("request_type") or labels.get("kv_cache_block_type", "")
        if labels.get("model") == model:
            found[family, category] = float(value)
    if ("request", "active") not in found:
        return None
    return Scrape(
        at_s=at_s,
        active=int(found["request", "active"]),
        waiting=int(found.get(("request", "waiting"), 0)),
        scheduled=int(found.get(("request", "scheduled"), 0)),
        max_requests=int(found.get(("request", "max"), 0)),
        kv_used=found.get(("kv_cache_block", "fraction"), 0.0),
    )


class MetricsScraper:
    """Reads one engine's metrics page over and over and hands on what it says."""

    def __init__(
        self,
        url: str,
        model: str,
        clock: Clock,
        *,
        own: Callable[[], int],
        take: Callable[[Scrape, int], None],
    ) -> None:
        """Watch one model's page.

        Args:
            url: The page.
            model: Whose numbers to read.
            clock: When a scrape was made.
            own: Returns our own requests in the engine now.
            take: Given each scrape with how many of its requests may have been ours.
        """
        self._url = url
        self._model = model
        self._clock = clock
        self._own = own
        self._take = take

    async def run(self) -> None:
        """Scrape every `PERIOD_S`; a page that fails leaves the last one to grow old."""
        while True:
            # The page was written at some moment in between; the larger count of our own keeps
            # a request that came or went meanwhile from being taken for somebody else's.
            before = self._own()
            scrape = await self.once()
            if scrape is not None:
                self._take(scrape, max(before, self._own()))
            await asyncio.sleep(PERIOD_S)

    async def once(self) -> Scrape | None:
        """Return one scrape, or None where there is no page or the model is not on it."""
        asked_s = self._clock.now_s()
        try:
            return parse(await asyncio.to_thread(self._get), self._model, asked_s)
        except (OSError, ValueError, ArithmeticError, HTTPException):
            return None

    def _get(self) -> str:
        with urllib.request.urlopen(self._url, timeout=TIMEOUT_S) as response:  # noqa: S310 - the operator's own URL
            body: bytes = response.read(LIMIT_BYTES)
        return body.decode("utf-8", "replace")
