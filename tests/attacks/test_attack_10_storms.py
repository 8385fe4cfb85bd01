"""Attack 10: every provider is full, broken, senseless or silent, at once.

The router is whole: real doors, corridor, admission and adapters, before providers on loopback
that speak their own APIs. Its circuits are ten times as fast as they are in production; the same
is measured in real time, on a router in a process of its own, in `test_attack_10_in_real_time`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from attacks.providers import FULL, MODES, Provider, listening
from attacks.routers import document, in_process
from attacks.storms import Load, recovered_s, statuses
from attacks.wires import WIRES

from forebay.policy.admission.breakers import RULES
from forebay.policy.health import Rules
from forebay.policy.retries import MOST, SHARE

FAST = 10.0
FAST_RULES = Rules(backoff_s=RULES.backoff_s / FAST, backoff_max_s=RULES.backoff_max_s / FAST)
RECOVERY_S = 10.0
"""No claim, only an end: how soon it is, is measured in real time."""


LONG_MS, SHORT_MS = 10_000, 300


@asynccontextmanager
async def storm(*modes, deadline_ms=LONG_MS):
    """Yield a router before providers in these modes, the providers, and a load on all classes."""
    providers = [Provider(wire, mode) for wire, mode in zip(WIRES, modes, strict=True)]
    classes = [f"{provider.wire.adapter}_first" for provider in providers]
    async with listening(*providers), in_process(document(providers), FAST_RULES) as router:
        yield router, providers, Load(classes, rate=60.0, deadline_ms=deadline_ms)


def calls(providers):
    return sum(len(provider.seen) for provider in providers)


async def kept(router, providers, load):
    """Assert what holds in any storm: the budget, the deadlines, one record for each request."""
    asked = len(load.ended)
    records = await router.recorded(asked)
    assert calls(providers) <= (1 + SHARE) * asked + MOST
    load.in_time()
    assert len({record["id"] for record in records}) == len(records) == asked
    for status, count in statuses(load.ended).items():
        assert sum(record["status"] == status for record in records) == count


async def heal(router, providers, load):
    for provider in providers:
        provider.mode = "healthy"
    load.deadline_ms = LONG_MS
    await recovered_s(router, load, within_s=RECOVERY_S, slice_s=0.1)


@pytest.mark.parametrize("mode", ["429 bare", "500", "nonsense", "reset", "cut"])
async def test_attack_10_every_provider_fails_in_one_way(mode):
    async with storm(mode, mode, mode) as (router, providers, load):
        await load.run(router, 0.4)
        await kept(router, providers, load)
        told, circuits = set(statuses(load.ended)), set((await router.circuits()).values())
        if mode in FULL:
            assert told == {"overloaded"}
            assert (circuits, len(await router.full())) == ({"closed"}, 3)
        else:
            assert told <= {"engine_failed", "engine_unavailable"}
            assert "closed" not in circuits
        await heal(router, providers, load)
        await kept(router, providers, load)


async def test_attack_10_silence_holds_nobody_beyond_a_deadline():
    async with storm("hang", "mute", "hang", deadline_ms=SHORT_MS) as (router, providers, load):
        await load.run(router, 0.2)
        await kept(router, providers, load)
        assert set(statuses(load.ended)) == {"deadline_exceeded"}
        # A silence as short as this says nothing of a provider (`Exits.silent`).
        assert set((await router.circuits()).values()) == {"closed"}
        await heal(router, providers, load)


async def test_attack_10_storms_of_all_kinds_at_once_and_after_each_other():
    async with storm("429", "500", "hang", deadline_ms=SHORT_MS) as (router, providers, load):
        running = asyncio.create_task(load.run(router, 1.0))
        for turn in range(len(MODES)):
            for at, provider in enumerate(providers):
                provider.mode = MODES[(turn + 3 * at) % len(MODES)]
            await asyncio.sleep(0.1)
        await running
        await kept(router, providers, load)
        await heal(router, providers, load)


@pytest.mark.parametrize("mode", ["429", "page"])
async def test_attack_10_one_that_fails_beside_two_that_do_not_costs_nobody_an_answer(mode):
    async with storm(mode, "healthy", "healthy") as (router, providers, load):
        load.models, load.rate = ("openai_first",), 20.0
        await load.run(router, 1.2)
        await kept(router, providers, load)
        assert set(statuses(load.ended)) == {"ok"}
        assert len(providers[0].seen) < len(load.ended)
