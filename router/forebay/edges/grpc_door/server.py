"""The gRPC door: one port for `forebay.v1`, KServe v2, health and reflection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tritonclient.grpc import service_pb2 as kserve

from forebay.edges.grpc_door.kserve import DOOR, InferenceService
from forebay.edges.grpc_door.router import RouterService
from forebay.edges.grpc_door.rpc import Guard, unheard
from forebay.errors import SettingsError
from forebay.v1 import router_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import ServiceDescriptor
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

    from forebay.corridor import Corridor
    from forebay.ports import Clock

log = structlog.get_logger("forebay.grpc")

_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""The later name of the same messages; newer clients ask for it first."""


@dataclass(frozen=True, slots=True)
class GrpcSettings:
    """Where the door listens and what it lets a client take. `port` 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 50051
    max_message_bytes: int = 4 * 1024 * 1024
    max_metadata_bytes: int = 16 * 1024
    max_streams_per_connection: int = 256
    max_calls: int = 2048
    handshake_s: float = 3.0
    idle_s: float = 300.0
    age_s: float = 3600.0
    age_grace_s: float = 300.0
    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 10.0
    min_ping_s: float = 1.0
    """How often a client may ping without being sent away."""
    write_buffer_bytes: int = 16 * 1024
    stall_s: float = 30.0
    """How long a client may leave a stream unread."""
    lame_duck_s: float = 0.5
    """Between telling health NOT_SERVING and taking no more calls."""
    grace_s: float = 10.0

    @property
    def address(self) -> str:
        """Return `host:port`; an IPv6 address stands in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def options(self) -> list[tuple[str, int]]:
        """Return the channel arguments that bound a connection."""

        def ms(seconds: float) -> int:
            return round(seconds * 1000)

        return [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_streams_per_connection),
            ("grpc.server_handshake_timeout_ms", ms(self.handshake_s)),
            ("grpc.max_connection_idle_ms", ms(self.idle_s)),
            ("grpc.max_connection_age_ms", ms(self.age_s)),
            ("grpc.max_connection_age_grace_ms", ms(self.age_grace_s)),
            ("grpc.keepalive_time_ms", ms(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", ms(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", ms(self.min_ping_s)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", ms(self.min_ping_s)),
            ("grpc.http2.write_buffer_size", self.write_buffer_bytes),
            ("grpc.http2.lookahead_bytes", 64 * 1024),
            ("grpc.http2.bdp_probe", 0),
        ]


class GrpcDoor:
    """Serves gRPC between `start` and `stop`.

    Args:
        corridor: Where requests go.
        clock: The corridor's clock.
        names: What a client may name as a model, as of now (`Policy.names`).
        unready: Why nothing can be served now, or None; health follows it.
        triton: Returns the stub of a Triton server, asked for the ensemble's tensors.
        settings: Address and bounds.
        refused: Called with the door (`grpc` or `kserve`) and the reason, one of
            `errors.STATUS`, of each request that was refused before the corridor.
    """

    def __init__(
        self,
        corridor: Corridor,
        clock: Clock,
        *,
        names: Callable[[], tuple[str, ...]],
        unready: Callable[[], str | None],
        triton: Callable[[], GRPCInferenceServiceStub | None] = lambda: None,
        settings: GrpcSettings | None = None,
        refused: Callable[[str, str], None] | None = None,
    ) -> None:
        self._settings = settings or GrpcSettings()
        stall_s = self._settings.stall_s
        self._unready = unready
        self._refused = refused or unheard
        self._router = RouterService(corridor, clock, stall_s)
        self._kserve = InferenceService(
            corridor,
            clock,
            names=names,
            unready=unready,
            triton=triton,
            stall_s=stall_s,
            refused=self._refused,
        )
        self._health = health.aio.HealthServicer()
        self._draining = False
        self._tending: asyncio.Task[None] | None = None
        self._server: aio.Server | None = None

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the port is taken.
        """
        settings = self._settings
        server = aio.server(options=settings.options(), maximum_concurrent_rpcs=settings.max_calls)
        names = self._register(server)
        try:
            port = server.add_insecure_port(settings.address)
        except RuntimeError:
            raise SettingsError(
                f"the gRPC door cannot listen on {settings.address}; "
                "stop what holds the port, or set FOREBAY_GRPC_PORT or FOREBAY_HOST"
            ) from None
        self._server = server
        await self._tell_health(names)
        await server.start()
        self._tending = asyncio.create_task(self._tend_health(names))
        log.info("grpc.listening", host=settings.host, port=port)
        return port

    async def drain(self) -> None:
        """Tell health that nothing new should come; calls are still taken."""
        self._draining = True
        if self._tending is not None:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Drain, wait the lame-duck time, let calls end for the grace time, then cancel them."""
        if self._server is None:
            return
        await self.drain()
        await asyncio.sleep(self._settings.lame_duck_s)
        await self._server.stop(self._settings.grace_s)
        self._server = None

    def _register(self, server: aio.Server) -> tuple[str, ...]:
        """Add all services; return the names that health and reflection know."""
        grpc_, kserve_ = Guard("grpc", self._refused), Guard(DOOR, self._refused)
        told: list[tuple[Guard, ServiceDescriptor, Any, Any]] = [
            (grpc_, _service(router_pb2.DESCRIPTOR, "Router"), self._router, None),
            (
                kserve_,
                _service(kserve.DESCRIPTOR, "GRPCInferenceService"),
                self._kserve,
                self._kserve.refused,
            ),
            (grpc_, _service(health_pb2.DESCRIPTOR, "Health"), self._health, None),
        ]
        reflecting = _service(reflection_pb2.DESCRIPTOR, "ServerReflection")
        names = (*(service.full_name for _, service, _, _ in told), reflecting.full_name)
        mirror = reflection.aio.ReflectionServicer(names)
        for guard, service, servicer, otherwise in (*told, (grpc_, reflecting, mirror, None)):
            methods = guard.handlers(service, servicer, otherwise)
            server.add_registered_method_handlers(service.full_name, methods)
        server.add_registered_method_handlers(_REFLECTION_V1, grpc_.handlers(reflecting, mirror))
        return names

    async def _tend_health(self, names: tuple[str, ...]) -> None:
        """Keep health true to readiness until cancelled."""
        while True:
            await asyncio.sleep(0.25)
            await self._tell_health(names)

    async def _tell_health(self, names: tuple[str, ...]) -> None:
        serving = self._unready() is None and not self._draining
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        status = statuses.Value("SERVING" if serving else "NOT_SERVING")
        for name in ("", *names):
            await self._health.set(name, status)


def _service(file: Any, name: str) -> ServiceDescriptor:
    found: ServiceDescriptor = file.services_by_name[name]
    return found
