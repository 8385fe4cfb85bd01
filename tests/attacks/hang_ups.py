"""Clients that leave, and what their provider and the router's books then say."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attacks.clients import STREAMS, Heard
from attacks.providers import TOKENS
from attacks.routers import RECORDED_S
from attacks.wires import CACHED_TOKENS, PROMPT_TOKENS

if TYPE_CHECKING:
    from attacks.providers import Provider
    from attacks.routers import Router

MOMENTS = {
    "before the provider's headers": "hang",
    "before the first token": "mute",
    "midway": "silent",
}
"""When a client leaves, and the mode in which its provider is then."""

LEFT_S = 0.1
"""How soon a provider sees that its client has left, nine times of ten."""

AT_MOST_S = 1.0
"""How soon at most, where the machine may stand still; what is not cancelled takes seconds."""

READ_S = 0.3
"""After so long a router has read what its provider has sent."""


@dataclass(frozen=True)
class HangUp:
    """One client that left: how much later its provider saw it, and the record it left."""

    took_s: float
    record: dict[str, Any]


async def hang_up(router: Router, provider: Provider, door: str, moment: str) -> HangUp:
    """Ask over a door, leave at that moment, and return what came of it."""
    provider.mode = MOMENTS[moment]
    number, heard = len(provider.seen), Heard()
    asking = asyncio.create_task(
        router.clients.hear(heard, door, "Hello", model=f"{provider.wire.adapter}_first")
    )
    seen = await provider.call(number)
    if provider.mode == "silent":
        await seen.reached(TOKENS)
        # A whole answer shows no sign of what was read for it.
        await (heard.something(TOKENS) if door in STREAMS else asyncio.sleep(READ_S))
    left_s = asyncio.get_running_loop().time()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    took_s = await seen.left() - left_s
    return HangUp(took_s, await _record(router, number))


async def _record(router: Router, number: int) -> dict[str, Any]:
    """Return the record of the request of that number, from 0; it is the last."""
    async with asyncio.timeout(RECORDED_S):
        while not (records := router.records(number)):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.005)
    (record,) = records
    return record


def billed(found: HangUp, provider: Provider, moment: str) -> None:
    """Assert that the record tells of the hang-up, and that nothing received goes unpaid."""
    record = found.record
    (attempt,) = record["attempts"]
    sent = TOKENS if moment == "midway" else 0
    assert (record["status"], attempt["outcome"]) == ("cancelled", "cancelled")
    assert record["usage"]["completion_tokens"] == attempt["tokens"] == sent
    prompt = record["usage"]["prompt_tokens"]
    cached = record["usage"]["cached_tokens"]
    if sent and provider.wire.told:
        assert (prompt, cached) == (PROMPT_TOKENS, CACHED_TOKENS), "as the provider counts them"
    else:
        assert prompt > 0
        assert cached == 0
    micro_usd = 10.0 * (prompt - cached) + 1.0 * cached + 100.0 * sent
    assert abs(attempt["usd"] * 1e6 - micro_usd) < 1e-6
