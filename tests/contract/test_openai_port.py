"""The OpenAI engine keeps the port's promises, on a paced server over real sockets."""

from __future__ import annotations

import pytest
from contract.engine_port import CHECKS
from loadtest.cloud_stub import Pace, Stub, serving

from forebay.edges.cloud.openai import OpenAIEngine
from forebay.policy.rules import Cloud
from forebay.testing import LoopClock

QUICK = Pace(ttft_s=0.02, sigma=0.0, pause_share=0.0, tpot_s=0.01)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_openai_engine(check):
    stub = Stub(QUICK)

    async def running():
        return stub.stats.active

    async with serving(stub) as url:
        engine = OpenAIEngine("cloud", Cloud(model="any", base_url=url), None, LoopClock())
        try:
            await check(engine, LoopClock(), running)
        finally:
            await engine.close()
