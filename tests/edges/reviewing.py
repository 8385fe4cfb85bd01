"""A review queue on disk for a test, and what another process reads in it."""

from __future__ import annotations

import json
from contextlib import contextmanager

import apsw

from forebay.edges.review import ReviewQueue
from forebay.testing import ManualClock, request
from forebay.values import Call, Prepared

NOW_S = 1_700_000_000.5


@contextmanager
def queue(path, **more):
    made = ReviewQueue(path, ManualClock(NOW_S), **more)
    try:
        yield made
    finally:
        made.close()


def call(asked=None, **more):
    return Call(asked or request(), Prepared(0), 0, None, **more)


async def parked(made, asked=None, **more):
    """Park a request, and return its ticket."""
    (chunk,) = [chunk async for chunk in made.generate(call(asked, **more))]
    assert (chunk.text, chunk.tokens, chunk.finish) == ("", 0, "ticket")
    return chunk.ticket


def bodies(path):
    """Return what is kept, by ticket, as another process reads it."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = list(connection.execute("SELECT ticket, body FROM cases ORDER BY rowid"))
    finally:
        connection.close()
    return {ticket: json.loads(body) for ticket, body in rows}
