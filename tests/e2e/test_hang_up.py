"""A client that is killed while it reads: the engine stops working for it, over every door."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from forebay.edges.triton_metrics import parse

CLIENT = Path(__file__).parent / "client_to_kill.py"
LIMIT_S = 0.2


async def active(url: str) -> int:
    """Return the engine's active requests, as Triton's own metrics tell them now."""

    def page() -> str:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.read().decode()

    scrape = parse(await asyncio.to_thread(page), "tensorrt_llm", 0.0)
    assert scrape is not None
    return scrape.active


@pytest.mark.parametrize("door", ["forebay.v1", "kserve", "openai"])
async def test_a_client_killed_at_its_fifth_token_frees_the_engine(stack, door):
    url = f"http://127.0.0.1:{stack.port('TRITON_METRICS')}/metrics"
    port = stack.port("HTTP" if door == "openai" else "GRPC")
    took = []
    for _ in range(3):
        client = await asyncio.create_subprocess_exec(
            sys.executable, str(CLIENT), door, str(port), stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        line = await asyncio.wait_for(client.stdout.readline(), 30)
        assert line == b"five\n"
        assert await active(url) == 1
        client.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while await active(url):
            assert time.monotonic() - killed < 5, "the engine works on for a client that is gone"
            await asyncio.sleep(0.005)
        took.append(time.monotonic() - killed)
        await client.wait()
    print(f"{door}: engine free after {', '.join(f'{t * 1000:.0f} ms' for t in took)}")
    assert sorted(took)[1] < LIMIT_S
