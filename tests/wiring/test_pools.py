"""What keeps a pool as the world is, and what happens when that breaks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forebay.edges.admission import LoopAdmission
from forebay.edges.triton.files import Room
from forebay.edges.triton_metrics import MetricsScraper
from forebay.policy.admission import Controller, Place
from forebay.policy.ownership import Holding
from forebay.policy.replicas import ReplicaAddress
from forebay.policy.rules import Triton
from forebay.testing import LoopClock
from forebay.wiring.pools import Pool


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
