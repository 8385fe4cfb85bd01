"""What fails after the first byte ends a stream with a typed error, never as if it were whole."""

from __future__ import annotations

import pytest
from streams import DOORS, End, asked
from structlog.testing import capture_logs
from told import Judge, Told

from forebay.errors import (
    STATUS,
    DeadlineExceeded,
    Declined,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
)
from forebay.values import Release

ERRORS = [
    EngineFailed("the engine broke"),
    EngineUnavailable("the engine left"),
    DeadlineExceeded("the deadline passed while the engine was answering"),
    Overloaded("the engine is full", 2.0),
    Declined("the model would not go on"),
    InvalidRequest("the engine did not understand"),
    KeyError("what nobody may read"),
]
ROUTE = {"verify": ["grounding"], "on_exhausted": "flag"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("release", "left"), [("token", "Otters hold hands."), ("window", "Otters hold ")]
)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_engine_that_breaks_after_the_first_byte(door, release, left, error):
    first, second, judge = Told(), Told(), Judge(Release(release))
    reason = STATUS[type(error)].reason if type(error) in STATUS else "internal"
    async with asked(door, first, second, route=ROUTE, judge=judge) as (back, stream):
        await first.say("Otters ", "hold ", "hands.")
        await stream.caught_up()
        assert stream.text() == left, "the client has read it"
        with capture_logs():
            first.fail(error)
            assert await stream.ended() == End(left, whole=False, reason=reason)
    assert second.calls == [], "what was read cannot be answered anew"
    assert judge.seen is None
    assert b"nobody may read" not in stream.raw
    assert [record.status for record in back.ledger.records] == [reason]
    assert b"[DONE]" not in stream.raw
    assert b'"stop"' not in stream.raw
