"""What ModelStatistics tells: requests by the model that was named, since the door opened."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tritonclient.grpc import service_pb2 as kserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay.ports import Clock

_NANOS = 1_000_000_000


@dataclass(slots=True)
class Tally:
    """Counts of one model; durations in nanoseconds, `last_ms` on the wall clock."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    last_ms: int = 0


class Tallies:
    """One tally for each model that there is; a request that hangs up counts as failed.

    Args:
        clock: Times requests.
        names: The models that there are; a client may send any name, and others would fill the
            table.
    """

    def __init__(self, clock: Clock, names: Callable[[], tuple[str, ...]]) -> None:
        self._clock = clock
        self._names = names
        self._by_model: dict[str, Tally] = {}

    @contextmanager
    def counting(self, model: str) -> Iterator[None]:
        """Count one request from here to the end of the block."""
        known = model in self._by_model or model in self._names()
        tally = self._by_model.setdefault(model, Tally()) if known else Tally()
        started_s = self._clock.now_s()
        ended_well = False
        try:
            yield
            ended_well = True
        finally:
            spent_ns = round((self._clock.now_s() - started_s) * _NANOS)
            tally.last_ms = round(self._clock.wall_s() * 1000)
            if ended_well:
                tally.succeeded += 1
                tally.succeeded_ns += spent_ns
            else:
                tally.failed += 1
                tally.failed_ns += spent_ns

    def response(self, model: str) -> kserve.ModelStatisticsResponse:
        """Return the statistics of one model, or of all when `model` is empty."""
        chosen = {model: self._by_model.get(model, Tally())} if model else self._by_model
        answer = kserve.ModelStatisticsResponse()
        for name, tally in chosen.items():
            said = answer.model_stats.add(
                name=name,
                version="1",
                last_inference=tally.last_ms,
                inference_count=tally.succeeded,
                execution_count=tally.succeeded,
            )
            said.inference_stats.success.count = tally.succeeded
            said.inference_stats.success.ns = tally.succeeded_ns
            said.inference_stats.fail.count = tally.failed
            said.inference_stats.fail.ns = tally.failed_ns
        return answer
