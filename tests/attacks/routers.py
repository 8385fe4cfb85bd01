"""Whole routers before loopback providers: in this process over fast circuits, or `forebay serve`.

Both have real doors, a real corridor, real admission and the real adapters.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx
import yaml
from attacks.clients import clients
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from forebay.corridor import Corridor
from forebay.edges import cloud, gauges, store
from forebay.edges.admission import LoopAdmission
from forebay.edges.clock import SystemClock
from forebay.edges.grpc_door import GrpcDoor, GrpcSettings
from forebay.edges.http_door import HttpDoor, HttpSettings
from forebay.edges.telemetry import page
from forebay.policy.admission import CloudBreakers, Controller
from forebay.policy.admission.book import places
from forebay.testing import MemoryLedger, house, policy
from forebay.wiring import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from attacks.clients import Clients
    from attacks.providers import Provider

    from forebay.policy.health import Rules

GRPC = GrpcSettings(port=0, lame_duck_s=0.0, grace_s=0.2)
HTTP = HttpSettings(port=0, lame_duck_s=0.0, grace_s=0.2)

PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 100.0, "cached_usd_per_mtok": 1.0}
READY_S, RECORDED_S = 60.0, 5.0


@dataclass(frozen=True)
class Router:
    """A router as its clients and its operator see it."""

    clients: Clients
    _records: Callable[[int], list[dict[str, Any]]]

    def records(self, after: int = 0) -> list[dict[str, Any]]:
        """Return the records that are there, but for the first `after`."""
        return self._records(after)

    async def recorded(self, count: int) -> list[dict[str, Any]]:
        """Return all records, once there are so many: the last follows the last word to a client.

        There are no more a moment later.
        """
        async with asyncio.timeout(RECORDED_S):
            while len(self.records()) < count:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return self.records()

    async def gauge(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each sample of a gauge that is not 0."""
        told = await self.clients.http.get("/metrics")
        families = text_string_to_metric_families(told.text)
        return [s.labels for f in families if f.name == name for s in f.samples if s.value]

    async def full(self) -> set[str]:
        """Return the clouds that are left alone because they said that they are full."""
        return {labels["target"] for labels in await self.gauge("forebay_cloud_full")}

    async def circuits(self) -> dict[str, str]:
        """Return where the circuit of each cloud stands."""
        found = await self.gauge("forebay_cloud_state")
        return {labels["target"]: labels["state"] for labels in found}


def document(providers: Sequence[Provider], **each: Any) -> dict[str, Any]:
    """Return a policy over a target for each provider, and a class that begins at each of them.

    A class is named after where it begins, its ladder goes round all the others. `each` is said
    of every target.
    """
    names = [provider.wire.adapter for provider in providers]
    models = {
        name: {name: {"model": "some-model", "base_url": provider.url}, "price": PRICE, **each}
        for name, provider in zip(names, providers, strict=True)
    }
    routes = [
        {
            "name": f"{name}_first",
            "match": {"task": name},
            "model": name,
            "fallback": names[at + 1 :] + names[:at],
        }
        for at, name in enumerate(names)
    ]
    return {"models": models, "routes": routes, "default": {"model": names[0]}}


@asynccontextmanager
async def in_process(said: Mapping[str, Any], rules: Rules) -> AsyncIterator[Router]:
    """Yield a router in this loop whose circuits keep these rules."""
    made, clock, ledger = policy(said), SystemClock(), MemoryLedger()
    breakers = CloudBreakers(rules=rules)
    controller = Controller(places(made, dict.fromkeys(made.targets, "")), outside=breakers)
    admission = LoopAdmission(controller, clock)
    engines = {
        name: engine
        for name, target in made.targets.items()
        if (engine := cloud.engine(name, target, clock, {}, admission)) is not None
    }
    fakes = house(engines, said, clock=clock, ledger=ledger)
    corridor = Corridor(replace(fakes, admission=admission))
    registry = CollectorRegistry()
    registry.register(gauges.AdmissionGauges(controller.state, clock, breakers))
    known: dict[str, Any] = {"names": made.names, "unready": lambda: None}
    grpc_door = GrpcDoor(corridor, clock, settings=GRPC, **known)
    http_door = HttpDoor(corridor, clock, metrics=lambda: page(registry), settings=HTTP, **known)
    async with AsyncExitStack() as opened:
        for engine in engines.values():
            opened.push_async_callback(engine.close)
        ports = []
        for door in (grpc_door, http_door):
            ports.append(await door.start())
            opened.push_async_callback(door.stop)
        asking = await opened.enter_async_context(clients(*ports))
        yield Router(asking, lambda after: [store.body(r) for r in ledger.records[after:]])


@asynccontextmanager
async def in_its_own(said: Mapping[str, Any], home: Path) -> AsyncIterator[Router]:
    """Yield a `forebay serve` of its own, on free ports; `router.log` in its home is its log."""
    (home / "policy.yaml").write_text(yaml.safe_dump(dict(said)))
    ports = await _free_ports(5)
    names = ("GRPC", "HTTP", "TRITON_GRPC", "TRITON_HTTP", "TRITON_METRICS")
    named = {f"FOREBAY_{n}_PORT": str(port) for n, port in zip(names, ports, strict=True)}
    where = {"FOREBAY_HOME": str(home), "FOREBAY_POLICY": str(home / "policy.yaml")}
    with (home / "router.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forebay", "serve"),
            env=os.environ | named | where,
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
        )
    try:
        async with clients(ports[0], ports[1]) as asking:
            await _ready(asking)
            yield Router(asking, lambda after: _stored(home / "records.db", after))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert "Traceback" not in (home / "router.log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _free_ports(count: int) -> list[int]:
    """Return ports that are free now; all are held until the last is known."""
    servers = [await asyncio.start_server(_unused, "127.0.0.1", 0) for _ in range(count)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    for server in servers:
        server.close()
        await server.wait_closed()
    return ports


def _unused(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _ready(asking: Clients) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with suppress(httpx.TransportError):
                if (await asking.http.get("/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


def _stored(path: Path, after: int) -> list[dict[str, Any]]:
    reading = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        told = reading.execute("SELECT body FROM records LIMIT -1 OFFSET ?", (after,))
        return [json.loads(body) for (body,) in told]
    finally:
        reading.close()
