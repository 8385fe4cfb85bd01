"""kill -9 of each process under load: no request hangs, service returns, nothing is left behind."""

import os
import re
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

CLIENTS = 8
DEADLINE_S = 30.0
SLACK_S = 1.0
BACK_WITHIN_S = 15.0
PROMPT = tuple(range(100, 132))
ANSWER_TOKENS = 48

pytestmark = pytest.mark.timeout(180)


def _add(
    request: service_pb2.ModelInferRequest, name: str, kind: str, shape: list[int], raw: bytes
):
    request.inputs.add(name=name, datatype=kind, shape=shape)
    request.raw_input_contents.append(raw)


def engine_request() -> service_pb2.ModelInferRequest:
    """Return a streaming request in token ids, as Triton's own port takes it."""
    request = service_pb2.ModelInferRequest(model_name="tensorrt_llm")
    ids = struct.pack(f"<{len(PROMPT)}i", *PROMPT)
    _add(request, "input_ids", "INT32", [1, len(PROMPT)], ids)
    _add(request, "input_lengths", "INT32", [1, 1], struct.pack("<i", len(PROMPT)))
    _add(request, "request_output_len", "INT32", [1, 1], struct.pack("<i", ANSWER_TOKENS))
    _add(request, "streaming", "BOOL", [1, 1], b"\x01")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def routed_request() -> service_pb2.ModelInferRequest:
    """Return a streaming request in text, as the router's port takes it."""
    request = service_pb2.ModelInferRequest(model_name="ensemble")
    text = b"Write a very long story about a dam, the river behind it and the town below."
    _add(request, "text_input", "BYTES", [1, 1], struct.pack("<I", len(text)) + text)
    _add(request, "max_tokens", "INT32", [1, 1], struct.pack("<i", ANSWER_TOKENS))
    _add(request, "stream", "BOOL", [1, 1], b"\x01")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


@dataclass(frozen=True)
class Outcome:
    """How one call ended, on the monotonic clock."""

    began_s: float
    ended_s: float
    said: str


@dataclass
class Load:
    """Clients that stream one answer after another until told to end."""

    port: int
    make: Callable[[], service_pb2.ModelInferRequest]
    outcomes: list[Outcome] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start all clients."""
        self.threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Let each client finish its call; a client that cannot is a request that hangs."""
        self.over.set()
        for thread in self.threads:
            thread.join(DEADLINE_S + SLACK_S)
        assert not any(thread.is_alive() for thread in self.threads), "a request hangs"

    def answered_since(self, moment_s: float) -> int:
        """Return how many calls were answered in full after the moment."""
        return sum(o.said == "answered" and o.ended_s > moment_s for o in list(self.outcomes))

    def _client(self) -> None:
        while not self.over.is_set():
            outcome = one_call(self.port, self.make())
            self.outcomes.append(outcome)
            if outcome.said != "answered":
                time.sleep(0.5)


def wait_until(true: Callable[[], bool]) -> None:
    """Return once it is true; what never is shows in the checks that follow."""
    until_s = time.monotonic() + BACK_WITHIN_S
    while not true() and time.monotonic() < until_s:
        time.sleep(0.05)


def one_call(port: int, request: service_pb2.ModelInferRequest) -> Outcome:
    """Make one call on a connection of its own and return how it ended."""
    began_s, messages = time.monotonic(), 0
    options = [("grpc.use_local_subchannel_pool", 1)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for answer in stub.ModelStreamInfer(iter([request]), timeout=DEADLINE_S):
                messages += 1
                if answer.error_message:
                    said = (
                        f"in the stream: {re.sub(r'[0-9.]+ s', '… s', answer.error_message)[:60]}"
                    )
                    break
                if answer.infer_response.parameters["triton_final_response"].bool_param:
                    said = "answered"
                    break
            else:
                said = "the stream ended without a final response"
    except grpc.RpcError as error:
        when = "before the first token" if not messages else "after tokens"
        said = f"{error.code().name} {when}"  # type: ignore[attr-defined]  every RpcError of a call
    return Outcome(began_s, time.monotonic(), said)


def kill_under_load(
    running, victim: Callable[[], int], port: int, make
) -> tuple[float, list[Outcome]]:
    """Kill the victim while clients stream; return the seconds to service and all outcomes."""
    load = Load(port, make)
    load.start()
    wait_until(lambda: load.answered_since(0) >= CLIENTS)
    killed_s = time.monotonic()
    os.kill(victim(), signal.SIGKILL)
    time.sleep(0.3)
    back_s = None
    while time.monotonic() < killed_s + BACK_WITHIN_S:
        if one_call(port, make()).said == "answered":
            back_s = time.monotonic() - killed_s
            break
        time.sleep(0.1)
    wait_until(lambda: load.answered_since(killed_s) >= CLIENTS)
    load.end()
    assert back_s is not None, f"not serving within {BACK_WITHIN_S} s\n{running.account()}"
    return back_s, [o for o in load.outcomes if o.ended_s >= killed_s]


def check(name: str, back_s: float, outcomes: list[Outcome]) -> None:
    """Print what clients saw and require that every call ended in time and in known words."""
    seen = Counter(outcome.said for outcome in outcomes)
    longest_s = max(outcome.ended_s - outcome.began_s for outcome in outcomes)
    print(f"\nkill -9 {name}: serving after {back_s:.1f} s, longest call {longest_s:.1f} s")
    print(f"  clients saw: {dict(seen)}")
    assert longest_s <= DEADLINE_S + SLACK_S
    assert seen["answered"] > 0
    assert not any("Exception" in said or said.startswith("UNKNOWN") for said in seen)


@pytest.fixture(scope="module")
def bare(start_stack) -> Iterator:
    """Return a Triton of this file's own, for its processes will be killed."""
    running = start_stack("--no-router")
    yield running
    assert running.stop() == 0
    assert running.leftovers() == []


@pytest.fixture(scope="module")
def whole(start_stack) -> Iterator:
    """Return a whole stack of this file's own."""
    running = start_stack()
    yield running
    assert running.stop() == 0
    assert running.leftovers() == []


@pytest.mark.parametrize("victim", ["stub", "triton"])
def test_triton_serves_again_after_a_kill(bare, victim):
    kill = {"stub": bare.stub, "triton": lambda: bare.pid("triton")}[victim]
    result = kill_under_load(bare, kill, bare.port("TRITON_GRPC"), engine_request)
    check(f"{victim}, clients on Triton", *result)


@pytest.mark.parametrize("victim", ["stub", "triton", "router"])
def test_the_stack_serves_again_after_a_kill(whole, victim):
    kill = whole.stub if victim == "stub" else lambda: whole.pid(victim)
    result = kill_under_load(whole, kill, whole.port("GRPC"), routed_request)
    check(f"{victim}, clients on the router", *result)
