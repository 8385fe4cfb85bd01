"""Routers of a test's own over Tritons that stand already, and what clients see of them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import free_ports

from forebay.cli.top import Series, read
from forebay.cli.up import CHECKOUT, PORTS
from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

ENGINE = "model_repository/tensorrt_llm/1/engine"
STUB_KEY = "FOREBAY_STUB_KEY"
READY_S = 30.0
LONGEST_S = 60.0
"""No call of a test may take longer: one that does hangs."""


@dataclass
class Told:
    """What one request was told, on the monotonic clock; `code` is OK where it was answered."""

    code: str = "OK"
    sentence: str = ""
    retry_after_s: float | None = None
    decision: pb.Decision | None = None
    done: pb.Done | None = None
    began_s: float = 0.0
    decided_s: float = 0.0
    ended_s: float = 0.0

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass
class Router:
    """One `forebay serve`, as its clients see it."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path
    channel: grpc.Channel = field(init=False)
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.ports['FOREBAY_GRPC_PORT']}")
        self.stub = router_pb2_grpc.RouterStub(self.channel)

    def ask(
        self, *, tokens: int = 4, answered: bool = True, deadline_ms: int | None = None, **more: str
    ) -> Told:
        """Return what a streamed request was told; without `answered`, up to its decision.

        `more` are labels, and `model`.
        """
        made = asked(tokens, deadline_ms, **more)
        told = Told(began_s=time.monotonic())
        call = self.stub.Generate(made, timeout=LONGEST_S)
        try:
            for event in call:
                kind = event.WhichOneof("event")
                if kind == "decision":
                    told.decision, told.decided_s = event.decision, time.monotonic()
                    if not answered:
                        call.cancel()
                        break
                elif kind == "done":
                    told.done = event.done
        except grpc.RpcError as error:
            told.code, told.sentence = error.code().name, error.details()
            trailers = dict(error.trailing_metadata() or ())
            if (after := trailers.get("retry-after")) is not None:
                told.retry_after_s = float(after)
        told.ended_s = time.monotonic()
        return told

    def placement(self, **more: str) -> tuple[str, str]:
        """Return what would be decided on a request now, and why; nothing is executed."""
        rung = self.stub.Explain(asked(4, None, **more), timeout=5).rungs[0]
        return rung.placement, rung.reason

    def gauges(self) -> Series:
        """Return every sample of the router's own metrics."""
        return read(f"http://127.0.0.1:{self.ports['FOREBAY_HTTP_PORT']}/metrics")

    def readiness(self) -> tuple[int, str]:
        """Return the status and the sentence of /readyz; 0 where nobody answers."""
        url = f"http://127.0.0.1:{self.ports['FOREBAY_HTTP_PORT']}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def await_ready(self) -> None:
        """Return once it serves."""
        until(lambda: self.readiness()[0] == 200, READY_S, lambda: self.log.read_text()[-4000:])

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def asked(tokens: int, deadline_ms: int | None, *, model: str = "auto", **labels: str):
    """Return a request for so many tokens."""
    made = pb.GenerateRequest(model=model)
    made.messages.add(role="user", content="Tell me of the river, the dam and the town below.")
    made.sampling.max_tokens = made.sampling.min_tokens = tokens
    for name, value in labels.items():
        setattr(made.context.labels, name, value)
    if deadline_ms is not None:
        made.context.deadline_ms = deadline_ms
    return made


def until(
    true: Callable[[], object], within_s: float, account: Callable[[], object] = str
) -> float:
    """Return the seconds until it was true; fail with the account of it where it never was."""
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > within_s:
            pytest.fail(f"not within {within_s} s: {account()}")
        time.sleep(0.02)
    return time.monotonic() - began_s


@contextmanager
def serving(home: Path, policy: str, *, wait: bool = True, **settings: str) -> Iterator[Router]:
    """Yield `forebay serve` under a policy, on ports of its own; `settings` are variables."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "policy.yaml").write_text(policy)
    # All of them: a default port could be that of a stack that somebody runs here.
    ports = free_ports(list(PORTS))
    said = {name: str(port) for name, port in ports.items()}
    said |= {"FOREBAY_HOME": str(home), "FOREBAY_POLICY": str(home / "policy.yaml")}
    with (home / "router.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "forebay", "serve"],
            env=os.environ | said | {STUB_KEY: "stub"} | settings,
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
        )
    router = Router(process, ports, home / "router.log")
    try:
        if wait:
            router.await_ready()
        yield router
        process.terminate()
        assert process.wait(30) in {0, -signal.SIGKILL}
        assert "Traceback" not in router.log.read_text()
    finally:
        router.channel.close()
        process.kill()
        process.wait(30)


@contextmanager
def cloud(**pace: float) -> Iterator[str]:
    """Yield the base URL of a paced OpenAI API; `pace` are the stub's flags."""
    said = {"sigma": 0.1, "pause_share": 0.0, "ttft_s": 0.1, "tpot_s": 0.01} | pace
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in said.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.cloud_stub", *flags],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
