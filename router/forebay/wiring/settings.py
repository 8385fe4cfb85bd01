"""What the environment says; the policy says the rest."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Settings:
    """Paths, address and ports of one router.

    Both doors listen on `host`. `owners` is a file that the routers of one host share, to divide
    replicas among them; None where this router has all of them to itself. `router` is its name
    there.
    """

    home: Path
    policy: Path
    repository: Path
    host: str
    grpc_port: int
    http_port: int
    triton_grpc_port: int
    triton_metrics_port: int
    owners: Path | None
    router: str

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings of `FOREBAY_*` variables, with their defaults.

        Raises:
            SettingsError: a port is no port, or the host no address.
        """
        host = environ.get("FOREBAY_HOST") or "127.0.0.1"
        try:
            ipaddress.ip_address(host)
        except ValueError:
            told = "the address that the doors listen on, such as 0.0.0.0 for all"
            raise SettingsError(f"FOREBAY_HOST is {host!r}; it is {told}") from None

        def port(name: str, default: int) -> int:
            said = environ.get(name, str(default))
            if not said.isdecimal() or not 0 < int(said) < 1 << 16:
                raise SettingsError(f"{name} is {said!r}; a port is a number from 1 to 65535")
            return int(said)

        return cls(
            home=Path(environ.get("FOREBAY_HOME", CHECKOUT / ".forebay")),
            policy=Path(environ.get("FOREBAY_POLICY", CHECKOUT / "policies" / "default.yaml")),
            repository=Path(environ.get("FOREBAY_REPOSITORY", CHECKOUT / "model_repository")),
            host=host,
            grpc_port=port("FOREBAY_GRPC_PORT", 50051),
            http_port=port("FOREBAY_HTTP_PORT", 8080),
            triton_grpc_port=port("FOREBAY_TRITON_GRPC_PORT", 8001),
            triton_metrics_port=port("FOREBAY_TRITON_METRICS_PORT", 8002),
            owners=Path(owners) if (owners := environ.get("FOREBAY_OWNERS")) else None,
            router=environ.get("FOREBAY_ROUTER", f"{socket.gethostname()}-{os.getpid()}"),
        )
