"""Where an engine's replicas are: addresses as they are written, and what is wrong with them."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

PORT_MAX = 65_535
PORT_DIGITS = len(str(PORT_MAX))
METRICS_PATH = "/metrics"


@dataclass(frozen=True, slots=True, order=True)
class ReplicaAddress:
    """One Triton server: its gRPC `host:port`, and the URL of its metrics page if it is known.

    Without a page its load is what the router itself sent there; the rest is unknown. One to
    `drain` gets no new request.
    """

    address: str
    metrics: str | None = None
    drain: bool = False


@dataclass(frozen=True, slots=True)
class Misread:
    """One thing that is wrong with a list of replicas: in which item, at which key, and what."""

    item: int
    key: str
    message: str


_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")


def host_fault(host: str) -> str | None:
    """Return what is wrong with a host's name, or None."""
    if len(host) <= 253 and _HOST.fullmatch(host):  # noqa: PLR2004 - RFC 1035
        return None
    return f"expected a host's name, not {_shown(host)}"


def address_fault(said: str) -> str | None:
    """Return what is wrong with `host:port` or `[IPv6]:port`, or None."""
    host, colon, port = said.rpartition(":")
    number = port.isascii() and port.isdigit() and len(port) <= PORT_DIGITS
    if not colon or not number or not 0 < int(port) <= PORT_MAX:
        return f"expected host:port, not {_shown(said)}"
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return f"expected [IPv6]:port, not {_shown(said)}"
        return None
    if ":" in host:
        return f"an IPv6 address stands in brackets, as in [::1]:8001, not {_shown(said)}"
    return f"expected host:port, not {_shown(said)}" if host_fault(host) else None


def page_fault(said: str) -> str | None:
    """Return what is wrong with the URL of a metrics page, or None."""
    expected = f"expected a page like http://host:8002{METRICS_PATH}, not {_shown(said)}"
    try:
        parts = urlsplit(said)
        port = parts.port
    except ValueError:
        return expected
    plain = said.isascii() and said.isprintable() and " " not in said
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return expected
    return "a metrics page takes no password" if "@" in parts.netloc else None


def misread(items: Iterable[tuple[str, str | None]]) -> list[Misread]:
    """Return all that is wrong with a list of addresses and pages, in order."""
    wrong: list[Misread] = []
    seen: set[str] = set()
    for item, (address, page) in enumerate(items):
        if fault := address_fault(address):
            wrong.append(Misread(item, "address", fault))
        elif address in seen:
            wrong.append(Misread(item, "address", f"{address} is listed twice"))
        seen.add(address)
        if page is not None and (fault := page_fault(page)):
            wrong.append(Misread(item, "metrics", fault))
    return wrong


def at(ip: str, port: int, metrics_port: int | None) -> ReplicaAddress:
    """Return the replica at an IP address."""
    host = f"[{ip}]" if ":" in ip else ip
    page = None if metrics_port is None else f"http://{host}:{metrics_port}{METRICS_PATH}"
    return ReplicaAddress(f"{host}:{port}", page)


def _shown(said: str) -> str:
    text = json.dumps(said, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:56]}..."'  # noqa: PLR2004 - room on a line
