"""The HTTP door's server: listen, serve, drain, stop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import structlog
import uvicorn

from forebay.edges.http_door.app import Served, application
from forebay.edges.http_door.protocol import bounded
from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forebay.corridor import Corridor
    from forebay.ports import Clock

log = structlog.get_logger("forebay.http")

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where the door listens and what it lets a client take. `port` 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: int = 4 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_connections: int = 2048
    header_s: float = 5.0
    """From a connection, or the first byte of a request on it, to the end of its headers."""
    body_s: float = 30.0
    keep_alive_s: int = 75
    stall_s: float = 30.0
    """How long a client may leave an answer unread."""
    silence_s: float = 10.0
    """How long a stream sends nothing before it sends a comment: proxies cut what is silent."""
    lame_duck_s: float = 0.5
    """Between telling /readyz 503 and taking no more connections."""
    grace_s: float = 10.0


class HttpDoor:
    """Serves HTTP between `start` and `stop`.

    Args:
        corridor: Where requests go.
        clock: The corridor's clock.
        names: What a client may name as a model, as of now (`Policy.names`).
        unready: Why nothing can be served now, or None.
        metrics: Returns the metrics page and its content type.
        settings: Address and bounds.
        refused: Called with `http` and the reason, one of `errors.STATUS` or `not_found`, of
            each request that was refused before the corridor.
    """

    def __init__(
        self,
        corridor: Corridor,
        clock: Clock,
        *,
        names: Callable[[], tuple[str, ...]],
        unready: Callable[[], str | None],
        metrics: Callable[[], tuple[bytes, str]],
        settings: HttpSettings | None = None,
        refused: Callable[[str, str], None] | None = None,
    ) -> None:
        self._settings = settings or HttpSettings()
        self._unready = unready
        self._draining = False
        told = refused or _unheard
        served = Served(
            corridor,
            clock,
            names,
            self._why_not_ready,
            metrics,
            self._settings.max_body_bytes,
            told,
            self._settings.silence_s,
        )
        self._server = _Server(
            uvicorn.Config(
                application(served),
                http=bounded(self._settings, told),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=self._settings.keep_alive_s,
                timeout_graceful_shutdown=ceil(self._settings.grace_s),
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the port is taken.
        """
        listener = self._listen()
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.005)
        port: int = listener.getsockname()[1]
        log.info("http.listening", host=self._settings.host, port=port)
        return port

    async def drain(self) -> None:
        """Tell /readyz 503; requests are still taken."""
        self._draining = True

    async def stop(self) -> None:
        """Drain, wait the lame-duck time, let answers end for the grace time, then cancel them."""
        if self._serving is None:
            return
        await self.drain()
        await asyncio.sleep(self._settings.lame_duck_s)
        self._server.should_exit = True
        await self._serving
        self._serving = None

    def _why_not_ready(self) -> str | None:
        return "the router is stopping" if self._draining else self._unready()

    def _listen(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            listener.close()
            raise SettingsError(
                f"the HTTP door cannot listen on {host}:{port}; "
                "stop what holds the port, or set FOREBAY_HTTP_PORT or FOREBAY_HOST"
            ) from None
        listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
        return listener


def _unheard(_door: str, _reason: str) -> None:
    """Count nothing: what the door does with its refusals where nobody asks for them."""


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: wiring decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
