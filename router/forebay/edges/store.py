"""Records in SQLite, written in batches by the recorder's thread.

apsw and not the standard library's sqlite3: Debian's links a version whose WAL can corrupt a
database that two connections use (fixed in SQLite 3.51.3).
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import apsw
import orjson

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forebay.values import Record

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  id TEXT NOT NULL,
  at_wall_s REAL NOT NULL,
  route TEXT NOT NULL,
  target TEXT NOT NULL,
  status TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS records_by_time ON records (at_wall_s);
CREATE INDEX IF NOT EXISTS records_by_id ON records (id);
"""


class RecordStore:
    """A table of records; each is one JSON object beside the columns it is looked up by."""

    def __init__(self, path: Path) -> None:
        """Open or create the database.

        Raises:
            SettingsError: it cannot be opened or written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = apsw.Connection(str(path))
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "normal")
            self._connection.set_busy_timeout(2000)
            self._connection.execute(_SCHEMA)
        except (OSError, apsw.Error) as error:
            raise SettingsError(
                f"cannot keep records in {path}: {error}; free the disk or set FOREBAY_HOME"
            ) from error

    def write(self, records: Sequence[Record]) -> None:
        """Write a batch in one transaction.

        Raises:
            OSError: the disk is full or failing; nothing of the batch was written.
        """
        rows = [
            (r.id, r.at_wall_s, r.route, r.target, r.status, orjson.dumps(body(r)).decode())
            for r in records
        ]
        try:
            # By statements: `with` the connection no other thread runs until the disk is flushed.
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO records VALUES (?,?,?,?,?,?)", rows)
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def body(record: Record) -> dict[str, Any]:
    """Return a record as its store keeps it: without the gaps between tokens."""
    # Emptied first: copying thousands of gaps to drop them took most of a record's time.
    kept = asdict(replace(record, itl_ms=()))
    del kept["itl_ms"]
    return kept
