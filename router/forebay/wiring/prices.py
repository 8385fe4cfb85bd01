"""Prices followed while the router serves: what providers ask changes more often than policy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from forebay.edges import policy_file
from forebay.errors import SettingsError
from forebay.policy.admission.book import places

if TYPE_CHECKING:
    from pathlib import Path

    from forebay.policy.choose import Policy
    from forebay.wiring.engines import Engines

PERIOD_S = 1.0

_log = structlog.get_logger("forebay.prices")


async def follow(path: Path, policy: Policy, engines: Engines) -> None:
    """Take over new prices of the policy file, over and over; the next request is told by them.

    Any other change waits for the next start: classes, targets and verifiers change together or
    not at all. A file that is wrong, or half written, changes nothing.
    """
    tried = policy.version
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            found = await asyncio.to_thread(policy_file.load, path)
        except SettingsError as error:
            _log.warning("policy not read again", why=str(error).splitlines()[0])
            continue
        if found.version in (policy.version, tried):
            continue
        tried = found.version
        if not policy.reprice(found):
            _log.warning("policy changed by more than its prices: start again to use it")
            continue
        state = engines.admission.controller.state
        state.places.update({place.target: place for place in places(policy, engines.pool_of)})
        _log.info("prices changed", policy=policy.version)
