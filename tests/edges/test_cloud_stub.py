"""The stub paces, counts and breaks as its options say; a load test is only as true as it is."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time

import pytest
from edges.provider import call, chunks
from loadtest.cloud_stub import Pace, Stub, serving
from openai import AsyncOpenAI, InternalServerError, RateLimitError

from forebay.edges.cloud.openai import OpenAIEngine
from forebay.policy.rules import Cloud
from forebay.testing import LoopClock

AT_ONCE = Pace(ttft_s=0.0, sigma=0.0, pause_share=0.0, tpot_s=0.0)
WORDS = "A forebay levels the flow "


def sdk(url):
    return AsyncOpenAI(api_key="none", base_url=url, max_retries=0)


async def counted(stub, active):
    """Wait until so many requests are inside."""
    for _ in range(1000):
        if stub.stats.active == active:
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{stub.stats.active} requests are inside")


async def test_the_official_client_reads_it():
    stub = Stub(AT_ONCE)
    async with serving(stub) as url, sdk(url) as client:
        chat = [{"role": "user", "content": "Tell"}]
        whole = await client.chat.completions.create(model="m", messages=chat, max_tokens=5)
        text = await client.completions.create(model="m", prompt="Tell", max_tokens=5)
        stream = await client.completions.create(
            model="m", prompt="Tell", max_tokens=5, stream=True
        )
        streamed = "".join([chunk.choices[0].text async for chunk in stream])
    assert whole.choices[0].message.content == text.choices[0].text == streamed == WORDS
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 5
    assert (stub.stats.requests, stub.stats.tokens, stub.stats.active) == (3, 15, 0)


async def test_a_stream_keeps_its_schedule():
    pace = Pace(ttft_s=0.05, sigma=0.0, pause_share=0.0, tpot_s=0.004)
    async with serving(Stub(pace)) as url:
        engine = OpenAIEngine("cloud", Cloud(model="m", base_url=url), None, LoopClock())
        await chunks(engine, call(1))  # opens the connection
        begun_s, at_s = time.perf_counter(), []
        async for chunk in engine.generate(call(250)):
            at_s += [time.perf_counter() - begun_s] * chunk.tokens
        await engine.close()
    assert len(at_s) == 250
    # No token before its moment, and what came late is made up for: half a second of a machine
    # that stands still is less than half of them, a drift is in all that follow.
    assert all(told_s >= 0.05 + n * 0.004 - 0.002 for n, told_s in enumerate(at_s))
    assert statistics.median(s - n * 0.004 for n, s in enumerate(at_s)) < 0.15


def test_first_tokens_are_lognormal_and_seeded():
    drawn = [Pace().draw_s(dice) for dice in [random.Random(1)] for _ in range(20_000)]
    again = [Pace().draw_s(dice) for dice in [random.Random(1)] for _ in range(20_000)]
    assert drawn == again
    assert statistics.median(drawn) == pytest.approx(0.35, rel=0.02)
    assert statistics.quantiles(drawn, n=100)[83] == pytest.approx(0.35 * 2.718**0.33, rel=0.03)
    assert sum(s > 3 for s in drawn) / len(drawn) == pytest.approx(0.002, abs=0.001)


async def test_faults_by_name_by_header_and_by_share():
    stub = Stub(AT_ONCE, fault="500", fault_share=0.5)
    chat = [{"role": "user", "content": "Tell"}]
    async with serving(stub) as url, sdk(url) as client:
        create = client.chat.completions.create
        with pytest.raises(RateLimitError) as caught:
            await create(model="m+429", messages=chat)
        assert caught.value.response.headers["retry-after"] == "2"
        with pytest.raises(RateLimitError) as caught:
            await create(model="m", messages=chat, extra_headers={"x-stub-fault": "429-bare"})
        assert "retry-after" not in caught.value.response.headers
        broken = 0
        for _ in range(40):
            try:
                await create(model="m", messages=chat, max_tokens=1)
            except InternalServerError:
                broken += 1
    assert 8 < broken < 32
    assert stub.stats.faults == broken + 2


async def test_a_client_that_leaves_is_counted():
    stub = Stub(AT_ONCE)
    async with serving(stub) as url:
        engine = OpenAIEngine("cloud", Cloud(model="m+hang", base_url=url), None, LoopClock())
        waiting = asyncio.create_task(chunks(engine))
        await counted(stub, 1)
        waiting.cancel()
        await counted(stub, 0)
        await engine.close()
    assert stub.stats.cancelled == 1


async def test_it_says_where_it_listens():
    argv = ("-m", "loadtest.cloud_stub", "--port", "0", "--seed", "1", "--ttft-s", "0")
    started = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE
    )
    try:
        url = json.loads(await started.stdout.readline())["url"]
        async with sdk(url) as client:
            assert [model.id async for model in client.models.list()] == ["stub"]
    finally:
        started.terminate()
        await started.wait()
