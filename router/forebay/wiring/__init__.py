"""The only file that names concrete edges: settings in, a running router out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog
import uvloop
from prometheus_client import CollectorRegistry
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from forebay.corridor import Corridor
from forebay.edges import policy_file, store, telemetry
from forebay.edges.clock import SystemClock
from forebay.edges.fleet import CountedFleet
from forebay.edges.grpc_door import GrpcDoor, GrpcSettings
from forebay.edges.http_door import HttpDoor, HttpSettings
from forebay.edges.recorder import Recorder
from forebay.edges.triton import CHANNEL_OPTIONS, EngineFiles, TritonEngine
from forebay.edges.triton_metrics import MetricsScraper
from forebay.errors import ForebayError, SettingsError
from forebay.house import House
from forebay.policy.probes import check_probes
from forebay.values import Call, Request, Sampling, Text

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from forebay.policy.choose import Policy
    from forebay.policy.rules import Triton
    from forebay.ports import Engine

CHECKOUT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
PROBE_PERIOD_S = 0.5
PROBE_DEADLINE_S = 5.0

_log = structlog.get_logger("forebay")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; the policy says the rest."""

    home: Path
    policy: Path
    repository: Path
    grpc_port: int
    http_port: int
    triton_grpc_port: int
    triton_metrics_port: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings of `FOREBAY_*` variables, with their defaults.

        Raises:
            SettingsError: a port is no port.
        """

        def port(name: str, default: int) -> int:
            said = environ.get(name, str(default))
            if not said.isdecimal() or not 0 < int(said) < 1 << 16:
                raise SettingsError(f"{name} is {said!r}; a port is a number from 1 to 65535")
            return int(said)

        return cls(
            home=Path(environ.get("FOREBAY_HOME", CHECKOUT / ".forebay")),
            policy=Path(environ.get("FOREBAY_POLICY", CHECKOUT / "policies" / "default.yaml")),
            repository=Path(environ.get("FOREBAY_REPOSITORY", CHECKOUT / "model_repository")),
            grpc_port=port("FOREBAY_GRPC_PORT", 50051),
            http_port=port("FOREBAY_HTTP_PORT", 8080),
            triton_grpc_port=port("FOREBAY_TRITON_GRPC_PORT", 8001),
            triton_metrics_port=port("FOREBAY_TRITON_METRICS_PORT", 8002),
        )


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


def _engine_directory(settings: Settings, target: str, rule: Triton) -> Path:
    if rule.engine is not None:
        return CHECKOUT / rule.engine
    if rule.address is not None:
        raise SettingsError(
            f"target {target} has an address of its own and no engine; "
            "say `engine:`, the directory with that engine's tokenizer and limits"
        )
    return settings.repository / rule.model / "1" / "engine"


class Engines:
    """The targets that this version can call, and what watches their servers."""

    def __init__(self, settings: Settings, policy: Policy, clock: SystemClock) -> None:
        """Read every engine's files and prepare its connection.

        Raises:
            SettingsError: an engine directory is missing or broken, or not said.
        """
        self.by_target: dict[str, Engine] = {}
        self.channels: dict[str, grpc.aio.Channel] = {}
        self._scraped: dict[str, tuple[str, str]] = {}
        self._clock = clock
        local = f"{LOOPBACK}:{settings.triton_grpc_port}"
        page = f"http://{LOOPBACK}:{settings.triton_metrics_port}/metrics"
        engine_of: dict[str, str] = {}
        for target, rule in policy.targets.items():
            if rule.triton is None:
                continue
            address = rule.triton.address or local
            files = EngineFiles.read(_engine_directory(settings, target, rule.triton))
            if address not in self.channels:
                self.channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            channel, model = self.channels[address], rule.triton.model
            self.by_target[target] = TritonEngine(channel, model, files, clock)
            engine = engine_of[target] = f"{address}/{model}"
            # A server elsewhere has a page of its own; without its address, load is unknown.
            if url := rule.triton.metrics or (page if address == local else None):
                self._scraped[engine] = (url, model)
        self.fleet = CountedFleet(clock, engine_of)

    async def watch(self) -> None:
        """Keep the fleet's knowledge fresh until cancelled; raises if any watcher breaks."""
        async with asyncio.TaskGroup() as watchers:
            for engine, (url, model) in self._scraped.items():
                scraper = MetricsScraper(
                    url,
                    model,
                    self._clock,
                    own=functools.partial(self.fleet.own, engine),
                    take=functools.partial(self.fleet.scraped, engine),
                )
                watchers.create_task(scraper.run())
            watchers.create_task(self._prove())

    def unready(self) -> str | None:
        """Return which engine has not answered since it last failed, or None."""
        waiting = self.fleet.unproven()
        return f"the engine of {waiting[0]} does not answer yet" if waiting else None

    async def _prove(self) -> None:
        """Ask each engine that has failed, or never answered, for one token; over and over."""
        while True:
            for target in self.fleet.unproven():
                with contextlib.suppress(ForebayError):
                    await self._answers(target)
                    self.fleet.served(target)
            await asyncio.sleep(PROBE_PERIOD_S)

    async def _answers(self, target: str) -> None:
        now_s = self._clock.now_s()
        request = Request("probe", target, Text("Ready"), now_s, Sampling(max_tokens=1))
        engine = self.by_target[target]
        call = Call(request, await engine.prepare(request), 1, now_s + PROBE_DEADLINE_S)
        async for _ in engine.generate(call):
            pass


async def _serve(settings: Settings) -> None:
    """Build the house, open both doors, and close them in order when told to stop."""
    told = _told_to_stop()
    policy = read_policy(settings.policy)
    clock = SystemClock()
    engines = Engines(settings, policy, clock)
    async with contextlib.AsyncExitStack() as opened:
        for channel in engines.channels.values():
            opened.push_async_callback(channel.close)
        records = store.RecordStore(settings.home / "records.db")
        opened.callback(records.close)
        registry = CollectorRegistry()
        registry.register(telemetry.FleetMetrics(engines.fleet))
        metrics = telemetry.RequestMetrics(registry, policy)
        recorder = Recorder([metrics, records, telemetry.RequestLog()])
        opened.callback(recorder.close)
        house = House(policy, engines.by_target, engines.fleet, clock, recorder)
        doors = _doors(settings, house, engines, registry, metrics)
        for door in doors:
            await door.start()
            opened.push_async_callback(door.stop)
        _log.info("serving", policy=policy.version, classes=list(policy.by_name))
        await _until(told, engines.watch())
        # Both at once, so that one lame-duck time and one grace cover both.
        await asyncio.gather(*(door.stop() for door in doors))


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
    first = next(iter(engines.channels.values()), None)
    grpc_door = GrpcDoor(
        corridor,
        house.clock,
        names=names,
        unready=engines.unready,
        triton=first and GRPCInferenceServiceStub(first),
        settings=GrpcSettings(port=settings.grpc_port),
        refused=metrics.refused,
    )
    http_door = HttpDoor(
        corridor,
        house.clock,
        names=names,
        unready=engines.unready,
        metrics=functools.partial(telemetry.page, registry),
        settings=HttpSettings(port=settings.http_port),
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
