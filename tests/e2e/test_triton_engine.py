"""The Triton engine keeps the port's promises, on a real Triton."""

from __future__ import annotations

import grpc
import pytest
from contract.engine_port import CHECKS
from e2e.test_hang_up import active

from forebay.cli.up import CHECKOUT
from forebay.edges.clock import SystemClock
from forebay.edges.triton import CHANNEL_OPTIONS, EngineFiles, TritonEngine
from forebay.errors import EngineUnavailable

FILES = EngineFiles.read(CHECKOUT / "model_repository" / "tensorrt_llm" / "1" / "engine")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_triton_engine(triton, check):
    clock = SystemClock()
    metrics = f"http://127.0.0.1:{triton.port('TRITON_METRICS')}/metrics"

    async def running():
        return await active(metrics)

    address = f"127.0.0.1:{triton.port('TRITON_GRPC')}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        await check(TritonEngine(channel, "tensorrt_llm", FILES, clock), clock, running)


@pytest.mark.parametrize(
    ("why", "port", "model"),
    [("nobody listens", 1, "tensorrt_llm"), ("no such model", None, "elsewhere")],
)
async def test_what_is_not_there_is_unavailable(triton, why, port, model):
    from contract.engine_port import call

    address = f"127.0.0.1:{port or triton.port('TRITON_GRPC')}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        engine = TritonEngine(channel, model, FILES, SystemClock())
        with pytest.raises(EngineUnavailable):
            async for _ in engine.generate(await call(engine, max_tokens=2)):
                pass
