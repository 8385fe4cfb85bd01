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

ENGINE = CHECKOUT / "model_repository" / "tensorrt_llm" / "1" / "engine"


@pytest.fixture(scope="module")
def files(triton):
    """Return what travels with the engine; the stack has built it by now."""
    return EngineFiles.read(ENGINE)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_triton_engine(triton, files, check):
    clock = SystemClock()
    metrics = f"http://127.0.0.1:{triton.port('TRITON_METRICS')}/metrics"

    async def running():
        return await active(metrics)

    address = f"127.0.0.1:{triton.port('TRITON_GRPC')}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        await check(TritonEngine(channel, "tensorrt_llm", files, clock), clock, running)


@pytest.mark.parametrize(
    ("why", "port", "model"),
    [("nobody listens", 1, "tensorrt_llm"), ("no such model", None, "elsewhere")],
)
async def test_what_is_not_there_is_unavailable(triton, files, why, port, model):
    from contract.engine_port import call

    address = f"127.0.0.1:{port or triton.port('TRITON_GRPC')}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        engine = TritonEngine(channel, model, files, SystemClock())
        with pytest.raises(EngineUnavailable):
            async for _ in engine.generate(await call(engine, max_tokens=2)):
                pass
