"""Tickets of the review queue: promises that outlive a crash, and secrets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace

import apsw
import pytest
from contract import engine_port
from reviewing import NOW_S, bodies, parked, queue

from forebay.errors import Overloaded
from forebay.testing import LoopClock, request
from forebay.values import Ticket


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review.db"


# ---- a ticket is a promise ---------------------------------------------------------------


async def test_what_was_parked_is_found_after_a_restart(path):
    with queue(path) as made:
        ticket = await parked(made, request("Is this safe?"))
        assert await made.find(ticket.id) == ticket == Ticket(ticket.id, "waiting", NOW_S)
    with queue(path) as again:
        assert await again.find(ticket.id) == ticket
        assert await again.find("never given") is None
    assert bodies(path)[ticket.id]["request"]["prompt"] == {"text": "Is this safe?"}


PARKS = """
import asyncio, sys
from pathlib import Path
from forebay.edges.clock import SystemClock
from forebay.edges.review import ReviewQueue
from forebay.testing import request
from forebay.values import Call, Prepared

async def park():
    queue = ReviewQueue(Path(sys.argv[1]), SystemClock())
    for number in range(5):
        asked = Call(request(f"case {number}"), Prepared(0), 0, None)
        async for chunk in queue.generate(asked):
            print(chunk.ticket.id, flush=True)
    await asyncio.Event().wait()

asyncio.run(park())
"""


def told_before_a_kill(path):
    """Return the tickets that a process told before it was killed."""
    run = [sys.executable, "-c", PARKS, str(path)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as router:
        told = [router.stdout.readline().strip() for _ in range(5)]
        router.send_signal(signal.SIGKILL)
    assert router.returncode == -signal.SIGKILL
    return told


async def test_tickets_that_were_told_outlive_a_kill(path):
    told = told_before_a_kill(path)
    with queue(path) as made:
        assert [(await made.find(one)).state for one in told] == ["waiting"] * 5
    kept = bodies(path)
    texts = [kept[one]["request"]["prompt"]["text"] for one in told]
    assert texts == [f"case {number}" for number in range(5)]


def test_a_commit_waits_for_the_disk(path):
    with queue(path) as made:
        assert made._connection.pragma("journal_mode") == "wal"
        assert made._connection.pragma("synchronous") == 2, "full: a power cut loses nothing told"


@pytest.mark.parametrize("state", ["answered", "rejected"])
async def test_what_a_person_settles_elsewhere_is_told_here(path, state):
    with queue(path, most=1) as made:
        ticket = await parked(made)
        desk = apsw.Connection(str(path))
        desk.execute("UPDATE cases SET state = ? WHERE ticket = ?", (state, ticket.id))
        with pytest.raises(apsw.ConstraintError):
            desk.execute("UPDATE cases SET state = 'done'")
        desk.close()
        assert await made.find(ticket.id) == replace(ticket, state=state)
        await parked(made)


# ---- who can read it ---------------------------------------------------------------------


def modes(path):
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}


PRIVATE = {"review.db": 0o600, "review.db-wal": 0o600, "review.db-shm": 0o600}


async def test_nobody_else_can_read_it(path):
    umask = os.umask(0)
    try:
        with queue(path) as made:
            await parked(made)
            assert modes(path) == PRIVATE
    finally:
        os.umask(umask)


async def test_one_that_was_restored_open_to_others_is_closed_to_them(path):
    copied = path.with_name("copied.db")
    with queue(path) as made:
        ticket = await parked(made)
        for suffix in ("", "-wal", "-shm"):
            beside = copied.with_name(copied.name + suffix)
            beside.write_bytes(path.with_name(path.name + suffix).read_bytes())
            beside.chmod(0o666)
    path.unlink()
    with queue(copied) as restored:
        assert await restored.find(ticket.id) == ticket
        assert set(modes(path).values()) == {0o600}


async def test_tickets_are_secrets_of_144_bits(path):
    with queue(path) as made:
        ids = [(await parked(made)).id for _ in range(50)]
        assert len(set(ids)) == 50
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{24}", one) for one in ids)


@pytest.mark.parametrize(
    "guess",
    [
        "",
        "%",
        "*",
        "' OR '1'='1",
        "x'; DROP TABLE cases; --",
        "\x00",
        "\ud800",
        "x" * 1_000_000,
        lambda one: one[:-1],
        lambda one: one + "\x00",
        lambda one: one + " ",
        lambda one: one.swapcase(),
        lambda one: f"{one}' --",
    ],
    ids=range(13),
)
async def test_nothing_but_the_ticket_itself_finds_anything(path, guess):
    with queue(path) as made:
        ticket = await parked(made, request("'); DROP TABLE cases; --"))
        assert await made.find(guess if isinstance(guess, str) else guess(ticket.id)) is None
        assert await made.find(ticket.id) == ticket
        assert (await parked(made)).id != ticket.id


# ---- several at once---------------------------------------------------------------------


async def test_all_that_are_parked_at_once_are_kept_under_tickets_of_their_own(path):
    with queue(path) as made:
        asked = [request(f"case {number}") for number in range(64)]
        tickets = await asyncio.gather(*(parked(made, one) for one in asked))
        assert [await made.find(one.id) for one in tickets] == tickets
    kept = bodies(path)
    assert len(kept) == 64
    texts = [kept[one.id]["request"]["prompt"]["text"] for one in tickets]
    assert texts == [f"case {number}" for number in range(64)]


async def test_those_parked_at_once_do_not_pass_the_bound(path):
    with queue(path, most=5) as made:
        asked = (parked(made) for _ in range(20))
        ended = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, Ticket) for one in ended) == 5
    assert sum(isinstance(one, Overloaded) for one in ended) == 15
    assert len(bodies(path)) == 5


# ---- the engine port ---------------------------------------------------------------------

NOT_A_PERSONS = {
    engine_port.a_prompt_has_tokens: "a person counts none, and takes a prompt of any length",
    engine_port.an_empty_prompt_is_the_clients_fault: "the corridor prepares nothing for a person",
    engine_port.only_the_last_chunk_says_how_it_ended: "its only chunk ends with `ticket`",
    engine_port.an_answer_is_no_longer_than_asked: "its answer has no tokens",
    engine_port.closing_it_early_stops_the_work: "after its only chunk there is no work to stop",
    engine_port.a_deadline_ends_it: "a ticket is given at once; nothing waits for the person",
    engine_port.several_answers_run_at_once: "counts tokens; see the tests of tickets at once",
}
"""What the contract asks of an engine that decodes, and why it says nothing of a person."""

OURS = [check for check in engine_port.CHECKS if check not in NOT_A_PERSONS]


@pytest.mark.parametrize("check", OURS, ids=lambda check: check.__name__)
async def test_it_keeps_the_engine_port_as_far_as_that_applies(path, check):
    with queue(path) as made:

        async def running():
            return int(made._one_at_a_time.locked())

        await check(made, LoopClock(), running)
