"""Prices of the policy file, followed while the router serves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from forebay.edges import policy_file
from forebay.policy.admission import Controller
from forebay.policy.admission.book import places
from forebay.wiring import prices

WRITTEN = """
models:
  cloud:
    openai: {{model: m}}
    price: {{input_usd_per_mtok: {price}}}
    residency: {where}
default: {{model: cloud}}
"""


@asynccontextmanager
async def followed(path):
    """Follow a policy file; yields the policy and what admission decides from."""
    policy = policy_file.load(path)
    state = Controller(places(policy, {"cloud": ""})).state
    following = asyncio.create_task(
        prices.follow(path, policy, {"cloud": ""}, state, period_s=0.005)
    )
    try:
        yield policy, state
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what changes is a value, and tells nobody
            await asyncio.sleep(0.005)


def usd(state):
    return state.places["cloud"].input_usd * 1e6


async def test_a_new_price_is_what_the_next_decision_is_made_from(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(WRITTEN.format(price=1.0, where="eu"))
    async with followed(path) as (policy, state):
        first = policy.version
        path.write_text(WRITTEN.format(price=2.0, where="eu"))
        await until(lambda: usd(state) == 2.0)
        assert policy.targets["cloud"].price.input_usd_per_mtok == 2.0
        assert policy.version != first


async def test_what_is_wrong_or_more_than_prices_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "policy.yaml"
    path.write_text(WRITTEN.format(price=1.0, where="eu"))
    looked = []
    load = policy_file.load
    monkeypatch.setattr(policy_file, "load", lambda path: looked.append(path) or load(path))
    async with followed(path) as (policy, state):
        for written in ("models: [", WRITTEN.format(price=5.0, where="us")):
            before = len(looked)
            path.write_text(written)
            await until(lambda before=before: len(looked) > before)
        path.unlink()
        await asyncio.sleep(0.02)
        path.write_text(WRITTEN.format(price=3.0, where="eu"))
        await until(lambda: usd(state) == 3.0)
        assert policy.targets["cloud"].residency == "eu"
    assert len(looked) <= 5, "a file that does not change is not read anew"
