"""`human_review_queue`: requests that wait for a person, in SQLite, each under a ticket.

A ticket is given once its request is on the disk: who holds one will find it again after a crash
or a power cut. What is kept is the request as its class completed it, what was tried, and the
answer that failed, so the file and SQLite's own beside it are for the router's own user alone.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import apsw

from forebay.errors import EngineUnavailable, Overloaded, SettingsError
from forebay.values import Abilities, Chunk, Prepared, Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from forebay.ports import Clock
    from forebay.values import Call, Request

MOST_WAITING = 10_000
"""Requests that may wait; people who are so far behind are no answer to the next one."""

RETRY_S = 600.0
"""When a client may come back to a queue that is full."""

_NO_LIMITS = Abilities(max_input_tokens=1 << 40, max_seq_tokens=1 << 41)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cases (
  ticket TEXT PRIMARY KEY,
  request_id TEXT NOT NULL,
  at_wall_s REAL NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'answered', 'rejected')),
  body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS cases_by_state ON cases (state, at_wall_s);
"""


class ReviewQueue:
    """An `Engine` that answers with a ticket, and the `Tickets` to look it up by."""

    abilities = _NO_LIMITS

    def __init__(self, path: Path, clock: Clock, *, most: int = MOST_WAITING) -> None:
        """Open or create the queue.

        Args:
            path: The database.
            clock: Tells when a request came.
            most: Requests that may wait at once.

        Raises:
            SettingsError: it cannot be opened or written.
        """
        self._clock = clock
        self._most = most
        self._one_at_a_time = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _close_to_others(path)
            self._connection = apsw.Connection(str(path))
            self._connection.pragma("journal_mode", "wal")
            # Not `normal`, as records have it: that may lose what was committed in a power cut.
            self._connection.pragma("synchronous", "full")
            self._connection.set_busy_timeout(2000)
            self._connection.execute(_SCHEMA)
        except (OSError, apsw.Error) as error:
            raise SettingsError(
                f"cannot keep requests for people in {path}: {error}; free the disk or set "
                "FOREBAY_HOME"
            ) from error

    async def prepare(self, _request: Request) -> Prepared:
        """Return that a person counts no tokens."""
        return Prepared(0)

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield one chunk, which holds the ticket; the request is durable by then.

        Raises:
            Overloaded: too many wait.
            EngineUnavailable: the queue cannot be written now.
        """
        ticket = Ticket(secrets.token_urlsafe(18), at_wall_s=self._clock.wall_s())
        await asyncio.to_thread(self._park, ticket, call)
        yield Chunk(finish="ticket", ticket=ticket)

    async def find(self, ticket_id: str) -> Ticket | None:
        """Return a ticket as it stands now."""
        if not ticket_id.isascii():
            return None
        return await asyncio.to_thread(self._find, ticket_id)

    def close(self) -> None:
        """Close the database, after what is being written."""
        with self._one_at_a_time:
            self._connection.close()

    def _park(self, ticket: Ticket, call: Call) -> None:
        row = (
            ticket.id,
            call.request.id,
            ticket.at_wall_s,
            ticket.state,
            # Not orjson: it writes no half of a surrogate pair, as a provider's JSON may hold, and
            # no value as deep as a request may be; what cannot be written would be lost.
            json.dumps(case(call)),
        )
        try:
            with self._one_at_a_time, self._transaction():
                if self._waiting() >= self._most:
                    raise Overloaded(f"{self._most} requests wait for a person already", RETRY_S)
                self._connection.execute("INSERT INTO cases VALUES (?,?,?,?,?)", row)
        except apsw.Error as error:
            raise EngineUnavailable(f"the review queue cannot be written: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Keep all that is written inside, or nothing.

        By statements, because apsw's own way lets no other thread run until the disk is flushed;
        immediate, because what reads before it writes is not made to wait for another writer.
        """
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # A disk that is full has ended it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _find(self, ticket_id: str) -> Ticket | None:
        with suppress(StopIteration):
            try:
                with self._one_at_a_time:
                    found = next(
                        self._connection.execute(
                            "SELECT ticket, state, at_wall_s FROM cases WHERE ticket = ?",
                            (ticket_id,),
                        )
                    )
            except apsw.Error as error:
                raise EngineUnavailable(f"the review queue cannot be read: {error}") from error
            return Ticket(*found)
        return None

    def _waiting(self) -> int:
        asked = "SELECT count(*) FROM cases WHERE state = 'waiting'"
        return int(next(self._connection.execute(asked))[0])


def case(call: Call) -> dict[str, Any]:
    """Return what a person needs of a call: the request, what was tried, the answer that failed."""
    request = asdict(call.request)
    # Moments of the monotonic clock mean nothing to who reads this later.
    del request["received_s"], request["deadline_s"]
    before = [asdict(attempt) for attempt in call.before]
    return {"request": request, "before": before, "draft": call.draft}


def _close_to_others(path: Path) -> None:
    """Make the database readable by its owner alone; SQLite's own files take that from it.

    One that was restored from a backup may be open to others, and so may be what lay beside it.
    """
    path.touch(mode=0o600)
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).chmod(0o600)
