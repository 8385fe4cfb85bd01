"""Keeps what is known of one engine's load as fresh as its page is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from forebay.edges.triton_metrics.http import PageReader
from forebay.edges.triton_metrics.page import Freshness, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.ports import Clock
    from forebay.values import Scrape

PERIOD_S = 0.25
TIMEOUT_S = 1.0
SILENT_S = 5.0
"""A page without news for so long is told to the log, once; one long step is no news."""

FROZEN = "its numbers do not change though the engine has requests"

_log = structlog.get_logger("forebay.metrics")


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
        period_s: float = PERIOD_S,
    ) -> None:
        """Watch one model's page.

        Args:
            url: The page.
            model: Whose numbers to read.
            clock: When a scrape was made.
            own: Returns our own requests in the engine now.
            take: Given each fresh scrape with how many of its requests may have been ours.
            period_s: From one scrape to the next.
        """
        self._url = url
        self._reader = PageReader(url)
        self._model = model
        self._clock = clock
        self._own = own
        self._take = take
        self._period_s = period_s
        self._freshness = Freshness()
        self._fresh_s = clock.now_s()
        self._told = False
        self.why_not: str | None = "it was not scraped yet"
        """Why the last scrape brought no news; None if it did."""

    async def run(self) -> None:
        """Scrape every `period_s`; a page without news leaves the last one to grow old."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(self._period_s)
        finally:
            self._reader.close()

    async def step(self) -> None:
        """Scrape once, and hand on what is new."""
        # The page was written at some moment in between; the larger count of our own keeps
        # a request that came or went meanwhile from being taken for somebody else's.
        before = self._own()
        scrape = await self.once()
        own = max(before, self._own())
        if scrape is not None:
            self.why_not = None if self._freshness.fresh(scrape, own) else FROZEN
        if scrape is not None and self.why_not is None:
            self._take(scrape, own)
        self._tell()

    async def once(self) -> Scrape | None:
        """Return one scrape, or None where there is no page or the model's load is not on it."""
        asked_s = self._clock.now_s()
        try:
            page = await self._reader.get(TIMEOUT_S)
            scrape = parse(page.decode("utf-8", "replace"), self._model, asked_s)
        except (OSError, ValueError) as error:
            self.why_not = str(error) or f"no answer in {TIMEOUT_S:g} s"
            return None
        if scrape is None:
            self.why_not = f"the page does not tell the load of {self._model}"
        return scrape

    def _tell(self) -> None:
        """Log a page that has long been without news, and the first news after that."""
        now_s = self._clock.now_s()
        if self.why_not is None:
            self._fresh_s = now_s
            if self._told:
                _log.info("metrics are fresh again", page=self._url, model=self._model)
            self._told = False
        elif not self._told and now_s - self._fresh_s >= SILENT_S:
            self._told = True
            _log.warning(
                "metrics are stale; load is unknown",
                page=self._url,
                model=self._model,
                why=self.why_not,
            )
