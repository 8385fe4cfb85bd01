"""The only package that names concrete edges: settings in, a running router out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from forebay.corridor import Corridor
from forebay.edges import gauges, policy_file, store, telemetry
from forebay.edges.clock import SystemClock
from forebay.edges.grpc_door import GrpcDoor, GrpcSettings
from forebay.edges.http_door import HttpDoor, HttpSettings
from forebay.edges.recorder import Recorder
from forebay.edges.review import ReviewQueue
from forebay.house import House
from forebay.policy.probes import check_probes
from forebay.policy.rules import HUMAN
from forebay.wiring import prices
from forebay.wiring.engines import Engines
from forebay.wiring.settings import CHECKOUT, Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from forebay.policy.choose import Policy

__all__ = ["CHECKOUT", "Settings", "failed_probes", "read_policy", "run"]

_log = structlog.get_logger("forebay")


def read_policy(path: Path) -> Policy:
    """Return a checked policy.

    Raises:
        SettingsError: every error with its file, line and column.
    """
    return policy_file.load(path)


def failed_probes(path: Path, policy: Policy) -> list[str]:
    """Return a sentence for each probe beside a policy that the policy decides otherwise.

    Raises:
        SettingsError: the file of probes is wrong.
    """
    beside = path.with_suffix(".probes.yaml")
    if not beside.exists():
        return []
    outcomes = check_probes(policy, policy_file.load_probes(beside))
    return [f"{beside}: {o.probe}: {o.wrong}" for o in outcomes if o.wrong is not None]


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: the policy, an engine or a port is wrong.
    """
    _configure_logs()
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Build the house, open both doors, and close them in order when told to stop."""
    told = _told_to_stop()
    policy = read_policy(settings.policy)
    clock = SystemClock()
    engines = Engines(settings, policy, clock)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(engines.close)
        records = store.RecordStore(settings.home / "records.db")
        opened.callback(records.close)
        review = ReviewQueue(settings.home / "review.db", clock)
        opened.callback(review.close)
        registry = CollectorRegistry()
        state = engines.admission.controller.state
        registry.register(gauges.AdmissionGauges(state, clock, engines.breakers))
        metrics = telemetry.RequestMetrics(registry, policy)
        recorder = Recorder([metrics, records, telemetry.RequestLog()])
        opened.callback(recorder.close)
        called = {HUMAN: review, **engines.by_target}
        house = House(policy, called, engines.admission, clock, recorder, review)
        doors = _doors(settings, house, engines, registry, metrics)
        for door in doors:
            await door.start()
            opened.push_async_callback(door.stop)
        # A full collection holds every answer up, for 76 ms where only modules are loaded: what
        # lives as long as the router is not looked through again.
        gc.collect()
        gc.freeze()
        _log.info("serving", policy=policy.version, classes=list(policy.by_name))
        await _until(told, _watch(settings.policy, policy, engines))
        # Both at once, so that one lame-duck time and one grace cover both.
        await asyncio.gather(*(door.stop() for door in doors))


async def _watch(path: Path, policy: Policy, engines: Engines) -> None:
    """Keep engines, admission and prices fresh until cancelled."""
    async with asyncio.TaskGroup() as watchers:
        watchers.create_task(engines.watch())
        watchers.create_task(
            prices.follow(path, policy, engines.pool_of, engines.admission.controller.state)
        )


async def _until(told: asyncio.Event, watch: Coroutine[Any, Any, None]) -> None:
    """Wait to be told to stop; a watcher that breaks is raised, for nothing works without it."""
    watching, waiting = asyncio.ensure_future(watch), asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({watching, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        waiting.cancel()
        await asyncio.gather(watching, waiting, return_exceptions=True)


def _doors(
    settings: Settings,
    house: House,
    engines: Engines,
    registry: CollectorRegistry,
    metrics: telemetry.RequestMetrics,
) -> tuple[GrpcDoor, HttpDoor]:
    corridor, names = Corridor(house), house.policy.names
    grpc_door = GrpcDoor(
        corridor,
        house.clock,
        names=names,
        unready=engines.unready,
        triton=engines.triton,
        settings=GrpcSettings(host=settings.host, port=settings.grpc_port),
        refused=metrics.refused,
    )
    http_door = HttpDoor(
        corridor,
        house.clock,
        names=names,
        unready=engines.unready,
        metrics=functools.partial(telemetry.page, registry),
        settings=HttpSettings(host=settings.host, port=settings.http_port),
        refused=metrics.refused,
    )
    return grpc_door, http_door


def _told_to_stop() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set, from now on."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


def _configure_logs() -> None:
    """Log one JSON object a line to standard error; libraries only from warnings up."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
