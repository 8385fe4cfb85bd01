"""Attack 3: a client leaves before the first token or midway, over every door, on every adapter.

Its provider sees the connection close at once; the record says who left, and bills what came.
"""

from __future__ import annotations

import pytest
from attacks.clients import DOORS
from attacks.hang_ups import LEFT_S, MOMENTS, billed, hang_up
from attacks.providers import Provider, listening
from attacks.routers import document, in_its_own, in_process
from attacks.wires import WIRES

from forebay.policy.admission.breakers import RULES

TIMES = 20


async def left(router, provider, times):
    """Have clients leave, and return the longest time until a provider saw it, by door."""
    longest_s = {}
    for door in DOORS:
        for moment in MOMENTS:
            for _ in range(times):
                found = await hang_up(router, provider, door, moment)
                assert found.took_s - found.starved_s <= LEFT_S, f"{door}, {moment}"
                billed(found, provider, moment)
                longest_s[door] = max(longest_s.get(door, 0.0), found.took_s)
    return longest_s


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.adapter)
async def test_attack_03_a_client_that_leaves_is_billed_and_cancelled_upstream(wire):
    provider = Provider(wire)
    async with listening(provider), in_process(document([provider]), RULES) as router:
        await left(router, provider, 1)
        assert set((await router.circuits()).values()) == {"closed"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.adapter)
async def test_attack_03_in_a_process_of_its_own(wire, tmp_path):
    provider = Provider(wire)
    async with listening(provider), in_its_own(document([provider]), tmp_path) as router:
        longest_s = await left(router, provider, TIMES)
        for door, took_s in longest_s.items():
            count = TIMES * len(MOMENTS)
            print(f"{wire.adapter}, {door}: {took_s * 1000:.1f} ms at most, of {count}")
