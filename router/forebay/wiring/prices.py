"""Prices followed while the router serves: what providers ask changes more often than policy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from forebay.edges import policy_file
from forebay.errors import SettingsError
from forebay.policy.admission.book import places

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forebay.policy.admission.state import State
    from forebay.policy.choose import Policy

PERIOD_S = 1.0

_log = structlog.get_logger("forebay.prices")


async def follow(
    path: Path,
    policy: Policy,
    pool_of: Mapping[str, str],
    state: State,
    *,
    period_s: float = PERIOD_S,
) -> None:
    """Take over new prices of the policy file, over and over; the next request is told by them.

    Any other change waits for the next start: classes, targets and verifiers change together or
    not at all. A file that is wrong, or half written, changes nothing.

    Args:
        path: The policy's file.
        policy: The policy in force.
        pool_of: The engines that serve each target, as `places` takes them.
        state: What admission decides from.
        period_s: From one look at the file to the next.
    """
    seen: bytes | None = None
    while True:
        await asyncio.sleep(period_s)
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError:
            continue  # it is being replaced, or gone: what is in force stays so
        if content == seen:
            continue
        seen = content
        try:
            found = await asyncio.to_thread(policy_file.load, path)
        except SettingsError as error:
            _log.warning("policy not read again", why=str(error).splitlines()[0])
            continue
        _take_over(found, policy, pool_of, state)


def _take_over(found: Policy, policy: Policy, pool_of: Mapping[str, str], state: State) -> None:
    """Use the prices of a policy, if nothing else in it is new."""
    if found.version == policy.version:
        return
    if not policy.reprice(found):
        _log.warning("policy changed by more than its prices: start again to use it")
        return
    state.places.update({place.target: place for place in places(policy, pool_of)})
    _log.info("prices changed", policy=policy.version)
