"""A review queue that is full, or whose disk or database is: told, and over when it is over."""

from __future__ import annotations

import asyncio
import resource
from contextlib import contextmanager, suppress

import apsw
import pytest
from reviewing import bodies, parked, queue

from forebay.edges.review import RETRY_S, ReviewQueue
from forebay.errors import EngineUnavailable, Overloaded, SettingsError
from forebay.testing import LoopClock, ManualClock, request


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review.db"


async def test_a_full_queue_refuses_and_says_when_to_come_back(path):
    with queue(path, most=2) as made:
        kept = [await parked(made), await parked(made)]
        with pytest.raises(Overloaded, match="2 requests wait for a person already") as caught:
            await parked(made)
        assert caught.value.retry_after_s == RETRY_S
        assert [await made.find(one.id) for one in kept] == kept
    assert len(bodies(path)) == 2


@contextmanager
def no_more_pages(made):
    """SQLite's own bound, which fails a commit as a full disk does."""
    database = made._connection
    pages = database.pragma("page_count")
    database.pragma("max_page_count", pages + 1)
    try:
        yield
    finally:
        database.pragma("max_page_count", 1 << 30)


@contextmanager
def no_more_bytes(made):
    """The operating system refuses to make a file longer than what is there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("full", "why"), [(no_more_pages, "disk is full"), (no_more_bytes, "disk I/O error")]
)
async def test_a_full_disk_is_told_and_is_over_when_it_is_over(path, full, why):
    with queue(path) as made:
        before = await parked(made)
        with full(made):
            for _ in range(2):
                with pytest.raises(EngineUnavailable, match=f"cannot be written: .*{why}"):
                    await parked(made, request("x" * 500_000))
        assert await made.find(before.id) == before
        after = await parked(made, request("x" * 500_000))
        assert await made.find(after.id) == after
    assert list(bodies(path)) == [before.id, after.id]


@pytest.mark.parametrize(
    ("why", "prepare"),
    [
        ("its folder is a file", lambda path: path.parent.write_bytes(b"")),
        ("it is a folder", lambda path: path.mkdir(parents=True)),
        ("it is no database", lambda path: (path.parent.mkdir(), path.write_bytes(b"no" * 4096))),
    ],
)
def test_one_that_cannot_be_opened_says_what_to_do(path, why, prepare):
    inside = path.parent / "home" / "review.db"
    prepare(inside)
    with pytest.raises(SettingsError, match="FOREBAY_HOME"):
        ReviewQueue(inside, ManualClock())


async def test_once_closed_it_is_unavailable_and_breaks_nothing(path):
    with queue(path) as made:
        ticket = await parked(made)
    with pytest.raises(EngineUnavailable):
        await parked(made)
    with pytest.raises(EngineUnavailable):
        await made.find(ticket.id)


# ---- others that write, and clients that leave -------------------------------------------


@contextmanager
def written_elsewhere(path):
    """Hold the database as another program does that is writing."""
    desk = apsw.Connection(str(path))
    desk.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        desk.close()


async def waits(made):
    """Wait until a request is being parked; the loop must run meanwhile."""
    async with asyncio.timeout(5):
        while not made._one_at_a_time.locked():  # noqa: ASYNC110 - the thread has no event
            await asyncio.sleep(0.001)


async def test_a_hang_up_while_it_parks_leaves_the_queue_usable(path):
    with queue(path) as made:
        with written_elsewhere(path):
            parking = asyncio.create_task(parked(made, request("left")))
            await waits(made)
            parking.cancel()
            with suppress(asyncio.CancelledError):
                await parking
            assert parking.cancelled()
        ticket = await parked(made, request("stayed"))
        assert await made.find(ticket.id) == ticket
    texts = [kept["request"]["prompt"]["text"] for kept in bodies(path).values()]
    assert texts[-1] == "stayed"


async def test_another_writer_is_waited_for_and_others_go_on_meanwhile(path):
    with queue(path) as made:
        with written_elsewhere(path):
            parking = asyncio.create_task(parked(made))
            await waits(made)
            began_s, worst_s = LoopClock().now_s(), 0.0
            for _ in range(20):
                await asyncio.sleep(0.01)
                worst_s = max(worst_s, LoopClock().now_s() - began_s)
                began_s = LoopClock().now_s()
            assert not parking.done()
        ticket = await parking
        assert await made.find(ticket.id) == ticket
    assert worst_s < 1.0


async def test_a_writer_elsewhere_that_does_not_end_is_told(path):
    with queue(path) as made:
        with written_elsewhere(path), pytest.raises(EngineUnavailable, match="locked"):
            await parked(made)
        await parked(made)
