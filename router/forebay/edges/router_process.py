"""The router itself as a program the supervisor keeps serving, judged by `/healthz`.

`/readyz` also tells whether the engine answers; a router whose engine restarts must live on.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOOPBACK = "127.0.0.1"
PROBE_S = 2.0
UNREACHABLE = 0


def reached(host: str) -> str:
    """Return the address at which one that listens on `host` is found from here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return LOOPBACK if address.version == 4 else "::1"  # noqa: PLR2004 - IPv4


def reached_at(host: str, port: int) -> str:
    """Return that address with its port; an IPv6 one stands in brackets."""
    found = reached(host)
    return f"[{found}]:{port}" if ":" in found else f"{found}:{port}"


async def http_status(port: int, path: str, host: str = LOOPBACK) -> int:
    """Return the status of `GET path` at `host`, or `UNREACHABLE` within two seconds."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(reached(host), port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
        return int(words[1])
    except (OSError, TimeoutError, IndexError, ValueError):
        return UNREACHABLE


@dataclass(frozen=True, slots=True)
class RouterStart:
    """How to start the router."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    python: str


class RouterProcess:
    """`forebay serve` as a program; it is told everything by `FOREBAY_*` variables."""

    name = "router"
    start_s = 60.0

    def __init__(
        self,
        variables: Mapping[str, str],
        http_port: int,
        log: Path,
        grace_s: float,
        *,
        host: str = LOOPBACK,
        argv: tuple[str, ...] = (sys.executable, "-m", "forebay", "serve"),
    ) -> None:
        self._variables = variables
        self._http_port = http_port
        self._host = host
        self._argv = argv
        self.log = log
        self.grace_s = grace_s

    def prepare(self) -> RouterStart:
        """Return how to start `forebay serve`."""
        return RouterStart(self._argv, {**os.environ, **self._variables}, sys.executable)

    async def ailment(self) -> str:
        """Return "" when the router says it lives, else what it said."""
        status = await http_status(self._http_port, "/healthz", self._host)
        if status == UNREACHABLE:
            return f"no answer on port {self._http_port}"
        return "" if status == 200 else f"/healthz said {status}"  # noqa: PLR2004  HTTP's OK

    def sweep(self) -> None:
        """Leave nothing: the router's state is its store's, and that survives."""
