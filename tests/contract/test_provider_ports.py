"""The Anthropic and Google engines keep the port's promises, on paced servers over real sockets."""

from __future__ import annotations

import pytest
from contract import paced
from contract.engine_port import CHECKS

from forebay.edges.cloud.anthropic import AnthropicEngine
from forebay.edges.cloud.google import GoogleEngine
from forebay.policy.rules import Cloud
from forebay.testing import LoopClock

SPEAK = {AnthropicEngine: paced.anthropic, GoogleEngine: paced.google}


@pytest.mark.parametrize("adapter", SPEAK, ids=lambda adapter: adapter.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_provider_engine(check, adapter):
    server = paced.Paced(SPEAK[adapter])

    async def running():
        return server.active

    async with paced.serving(server) as url:
        engine = adapter("cloud", Cloud(model="any", base_url=url), None, LoopClock())
        try:
            await check(engine, LoopClock(), running)
        finally:
            await engine.close()
