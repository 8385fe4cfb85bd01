"""Attack 10 against `forebay serve` in a process of its own, with the times that it has there.

Each test prints what it measured; docs/operations.md quotes it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from attacks.providers import FULL, MODES, Provider, listening
from attacks.routers import document, in_its_own
from attacks.storms import Load, recovered_s, statuses
from attacks.wires import WIRES

from forebay.policy.retries import MOST, SHARE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RECOVERY_S = 30.0
STORM_S = 3.0
CALM_MS, STORM_MS = 10_000, 1500
SECRET = "anna.karenina@example.com"
"""A person's address: the client says it, providers repeat it, no file may hold it."""


@asynccontextmanager
async def storm(home):
    """Yield a router, its providers and a load of 20 requests a second on all its classes.

    A second of it has been answered.
    """
    providers = [Provider(wire, words=f"no, {SECRET}") for wire in WIRES]
    classes = [f"{provider.wire.adapter}_first" for provider in providers]
    async with listening(*providers):
        said = document(providers, expect={"ttft_ms": 300})
        async with in_its_own(said, home) as router:
            load = Load(classes, text=f"I am {SECRET}.", deadline_ms=CALM_MS)
            await load.run(router, 1.0)
            assert set(statuses(load.ended)) == {"ok"}
            load.deadline_ms = STORM_MS
            yield router, providers, load


def calls(providers):
    return sum(len(provider.seen) for provider in providers)


async def kept(router, providers, load):
    """Assert the budget, the deadlines, and one record for each request."""
    asked, called = len(load.ended), calls(providers)
    assert called <= (1 + SHARE) * asked + MOST
    load.in_time()
    records = await router.recorded(asked)
    assert len({record["id"] for record in records}) == len(records) == asked
    for status, count in statuses(load.ended).items():
        assert sum(record["status"] == status for record in records) == count


async def healed_s(router, providers, load):
    """Heal every provider, and return after how long all is as it was."""
    for provider in providers:
        provider.mode = "healthy"
    load.deadline_ms = CALM_MS
    return await recovered_s(router, load, within_s=RECOVERY_S, slice_s=1.0)


def quiet(home):
    """Assert that what a client said, and what providers said after it, is in no file."""
    for path in home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


async def test_attack_10_one_storm_after_another(tmp_path):
    async with storm(tmp_path) as (router, providers, load):
        for mode in ("429", "429 bare", "500", "nonsense", "hang", "reset", "cut"):
            for provider in providers:
                provider.mode = mode
            before = calls(providers)
            ended = await load.run(router, STORM_S)
            told, called = statuses(ended), calls(providers) - before
            circuits, full = set((await router.circuits()).values()), await router.full()
            after_s = await healed_s(router, providers, load)
            print(f"{mode}: {called} calls for {len(ended)} requests, {dict(told)};", end=" ")
            print(f"recovered {after_s:.1f} s after it")
            load.deadline_ms = STORM_MS
            assert "ok" not in told
            assert called <= len(ended)
            assert (len(full) == 3) if mode in FULL else ("closed" not in circuits)
        asked, called = len(load.ended), calls(providers)
        print(f"{called} calls for {asked} requests in all;", end=" ")
        await kept(router, providers, load)
        late = [r for r in router.records() if r["status"] == "deadline_exceeded"]
        latest_ms = max(record["timing"]["e2e_ms"] for record in late) - STORM_MS
        print(f"{len(late)} ended by their deadline, the latest {latest_ms:.0f} ms after it")
    quiet(tmp_path)


async def test_attack_10_storms_of_different_kinds_at_once(tmp_path):
    async with storm(tmp_path) as (router, providers, load):
        for turn in range(len(MODES)):
            for at, provider in enumerate(providers):
                provider.mode = MODES[(turn + 3 * at) % len(MODES)]
            await load.run(router, 1.5)
        print(f"{calls(providers)} calls for {len(load.ended)} requests: {statuses(load.ended)}")
        after_s = await healed_s(router, providers, load)
        print(f"recovered after {after_s:.1f} s")
        await kept(router, providers, load)
    quiet(tmp_path)


async def test_attack_10_one_that_hangs_beside_two_that_do_not(tmp_path):
    """Requests are lost until three in a row were silent for a second; then none is."""
    async with storm(tmp_path) as (router, providers, load):
        providers[0].mode = "hang"
        load.models = ("openai_first",)
        ended = await load.run(router, 6.0)
        lost = [n for n, one in enumerate(ended) if one.status != "ok"]
        print(f"{len(lost)} of {len(ended)} requests were lost, the last at {max(lost) / 20} s")
        assert (await router.circuits())["openai"] != "closed"
        assert len(lost) <= 60
        await kept(router, providers, load)


async def test_attack_10_a_hang_without_a_deadline_is_bounded(tmp_path):
    """Ten times `expect.ttft_ms`, and five seconds at least; then another answers."""
    async with storm(tmp_path) as (router, providers, _):
        for provider in providers[:2]:
            provider.mode = "hang"
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        heard = await router.clients.ask("OpenAI SSE", "Hello", model="openai_first")
        took_s = loop.time() - begun_s
        print(f"two that hang were given up after {took_s:.2f} s")
        assert heard.status == "ok"
        assert 10.0 <= took_s < 12.0
