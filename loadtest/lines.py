"""Outcomes as JSON lines, written by a thread: who reads them may be slow, and no request may wait.

A pipe holds 64 KiB. Were it written to by the loop that sends, a reader who is busy for a second
would make requests late, and their lateness would look like the service's.
"""

from __future__ import annotations

import json
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TextIO

from loadtest.outcome import to_json

if TYPE_CHECKING:
    from loadtest.outcome import Outcome


class Lines:
    """Writes each outcome that is put to a file, in that order."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._line: SimpleQueue[Outcome | None] = SimpleQueue()
        self._broken: OSError | None = None
        self._writer = Thread(target=self._write, daemon=True)
        self._writer.start()

    def put(self, outcome: Outcome) -> None:
        """Let an outcome be written.

        Raises:
            OSError: nobody reads any more.
        """
        if self._broken is not None:
            raise self._broken
        self._line.put(outcome)

    def close(self) -> None:
        """Wait until all are written, or nobody reads any more."""
        self._line.put(None)
        self._writer.join()

    def _write(self) -> None:
        try:
            while (outcome := self._line.get()) is not None:
                print(json.dumps(to_json(outcome)), file=self._file, flush=True)
        except OSError as error:
            self._broken = error
