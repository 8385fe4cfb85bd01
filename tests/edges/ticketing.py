"""Doors whose only engine never says what is wanted, so that a person is left with each request."""

from __future__ import annotations

from contextlib import asynccontextmanager

from doors import grpc_door, http_door

from forebay.errors import EngineUnavailable
from forebay.testing import FakeEngine, FakePerson

PARKS = {
    "models": {"local": {"triton": {}}},
    "default": {
        "model": "local",
        "fallback": "human_review_queue",
        "verify": ["json_schema"],
        "schema": {"type": "object"},
        "stream": "final",
    },
}


@asynccontextmanager
async def http_parking(script=("no json",), person=None):
    kept = {"document": PARKS, "person": person or FakePerson()}
    async with http_door(FakeEngine(script), **kept) as back:
        yield back


@asynccontextmanager
async def grpc_parking(script=("no json",), person=None):
    kept = {"document": PARKS, "person": person or FakePerson()}
    async with grpc_door(FakeEngine(script), **kept) as back:
        yield back


class Away(FakePerson):
    """A person whose queue cannot be read now."""

    async def find(self, ticket_id):
        raise EngineUnavailable("the review queue cannot be read: locked")
