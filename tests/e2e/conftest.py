"""Real stacks for tests: `forebay up` itself, on free ports, with a home of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from forebay.cli.up import CHECKOUT, PORTS
from forebay.edges.triton_process import SHARED_MEMORY, STUB, region_prefix

State = dict[str, object]
"""One line of `forebay up --json`."""

START_S = 90.0
STOP_S = 30.0


def free_ports(names: list[str]) -> dict[str, int]:
    """Return a free port for each name; all are held until the last is known, so none repeats."""
    held = [socket.socket() for _ in names]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, held, strict=True)}
    finally:
        for one in held:
            one.close()


@dataclass
class RunningStack:
    """One `forebay up --json`, and what it has said so far."""

    up: subprocess.Popen[str]
    home: Path
    ports: dict[str, int]
    states: list[State] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def port(self, name: str) -> int:
        """Return the port of FOREBAY_{name}_PORT."""
        return self.ports[f"FOREBAY_{name}_PORT"]

    def listen(self) -> None:
        """Collect state lines until the stack is gone."""
        assert self.up.stdout is not None
        for line in self.up.stdout:
            with self.changed:
                self.states.append(json.loads(line))
                self.changed.notify_all()

    def wait_for(
        self, name: str, phase: str, *, after: int = 0, within_s: float = START_S
    ) -> State:
        """Return the first such state told after the first `after` states."""
        until_s = time.monotonic() + within_s
        with self.changed:
            while True:
                for state in self.states[after:]:
                    if (state["name"], state["phase"]) == (name, phase):
                        return state
                left_s = until_s - time.monotonic()
                if left_s <= 0 or self.up.poll() is not None:
                    pytest.fail(f"no {name} {phase} within {within_s} s\n{self.account()}")
                self.changed.wait(min(left_s, 0.5))

    def pid(self, name: str) -> int:
        """Return the process now behind `triton` or `router`."""
        pids = [s["pid"] for s in self.states if s["name"] == name and s["phase"] == "serving"]
        return int(str(pids[-1]))

    def stub(self, model: str = "tensorrt_llm") -> int:
        """Return the process that runs the model's Python code."""
        for child in psutil.Process(self.pid("triton")).children():
            words = child.cmdline()
            if words and words[0].endswith(STUB) and f"{model}/1/" in words[1]:
                return child.pid
        raise AssertionError(f"no stub of {model}")

    def account(self) -> str:
        """Return what happened, for a failure's message."""
        logs = "\n".join(
            f"== {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            for log in sorted((self.home / "logs").glob("*.log"))
        )
        return "\n".join(json.dumps(s) for s in self.states) + "\n" + logs

    def stop(self) -> int:
        """Stop as Ctrl-C does and return the exit status."""
        self.up.send_signal(signal.SIGINT)
        return self.up.wait(STOP_S)

    def leftovers(self) -> list[str]:
        """Return what the stack left on this host: processes, ports, shared-memory regions."""
        marks = (str(self.home), region_prefix(self.home))
        left = [
            f"process {p.pid} {p.info['cmdline']}"
            for p in psutil.process_iter(["cmdline"])
            if p.pid != os.getpid() and any(m in w for w in p.info["cmdline"] or [] for m in marks)
        ]
        left += [str(region) for region in SHARED_MEMORY.glob(f"{region_prefix(self.home)}*")]
        for name, port in self.ports.items():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    left.append(f"{name} {port} still listens")
        return left


def launch(home: Path, *flags: str) -> RunningStack:
    """Start `forebay up --json` on free ports; it serves the checkout's own engine."""
    ports = free_ports(list(PORTS))
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    errors = (home / "up.err").open("w")
    up = subprocess.Popen(
        [sys.executable, "-m", "forebay", "up", "--json", "--home", str(home), *flags],
        env=environment,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    errors.close()
    stack = RunningStack(up, home, ports)
    threading.Thread(target=stack.listen, daemon=True).start()
    return stack


StartStack = Callable[..., RunningStack]


@pytest.fixture(scope="session")
def start_stack() -> Iterator[StartStack]:
    """Start stacks with given flags (`--no-router`, `--policy FILE`); all stop at the end."""
    started: list[RunningStack] = []

    def start(*flags: str, wait: bool = True) -> RunningStack:
        stack = launch(Path(tempfile.mkdtemp(prefix="forebay-")), *flags)
        started.append(stack)
        if wait:
            stack.wait_for("stack", "serving")
        return stack

    yield start
    for stack in started:
        if stack.up.poll() is None:
            stack.stop()
        if stack.up.stdout is not None:
            stack.up.stdout.close()
        shutil.rmtree(stack.home, ignore_errors=True)


@pytest.fixture(scope="session")
def triton(start_stack: StartStack) -> RunningStack:
    """Return a supervised Triton with the embedded engine, without the router."""
    return start_stack("--no-router")


@pytest.fixture(scope="session")
def stack(start_stack: StartStack) -> RunningStack:
    """Return Triton and the router under policies/default.yaml."""
    return start_stack()
