"""The file of what admission has learnt: whole or ignored, whatever lies there."""

from __future__ import annotations

import asyncio
import json
import resource
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from forebay.edges.learnt import MOST_BYTES, keep, load, save
from forebay.policy.admission.memory import ClassMemory, EngineMemory, Memory

ENGINE = EngineMemory(
    step_s=(0.02, 0.002, 2e-6, 3e-4), lag_s=0.05, ttft_spread_s=0.1, tpot_spread=0
)
CLASS = ClassMemory(ttft=2.0, rate=3.0, output_tokens=300.0, mean_tokens=90.0, answers=7)
MEMORY = Memory(engines={"digest": ENGINE}, classes={"chat": CLASS})
OTHER = Memory(classes={f"class-{number}": CLASS for number in range(500)})
NOTHING = Memory()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "learnt.json"


def read(path):
    """Return what is loaded, and the events that were logged."""
    with capture_logs() as logs:
        found = load(path)
    return found, [entry["event"] for entry in logs]


def test_what_is_saved_is_read_and_nothing_is_logged(path):
    with capture_logs() as logs:
        save(path, MEMORY)
        assert load(path) == MEMORY
        save(path, OTHER)
        assert load(path) == OTHER
    assert logs == []
    assert [one.name for one in path.parent.iterdir()] == ["learnt.json"]


def test_a_router_that_never_ran_knows_nothing_and_says_nothing(path):
    assert read(path) == (NOTHING, [])
    assert read(path / "no such folder" / "learnt.json") == (NOTHING, [])


WHOLE = MEMORY.model_dump_json(indent=1).encode()
PLAIN = json.loads(WHOLE)


def without(part):
    return json.dumps({**PLAIN, "classes": {"chat": {**PLAIN["classes"]["chat"], **part}}}).encode()


@pytest.mark.parametrize(
    ("why", "raw"),
    [
        ("empty", b""),
        ("no JSON", b"learnt: everything"),
        ("not UTF-8", b'{"classes": {"\xff": {}}}'),
        ("another program's", b'{"version": 3, "sessions": []}'),
        ("a newer router's", json.dumps({**PLAIN, "clouds": {}}).encode()),
        ("an older router's", b'{"engines": {"digest": [0.01, 0.001, 1e-6, 1e-4]}}'),
        ("no object", b"null"),
        ("a list", b"[]"),
        ("no number", without({"ttft": float("nan")})),
        ("no end", without({"mean_tokens": float("inf")})),
        ("a factor that no class can have", without({"rate": 1000})),
        ("a number as long as a book", b'{"classes": ' + b"9" * 100_000 + b"}"),
        ("nested without end", b"[" * 500_000),
        ("zeros after a power cut", bytes(len(WHOLE))),
        ("too large", WHOLE + b" " * MOST_BYTES),
    ],
)
def test_what_cannot_be_read_is_ignored_and_told_once(path, why, raw):
    path.write_bytes(raw)
    assert read(path) == (NOTHING, ["learnt.unread"]), why
    save(path, MEMORY)
    assert read(path) == (MEMORY, []), "and is written anew"


def test_half_a_file_is_ignored_wherever_it_ends(path):
    for end in range(len(WHOLE)):
        path.write_bytes(WHOLE[:end])
        assert read(path) == (NOTHING, ["learnt.unread"]), WHOLE[:end]


def test_a_folder_in_its_place_is_told_and_stops_nothing(path):
    path.mkdir()
    assert read(path) == (NOTHING, ["learnt.unread"])
    with capture_logs() as logs:
        save(path, MEMORY)
    assert [entry["event"] for entry in logs] == ["learnt.unwritten"]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=4)),
    )
)
def test_no_bytes_stop_a_router(path, damage):
    if isinstance(damage, tuple):
        at, other = damage
        damage = WHOLE[:at] + other + WHOLE[at + len(other) :]
    path.write_bytes(damage)
    found, logs = read(path)
    assert isinstance(found, Memory)
    assert not logs or found == NOTHING


# ---- whole or not at all -----------------------------------------------------------------


def test_whoever_reads_while_it_is_written_reads_one_or_the_other(path):
    save(path, MEMORY)
    stopping = threading.Event()

    def write():
        while not stopping.is_set():
            save(path, OTHER)
            save(path, MEMORY)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [read(path) for _ in range(300)]
    finally:
        stopping.set()
        writer.join()
    assert all(logs == [] for _, logs in found)
    assert all(memory in (MEMORY, OTHER) for memory, _ in found)


@contextmanager
def no_more_bytes():
    """The operating system refuses to make a file longer than a little."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_what_was_there_and_is_told(path):
    save(path, MEMORY)
    with capture_logs() as logs, no_more_bytes():
        save(path, OTHER)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("learnt.unwritten", "warning")
    ]
    assert load(path) == MEMORY
    save(path, OTHER)
    assert load(path) == OTHER


# ---- over and over -----------------------------------------------------------------------


async def ended(keeping):
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_it_is_written_while_the_router_runs(path):
    known = [MEMORY]
    keeping = asyncio.create_task(keep(path, lambda: known[-1], period_s=0.01))
    for memory in (MEMORY, OTHER):
        known.append(memory)
        async with asyncio.timeout(5):
            while load(path) != memory:  # noqa: ASYNC110 - a file tells nobody that it changed
                await asyncio.sleep(0.01)
    await ended(keeping)


async def test_it_is_written_once_more_when_the_router_stops(path):
    keeping = asyncio.create_task(keep(path, lambda: MEMORY))
    await asyncio.sleep(0)
    assert not path.exists()
    await ended(keeping)
    assert load(path) == MEMORY


async def test_a_disk_that_is_away_for_a_time_stops_nothing(path):
    away = path.parent / "home" / "learnt.json"
    keeping = asyncio.create_task(keep(away, lambda: MEMORY, period_s=0.01))
    with capture_logs() as logs:
        await asyncio.sleep(0.1)
    assert {entry["event"] for entry in logs} == {"learnt.unwritten"}
    away.parent.mkdir()
    async with asyncio.timeout(5):
        while load(away) != MEMORY:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    await ended(keeping)
