"""What keeps a pool as the world is, and what happens when that breaks."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from types import SimpleNamespace

import pytest

from forebay.edges.admission import LoopAdmission
from forebay.edges.triton.files import Room
from forebay.edges.triton_metrics import MetricsScraper
from forebay.errors import DeadlineExceeded, EngineFailed, EngineUnavailable
from forebay.policy.admission import Controller, Place, ReplicaSpec
from forebay.policy.health import RULES, State
from forebay.policy.ownership import Holding
from forebay.policy.replicas import ReplicaAddress
from forebay.policy.rules import Triton
from forebay.testing import LoopClock, ManualClock
from forebay.wiring import pools
from forebay.wiring.pools import Member, Pool


def pool_of(admission, clock, *static):
    files = SimpleNamespace(stated=None, room=Room())
    return Pool("pool", Triton(), static, files, admission, clock)


async def test_a_replica_that_comes_later_is_called_by_its_owner_alone():
    clock = LoopClock()
    pool = pool_of(LoopAdmission(Controller([Place("local", "pool")]), clock), clock)
    first, second, third = (ReplicaAddress(f"127.0.0.1:{port}", None) for port in (7, 8, 9))

    def ours():
        return {name for name, member in pool.members.items() if member.replica.ours}

    try:
        pool._found(frozenset({first, second}))
        assert ours() == {first.address, second.address}, "alone, a router calls everybody"
        pool.held(Holding(frozenset({first.address})))
        pool._found(frozenset({first, second, third}))
        assert ours() == {first.address}
        pool._found(frozenset({second, third}))
        pool._found(frozenset({first, second, third}))
        assert ours() == {first.address}, "put back, it is whose it was"
        pool.held(Holding(frozenset({first.address, third.address})))
        assert ours() == {first.address, third.address}
    finally:
        await pool.close()


async def test_a_scraper_that_breaks_is_not_passed_over(monkeypatch):
    """Its engine's load would be unknown for good, and nobody would be told."""

    async def breaks(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(MetricsScraper, "run", breaks)
    clock = LoopClock()
    admission = LoopAdmission(Controller([Place("local", "pool")]), clock)
    static = (ReplicaAddress("127.0.0.1:9", "http://127.0.0.1:9/metrics"),)
    pool = pool_of(admission, clock, *static)
    try:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            await pool.watch()
    finally:
        await pool.close()


HERE = ReplicaAddress("127.0.0.1:7")


@contextlib.asynccontextmanager
async def found():
    """Give a pool that has found one replica, and the replica."""
    clock = LoopClock()
    pool = pool_of(LoopAdmission(Controller([Place("local", "pool")]), clock), clock)
    pool._found(frozenset({HERE}))
    try:
        yield pool, pool.members[HERE.address].replica
    finally:
        await pool.close()


async def test_a_replica_that_is_drained_keeps_what_it_is_and_is_taken_back():
    async with found() as (pool, replica):
        for drain in (True, True, False):
            pool._found(frozenset({replace(HERE, drain=drain)}))
            assert pool.members[HERE.address].replica is replica
            assert replica.able(pool.clock.now_s()) is not drain


async def test_where_every_replica_is_drained_the_router_is_not_ready():
    async with found() as (pool, replica):
        replica.answered(pool.clock.now_s(), pool.clock.now_s())
        assert pool.unready() is None
        pool._found(frozenset({replace(HERE, drain=True)}))
        assert pool.unready() == "every replica of pool is being drained"


class Looked:
    """A replica's server and engine, as a prover finds them: both fail as they are told to."""

    def __init__(self, monkeypatch, clock):
        self.clock, self.looks, self.proofs = clock, 0, 0
        self.server: Exception | None = None
        self.engine: Exception | None = None
        admission = LoopAdmission(Controller([Place("local", "pool")]), clock)
        self.pool = pool_of(admission, clock)
        self.replica = admission.controller.join(ReplicaSpec("r", "pool"), clock.now_s())
        identity = SimpleNamespace(require=self.require, wrong=None)
        self.member = Member(ReplicaAddress("a:1"), None, identity, None, self.replica)
        monkeypatch.setattr(pools, "PROBE_PERIOD_S", 0.0)
        monkeypatch.setattr(Pool, "_answers", self.answers)

    async def require(self):
        self.looks += 1
        if self.server is not None:
            raise self.server

    async def answers(self, _engine):
        self.proofs += 1
        if self.engine is not None:
            raise self.engine

    async def after(self, passed_s=0.0, rounds=5):
        """Return how often the engine was asked in a few rounds after some time."""
        self.clock.time_s += passed_s
        before, looks = self.proofs, self.looks
        proving = asyncio.create_task(self.pool._prove(self.member))
        async with asyncio.timeout(5):
            while self.looks < looks + rounds:  # noqa: ASYNC110 - a fake has no event to wait for
                await asyncio.sleep(0)
        proving.cancel()
        return self.proofs - before


@pytest.fixture
def looked(monkeypatch):
    return Looked(monkeypatch, ManualClock())


async def test_an_engine_that_answers_is_asked_once(looked):
    assert await looked.after() == 1
    assert looked.replica.health.proven
    assert await looked.after(3600.0) == 0


async def test_an_engine_that_breaks_is_ejected_and_asked_as_seldom_as_its_backoff_says(looked):
    looked.engine = EngineFailed("no")
    assert await looked.after() == RULES.failures, "and then nobody is sent there"
    assert looked.replica.health.state(looked.clock.now_s()) is State.OPEN
    backoff_s = RULES.backoff_s
    for _ in range(4):
        assert await looked.after(0.5 * backoff_s) == 0
        assert await looked.after(0.5 * backoff_s) == 1
        backoff_s *= 2
    assert looked.replica.health.backoff_s == backoff_s
    looked.engine = None
    assert await looked.after(backoff_s) == 1
    assert looked.replica.health.takes(looked.clock.now_s())


async def test_an_engine_whose_server_was_away_is_asked_as_soon_as_it_is_back(looked):
    looked.engine = EngineUnavailable("gone")
    await looked.after()
    looked.server = EngineUnavailable("gone")
    assert await looked.after() == 0
    looked.server = None
    assert await looked.after(rounds=4) == 4, "it may take a while to load"
    looked.engine = None
    assert await looked.after() == 1
    assert looked.replica.health.takes(looked.clock.now_s())


async def test_a_server_that_is_gone_is_ejected_before_a_client_is_sent_there(looked):
    looked.server = EngineUnavailable("gone")
    assert await looked.after(rounds=RULES.failures - 1) == 0
    assert looked.replica.able(looked.clock.now_s()), "it may be a hiccup"
    looked.server = None
    assert await looked.after() == 1
    looked.server = EngineUnavailable("gone")
    assert await looked.after(rounds=RULES.failures - 1) == 0
    assert looked.replica.able(looked.clock.now_s()), "hiccups do not add up"
    for _ in range(5):
        await looked.after(RULES.backoff_max_s)
        assert not looked.replica.able(looked.clock.now_s()), "nobody needs to find out"
    assert looked.replica.health.backoff_s == RULES.backoff_s
    looked.server = None
    assert await looked.after() == 1
    assert looked.replica.able(looked.clock.now_s())


async def test_a_server_with_a_wrong_engine_is_left_to_say_so_itself(looked):
    looked.server, looked.member.identity.wrong = EngineUnavailable("wrong"), "another engine"
    assert await looked.after() == 0
    assert looked.replica.able(looked.clock.now_s())


async def test_an_engine_that_is_slow_to_answer_is_asked_on(looked):
    looked.engine = EngineFailed("no")
    await looked.after()
    looked.engine = DeadlineExceeded("slow")
    assert await looked.after(RULES.backoff_s, rounds=4) == 4
    assert looked.replica.health.backoff_s == RULES.backoff_s, "that is no failure"
