"""Attack 3: a client leaves before the first token or midway, over every door, on every adapter.

Its provider sees the connection close at once; the record says who left, and bills what came.
"""

from __future__ import annotations

import pytest
from attacks.clients import DOORS
from attacks.hang_ups import AT_MOST_S, LEFT_S, MOMENTS, billed, hang_up
from attacks.providers import Provider, listening
from attacks.routers import document, in_its_own, in_process
from attacks.wires import WIRES

from forebay.policy.admission.breakers import RULES

TIMES = 20


async def left(router, provider, times):
    """Have clients leave, and return after how long its provider saw each of them, by door."""
    found_s = {door: [] for door in DOORS}
    for door in DOORS:
        for moment in MOMENTS:
            for _ in range(times):
                found = await hang_up(router, provider, door, moment)
                assert found.took_s <= AT_MOST_S, f"{door}, {moment}"
                billed(found, provider, moment)
                found_s[door].append(found.took_s)
    return found_s


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
        for door, found_s in (await left(router, provider, TIMES)).items():
            *_, longest_s = in_order_s = sorted(found_s)
            usual_s = in_order_s[len(in_order_s) * 9 // 10]
            print(
                f"{wire.adapter}, {door}: {usual_s * 1000:.1f} ms nine times of ten, "
                f"{longest_s * 1000:.1f} ms at most, of {len(found_s)}"
            )
            assert usual_s <= LEFT_S, door
