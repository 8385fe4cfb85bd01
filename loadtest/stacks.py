"""Stacks for a sweep: Triton on one core; router and stub on the other; free ports.

Triton is kept by `forebay up --no-router` and the router is `forebay serve`: two processes, so
that each is born on its own core and whatever it starts inherits that.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.plan import ROOT
from loadtest.sweep_plan import policy_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadtest.sweep_plan import Configuration, Sweep

PORTS = ("GRPC", "HTTP", "TRITON_GRPC", "TRITON_HTTP", "TRITON_METRICS")
START_S, STOP_S = 90.0, 40.0
KEY = "FOREBAY_STUB_KEY"
"""The variable that policies name as the stub's key."""


class StackError(Exception):
    """A stack that did not start; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a stack listens, and the process behind Triton."""

    ports: Mapping[str, int]
    triton_pid: int

    @property
    def grpc(self) -> str:
        """The router's gRPC door."""
        return f"127.0.0.1:{self.ports['GRPC']}"

    @property
    def http(self) -> str:
        """The router's HTTP door."""
        return f"http://127.0.0.1:{self.ports['HTTP']}"

    @property
    def triton(self) -> str:
        """Triton's own gRPC port."""
        return f"127.0.0.1:{self.ports['TRITON_GRPC']}"

    def same_triton(self) -> bool:
        """Return whether Triton is still the process that started: a restart voids a point."""
        return Path(f"/proc/{self.triton_pid}").exists()


LEARNT, LEARNS, POLICY = "learnt.json", "learns.json", "policy.yaml"
"""What lies beside a stack's logs: what its router knew, what it knew in the end, its policy."""


@contextmanager
def running(
    sweep: Sweep, one: Configuration, values: Mapping[str, str], place: Path, luck: int = 1
) -> Iterator[Running]:
    """Yield a stack under one configuration; all of it is gone afterwards.

    `values` are for its policy, beside its own and `cloud_url`; `luck` is the cloud's seed. The
    router begins with what `place` says that it has learnt, as after a restart, and what it knows
    in the end is put beside that.

    Raises:
        StackError: a part did not start.
    """
    logs = place / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        home = Path(tempfile.mkdtemp(prefix="forebay-sweep-"))
        parts.callback(shutil.rmtree, home, ignore_errors=True)
        (home / "router").mkdir()
        kept = home / "router" / LEARNT
        copied(place / LEARNT, kept)
        parts.callback(copied, kept, place / LEARNS)
        ports = free_ports()
        environment = {
            **os.environ,
            **{f"FOREBAY_{name}_PORT": str(port) for name, port in ports.items()},
            "FOREBAY_HOME": str(home / "router"),
            KEY: "stub",
        }
        url = "http://127.0.0.1:9/v1"
        if one.cloud:
            command = ["-m", "loadtest.cloud_stub", "--seed", str(luck), *sweep.cloud.flags]
            stub = parts.enter_context(
                _child(command, environment, sweep.cores.rest, logs / "stub")
            )
            said = _line(stub, "url", logs / "stub")
            url = str(said["url"])
        policy = place / POLICY
        policy.write_text(policy_text(one, {**values, "cloud_url": url}), encoding="utf-8")
        environment["FOREBAY_POLICY"] = str(policy)
        command = ["-m", "forebay", "up", "--json", "--no-router", "--home", str(home / "engine")]
        up = parts.enter_context(_child(command, environment, sweep.cores.engine, logs / "triton"))
        pid = _serving(up, logs / "triton")
        serve = ["-m", "forebay", "serve"]
        router = parts.enter_context(_child(serve, environment, sweep.cores.rest, logs / "router"))
        _await_ready(f"http://127.0.0.1:{ports['HTTP']}/readyz", router, logs / "router")
        yield Running(ports, pid)


def copied(source: Path, target: Path) -> None:
    """Copy a file, if it is there."""
    with suppress(FileNotFoundError):
        shutil.copyfile(source, target)


def free_ports() -> dict[str, int]:
    """Return a free port for each name; all are held until the last is known."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {name: one.getsockname()[1] for name, one in zip(PORTS, held, strict=True)}
    for one in held:
        one.close()
    return ports


@contextmanager
def _child(
    arguments: list[str], environment: dict[str, str], core: int, log: Path
) -> Iterator[_Said]:
    """Yield a process of ours that was born on a core; it and its children end with the block."""
    with log.with_suffix(".log").open("a") as errors:
        # taskset, and not sched_setaffinity after the fact: threads that exist keep their core.
        process = subprocess.Popen(  # noqa: S603 - our own modules
            ["taskset", "-c", str(core), sys.executable, *arguments],  # noqa: S607 - of util-linux
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    said = _Said(process, log.with_suffix(".jsonl"))
    try:
        yield said
    finally:
        said.close()


class _Said:
    """A process and the JSON lines it says; a thread reads on and keeps them all in a file."""

    def __init__(self, process: subprocess.Popen[str], kept: Path) -> None:
        self.process = process
        self._kept = kept
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self._kept.open("a", encoding="utf-8") as file:
            for line in self.process.stdout:
                file.write(line)
                file.flush()
                self._lines.put(line)
        self._lines.put(None)

    def lines(self, within_s: float) -> Iterator[dict[str, object]]:
        """Yield its lines until its output ends or the time is over."""
        until_s = time.monotonic() + within_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left_s)
            except queue.Empty:
                return
            if line is None:
                return
            with suppress(ValueError):
                yield json.loads(line)

    def close(self) -> None:
        """Stop it as Ctrl-C does, and make sure."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reading.join(STOP_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _line(process: _Said, key: str, log: Path) -> dict[str, object]:
    for said in process.lines(START_S):
        if key in said:
            return said
    raise _dead(log)


def _serving(up: _Said, log: Path) -> int:
    """Return Triton's process once the stack serves."""
    pid = 0
    for said in up.lines(START_S):
        if said.get("name") == "triton" and said.get("pid") is not None:
            pid = int(str(said["pid"]))  # told when it starts; the stack may serve before it does
        if said.get("phase") == "serving" and said.get("name") == "stack":
            return pid
    raise _dead(log)


def _await_ready(url: str, process: _Said, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.process.poll() is None:
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(url, timeout=1),  # noqa: S310 - our own loopback URL
        ):
            return
        time.sleep(0.1)
    raise _dead(log)


def _dead(log: Path) -> StackError:
    written = log.with_suffix(".log")
    last = written.read_text(errors="replace").splitlines()[-15:] if written.exists() else []
    return StackError(f"{log.name} did not start; the end of its log:\n" + "\n".join(last))
