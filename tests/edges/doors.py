"""Doors on free ports before a corridor of fakes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpc import aio

from forebay.corridor import Corridor
from forebay.edges.grpc_door import GrpcDoor, GrpcSettings
from forebay.edges.http_door import HttpDoor, HttpSettings
from forebay.policy.health import Health
from forebay.testing import FakeEngine, LoopClock, MemoryLedger, held, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from forebay.house import House

NAMES = ("auto", "default", "local")
GRPC = GrpcSettings(port=0, lame_duck_s=0.0, grace_s=0.2, stall_s=1.0)
HTTP = HttpSettings(port=0, lame_duck_s=0.0, grace_s=0.2, stall_s=1.0, header_s=0.6, body_s=1.0)


@dataclass
class Behind:
    """What stands behind a door in a test; `why` is the reason for not being ready."""

    engine: FakeEngine
    house: House
    ledger: MemoryLedger
    corridor: Corridor
    why: str | None = None
    port: int = 0
    door: Any = None
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def forgive(self) -> None:
        """Let the engine be called again, however often it has failed."""
        for pool in self.house.admission.controller.state.pools.values():
            for replica in pool.replicas.values():
                replica.health = Health()

    @property
    def held(self) -> int:
        return held(self.house)

    def refused(self, door: str, reason: str) -> None:
        self.refusals.append((door, reason))

    def unready(self) -> str | None:
        return self.why

    async def cancelled(self, within_s: float = 1.0) -> None:
        """Assert, inside the running loop, that the engine's work ends within the time."""
        await until(lambda: not self.engine.running, within_s)

    async def runs(self) -> None:
        """Wait until the engine has been called."""
        await until(lambda: bool(self.engine.running), 2)


async def until(holds: Callable[[], bool], within_s: float) -> None:
    """Look every millisecond until it holds; there is no event to wait for across a socket."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def unread(call: Any) -> int:
    """Read what was left of a gRPC stream until its end, whatever that is; return how many."""
    read = 0
    with suppress(aio.AioRpcError):
        while await call.read() is not aio.EOF:
            read += 1
    return read


def behind(engine: FakeEngine | None = None, **kept: Any) -> Behind:
    made = engine or FakeEngine()
    ledger = MemoryLedger()
    whole = house({"local": made}, ledger=ledger, **kept)
    return Behind(made, whole, ledger, Corridor(whole))


@asynccontextmanager
async def grpc_door(
    engine: FakeEngine | None = None,
    settings: GrpcSettings = GRPC,
    triton: Any = None,
    **kept: Any,
) -> AsyncIterator[Behind]:
    back = behind(engine, **kept)
    door = GrpcDoor(
        back.corridor,
        LoopClock(),
        names=lambda: NAMES,
        unready=back.unready,
        triton=lambda: triton,
        settings=settings,
        refused=back.refused,
    )
    back.door, back.port = door, await door.start()
    try:
        yield back
    finally:
        await door.stop()


@asynccontextmanager
async def http_door(
    engine: FakeEngine | None = None, settings: HttpSettings = HTTP, **kept: Any
) -> AsyncIterator[Behind]:
    back = behind(engine, **kept)
    door = HttpDoor(
        back.corridor,
        LoopClock(),
        names=lambda: NAMES,
        unready=back.unready,
        metrics=lambda: (b"requests_total 1\n", "text/plain; version=0.0.4"),
        settings=settings,
        refused=back.refused,
    )
    back.door, back.port = door, await door.start()
    try:
        yield back
    finally:
        await door.stop()
