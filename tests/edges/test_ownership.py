"""Routers that share a file: each replica one owner, the dead replaced, a lost file survived."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.edges import ownership
from forebay.edges.ownership import BEAT_S, LEASE_S, Ownership
from forebay.policy.ownership import Holding
from forebay.testing import ManualClock

FOUR = frozenset({"r1:8001", "r2:8001", "r3:8001", "r4:8001"})


class Router:
    """One router on a file, beaten by hand."""

    def __init__(self, path, name, clock, replicas=FOUR):
        self.replicas = {"llm": replicas}
        self.told = []
        self.share = Ownership(
            path, name, clock, pools=lambda: self.replicas, changed=self.told.append
        )

    async def beats(self):
        await self.share.step()
        return self.told[-1]["llm"]


@pytest.fixture
def house(tmp_path):
    """Makes routers on one file and one clock."""
    clock, made = ManualClock(), []

    def make(name, replicas=FOUR):
        made.append(Router(tmp_path / "shared" / "routers.db", name, clock, replicas))
        return made[-1]

    make.clock, make.path = clock, tmp_path / "shared" / "routers.db"
    yield make
    for router in made:
        router.share.close()


async def beaten(*routers, times=1):
    for _ in range(times):
        for router in routers:
            await router.beats()
    return [router.told[-1]["llm"] for router in routers]


def shared_out(holdings, replicas=FOUR):
    """Assert that each replica has one owner, alone with it, and shares are fair."""
    assert all(h.alone for h in holdings)
    assert sorted(r for h in holdings for r in h.replicas) == sorted(replicas)
    sizes = [len(h.replicas) for h in holdings]
    assert max(sizes) - min(sizes) <= 1


async def test_one_router_owns_all(house):
    assert await house("a").beats() == Holding(FOUR, alone=True)


async def test_a_second_router_gets_its_share_once_the_first_hands_it_on(house):
    first, second = house("a"), house("b")
    await first.beats()
    assert await second.beats() == Holding(FOUR, alone=False), "it owns nothing yet"
    assert len((await first.beats()).replicas) == 2
    shared_out(await beaten(second, first))
    settled = await beaten(first, second)
    assert await beaten(first, second, times=5) == settled
    assert len(first.told) == 2, "only what is new is told"


async def test_a_router_that_dies_is_replaced_when_its_lease_ends(house):
    first, second = house("a"), house("b")
    shared_out(await beaten(first, second, times=3))
    house.clock.time_s += LEASE_S - 0.01
    assert len((await second.beats()).replicas) == 2
    house.clock.time_s += 0.01
    assert await second.beats() == Holding(FOUR, alone=True)


async def test_a_router_that_leaves_is_replaced_at_once(house):
    first, second = house("a"), house("b")
    await beaten(first, second, times=3)
    first.share.close()
    assert await second.beats() == Holding(FOUR, alone=True)


async def test_a_router_that_was_gone_comes_back_as_a_new_one(house):
    first, second = house("a"), house("b")
    await beaten(first, second, times=3)
    house.clock.time_s += 2 * LEASE_S
    await second.beats()
    assert (await first.beats()) == Holding(FOUR, alone=False)
    shared_out(await beaten(second, first))


async def test_more_routers_than_replicas_share(house):
    pair = frozenset({"r1:8001", "r2:8001"})
    routers = [house(name, pair) for name in "abc"]
    holdings = await beaten(*routers, times=3)
    assert not any(h.alone for h in holdings)
    assert sorted(len(h.replicas) for h in holdings) == [1, 1, 2]


async def test_a_replica_that_its_owner_cannot_use_goes_to_who_can(house):
    first, second = house("a"), house("b")
    await beaten(first, second, times=3)
    lost = min(first.told[-1]["llm"].replicas)
    first.replicas = {"llm": FOUR - {lost}}
    await beaten(first, second)
    first_holds, second_holds = await beaten(first, second)
    assert lost in second_holds.replicas
    assert lost not in first_holds.replicas
    assert len(first_holds.replicas) == len(second_holds.replicas) == 2


async def test_replicas_come_and_go(house):
    first, second = house("a"), house("b")
    await beaten(first, second, times=3)
    six = FOUR | {"r5:8001", "r6:8001"}
    first.replicas = second.replicas = {"llm": six}
    shared_out(await beaten(first, second, times=2), six)
    first.replicas = second.replicas = {"llm": frozenset({"r6:8001"})}
    holdings = await beaten(first, second, times=2)
    assert [h.replicas for h in holdings] == [{"r6:8001"}] * 2
    assert not any(h.alone for h in holdings)


async def test_pools_are_shared_out_apart(house):
    first, second = house("a"), house("b")
    first.replicas = second.replicas = {"llm": FOUR, "small": frozenset({"s1", "s2"})}
    await beaten(first, second, times=3)
    for pool, size in (("llm", 2), ("small", 1)):
        assert [len(r.told[-1][pool].replicas) for r in (first, second)] == [size, size]
    first.replicas = second.replicas = {"llm": FOUR}
    await beaten(first, second, times=2)
    with apsw.Connection(str(house.path)) as file:
        assert {pool for (pool,) in file.execute("SELECT pool FROM leases")} == {"llm"}


async def test_a_wall_clock_that_steps_back_moves_nothing(house):
    first, second = house("a"), house("b")
    settled = await beaten(first, second, times=3)
    house.clock.time_s = 500.0
    assert [await first.beats()] == settled[:1]
    house.clock.time_s += LEASE_S
    assert await first.beats() == Holding(FOUR, alone=True), "and who dies is found dead"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 2.0])), max_size=30))
def test_in_any_order_of_beats_no_replica_has_two_owners(tmp_path_factory, beats):
    path, clock = tmp_path_factory.mktemp("own") / "routers.db", ManualClock()
    routers = {name: Router(path, name, clock) for name in "abcd"}
    holds = {}
    try:
        for name, wait_s in beats:
            clock.time_s += wait_s
            router = routers[name]
            held = router.share.beat(router.replicas)["llm"]
            holds[name] = clock.time_s, held
            with apsw.Connection(str(path)) as file:
                live = {r for (r,) in file.execute("SELECT router FROM routers")}
            owners = [h for other, (at_s, h) in holds.items()
                      if other in live and clock.time_s < at_s + LEASE_S]  # fmt: skip
            # Who owns nothing shares all four, and says that it is not alone with them.
            owned = [r for h in owners if h.alone or h.replicas != FOUR for r in h.replicas]
            assert len(owned) == len(set(owned))
    finally:
        for router in routers.values():
            router.share.close()


# ---- a file that cannot be used ---------------------------------------------------------------


async def test_a_router_without_its_file_keeps_its_share_and_then_shares(house):
    first, second = house("a"), house("b")
    kept, _ = await beaten(first, second, times=3)

    def broken(_):
        raise apsw.IOError("the disk is gone")

    first.share.beat, beat = broken, first.share.beat
    house.clock.time_s += LEASE_S - BEAT_S - 0.01
    assert await first.beats() == kept
    house.clock.time_s += 0.01
    assert await first.beats() == Holding(FOUR, alone=False)
    house.clock.time_s += BEAT_S
    assert await second.beats() == Holding(FOUR, alone=True), "nobody held two at once"
    first.share.beat = beat
    await beaten(first, second, times=2)
    shared_out(await beaten(first, second))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database at all" * 1000),
        lambda path: path.mkdir(),
        lambda path: path.parent.rmdir() or path.parent.write_text("a file"),
    ],
    ids=["garbage", "directory", "no directory"],
)
async def test_a_file_that_is_none_breaks_nothing(house, spoil):
    house.path.parent.mkdir()
    spoil(house.path)
    assert await house("a").beats() == Holding(FOUR, alone=False)


async def test_a_file_that_is_taken_away_is_made_anew(house):
    first, second = house("a"), house("b")
    await beaten(first, second, times=3)
    for file in house.path.parent.iterdir():
        file.unlink()
    third = house("c")
    shared_out(await beaten(first, second, third, times=3))


async def test_what_another_program_wrote_is_no_crash(house):
    first = house("a")
    await first.beats()
    with apsw.Connection(str(house.path)) as file:
        file.execute("INSERT INTO routers VALUES ('llm', 'x', 1000.0, 'no json')")
    assert await first.beats() == Holding(FOUR, alone=True), "its lease goes on"
    house.clock.time_s += LEASE_S
    await beaten(first, times=2)
    assert first.told[-1]["llm"] == Holding(FOUR, alone=True)


async def test_a_disk_that_hangs_holds_no_router(house):
    first = house("a")
    await first.beats()
    first.share._beat_s, hung, beat = 0.05, [], first.share.beat
    free = threading.Event()

    def hangs(pools):
        hung.append(1)
        free.wait(9)
        return beat(pools)

    first.share.beat = hangs
    began = time.monotonic()
    await first.share.step()
    await first.share.step()
    assert time.monotonic() - began < 5
    assert len(hung) == 1, "one thread at most hangs in it"
    free.set()
    await asyncio.wait({first.share._beating})
    first.share.beat, first.share._beat_s = beat, BEAT_S
    house.clock.time_s += LEASE_S
    await first.share.step()
    assert first.told[-1]["llm"] == Holding(FOUR, alone=False), "a late answer is not believed"
    assert await first.beats() == Holding(FOUR, alone=True)


async def test_a_writer_that_holds_the_file_is_waited_for_and_then_given_up(house, monkeypatch):
    monkeypatch.setattr(ownership, "BUSY_MS", 50)
    first = house("a")
    house.path.parent.mkdir()
    blocker = apsw.Connection(str(house.path))
    blocker.pragma("journal_mode", "wal")
    blocker.execute("BEGIN IMMEDIATE")
    assert await first.beats() == Holding(FOUR, alone=False)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await first.beats() == Holding(FOUR, alone=True)


# ---- real processes ---------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from forebay.edges.clock import SystemClock
from forebay.edges.ownership import Ownership

def changed(holdings):
    held = holdings["llm"]
    print(json.dumps({"mine": sorted(held.replicas), "alone": held.alone}), flush=True)

pools = {"llm": frozenset(f"r{n}:8001" for n in range(1, 5))}
share = Ownership(Path(sys.argv[1]), sys.argv[2], SystemClock(), pools=lambda: pools,
                  changed=changed, beat_s=0.1, lease_s=1.0)
asyncio.run(share.run())
"""


async def test_of_two_processes_one_is_killed_and_the_other_takes_over(tmp_path):
    async def started(name):
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(tmp_path / "r.db"), name, stdout=subprocess.PIPE
        )

    async def says(process, mine, alone):
        async with asyncio.timeout(20):
            while True:
                line = await process.stdout.readline()
                assert line, "it ended"
                told = json.loads(line) if line.startswith(b"{") else None  # else: its log
                if told and len(told["mine"]) == mine and told["alone"] is alone:
                    return set(told["mine"])

    first, second = await started("a"), await started("b")
    try:
        shares = await asyncio.gather(says(first, 2, True), says(second, 2, True))
        assert shares[0] | shares[1] == FOUR
        killed = time.monotonic()
        second.kill()
        assert await says(first, 4, True) == FOUR
        assert time.monotonic() - killed > 0.5, "not before the lease could end"
    finally:
        for process in (first, second):
            if process.returncode is None:
                process.kill()
            await process.communicate()
