"""The fake engine keeps the port's promises, so that what is tested on it means something."""

from __future__ import annotations

import pytest
from contract.engine_port import CHECKS

from forebay.testing import FakeEngine, LoopClock


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_fake_engine(check):
    engine = FakeEngine(("word ",) * 500, gap_s=0.01)

    async def running():
        return engine.running

    await check(engine, LoopClock(), running)
