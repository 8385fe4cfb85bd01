"""What keeps a pool as the world is, and what happens when that breaks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forebay.edges.admission import LoopAdmission
from forebay.edges.triton.files import Room
from forebay.edges.triton_metrics import MetricsScraper
from forebay.policy.admission import Controller, Place
from forebay.policy.replicas import ReplicaAddress
from forebay.policy.rules import Triton
from forebay.testing import LoopClock
from forebay.wiring.pools import Pool


async def test_a_scraper_that_breaks_is_not_passed_over(monkeypatch):
    """Its engine's load would be unknown for good, and nobody would be told."""

    async def breaks(self):
        raise RuntimeError("a bug")

    monkeypatch.setattr(MetricsScraper, "run", breaks)
    clock = LoopClock()
    admission = LoopAdmission(Controller([Place("local", "pool")]), clock)
    static = (ReplicaAddress("127.0.0.1:9", "http://127.0.0.1:9/metrics"),)
    files = SimpleNamespace(stated=None, room=Room())
    pool = Pool("pool", Triton(), static, files, admission, clock)
    try:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a bug")):
            await pool.watch()
    finally:
        await pool.close()
