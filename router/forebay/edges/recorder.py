"""The ledger: records leave the event loop at once and are written in batches by a thread."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.values import Record

BATCH = 256
WAITING_LIMIT = 65_536
"""Records that may wait for a slow disk; beyond, new ones are lost, and the log says so."""

_log = structlog.get_logger("forebay.recorder")


def _tell(event: str, **about: object) -> None:
    """Log, unless the disk that is full is the log's as well."""
    with suppress(OSError, ValueError):
        _log.error(event, **about)


class Sink(Protocol):
    """Something that takes batches of records: a store, the metrics, the log."""

    def write(self, records: Sequence[Record]) -> None:
        """Take a batch; raising means that it is not taken."""
        ...


class Recorder:
    """A `Ledger` over sinks. A sink that fails is logged and never stops the others."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._waiting: queue.Queue[Record | None] = queue.Queue(WAITING_LIMIT)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Hand a record to the writer; a full queue is logged, never waited for."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            _tell("record_lost", id=record.id, why="the writer is behind by its whole queue")

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, then stop; a sink that hangs is given up after `timeout_s`."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=timeout_s)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _tell("records_not_written", count=self._waiting.qsize(), why="a sink does not return")

    def _run(self) -> None:
        going = True
        while going:
            batch = [self._waiting.get()]
            while len(batch) < BATCH and batch[-1] is not None:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            going = batch[-1] is not None
            self._hand([record for record in batch if record is not None])

    def _hand(self, records: list[Record]) -> None:
        if not records:
            return
        for sink in self._sinks:
            try:
                sink.write(records)
            except Exception as error:  # noqa: BLE001 - the thread's edge: it must outlive a sink
                _tell(
                    "records_not_written",
                    sink=type(sink).__name__,
                    count=len(records),
                    first=records[0].id,
                    why=str(error),
                )
