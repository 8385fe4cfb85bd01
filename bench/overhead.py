"""What Triton and the router cost: the same engine bare, behind Triton, behind both, in one run.

    .venv/bin/python bench/overhead.py [--rounds 5] [--in-flight 1 8 32]

Starts a stack of its own on free ports. Each round measures, for every number in flight, the
bare engine, then Triton, then the router, with prompts of one kind and a response a token: a
machine that slows down slows all three. Printed, one JSON object a line: medians and the ratio
of each round; CPU time a token of each process on the way, which is where the rest is lost; the
TTFT that the router adds at one in flight; a newcomer's TTFT behind 31 that run; what each
process weighs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENGINE = ROOT / "model_repository" / "tensorrt_llm" / "1" / "engine"
PORTS = ("GRPC", "HTTP", "TRITON_GRPC", "TRITON_HTTP", "TRITON_METRICS")
NEWCOMERS = 5
TURNS = 60


class Measurer:
    """A process that answers each line with one JSON object."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """The process that measures; for the bare engine, the engine itself."""
        return self._process.pid

    def read(self) -> Any:
        """Return the next object."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, line: str) -> Any:
        """Send a line and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


@contextmanager
def stack(policy: Path) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Yield the ports and the processes of a stack that serves."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {name: one.getsockname()[1] for name, one in zip(PORTS, held, strict=True)}
    for one in held:
        one.close()
    variables = {f"FOREBAY_{name}_PORT": str(port) for name, port in ports.items()}
    with tempfile.TemporaryDirectory(prefix="forebay-") as home:
        up = subprocess.Popen(
            [sys.executable, "-m", "forebay", "up", "--json", "--home", home, "--policy", policy],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield ports, _pids(up)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(timeout=60)


def _pids(up: subprocess.Popen[str]) -> dict[str, int]:
    pids = {}
    assert up.stdout is not None
    for line in up.stdout:
        state = json.loads(line)
        if state["phase"] == "serving":
            pids[state["name"]] = state.get("pid")
        if state["name"] == "stack" and state["phase"] == "serving":
            return pids
    raise SystemExit("the stack did not start; try `make up`")


def tell(**line: Any) -> None:
    """Print one object."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def cpu_s(pids: dict[str, int]) -> dict[str, float]:
    """Return the CPU seconds that each process has used, threads included."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


def compare(ways: dict[str, Measurer], pids: dict[str, int], count: int, rounds: int) -> None:
    """Measure all ways in turn and print their medians and ratios to the bare engine."""
    runs: dict[str, list[Any]] = {name: [] for name in ways}
    for turn in range(rounds):
        for order, (name, way) in enumerate(ways.items()):
            before = cpu_s(pids)
            # Prompts of their own for each way: one engine must not find another's in its cache.
            run = way.ask(f"{count} {1000 * count + 100 * order + turn}")
            run["cpu_ms"] = {
                process: (after - before[process]) * 1000 / run["tokens"]
                for process, after in cpu_s(pids).items()
            }
            runs[name].append(run)
    line: dict[str, Any] = {"in_flight": count}
    for name, results in runs.items():
        rates = [run["tokens_per_s"] for run in results]
        line[f"{name}_tokens_per_s"] = statistics.median(rates)
        line[f"{name}_ttft_s"] = statistics.median(run["largest_ttft_s"] for run in results)
        if name != "bare":
            bare = [run["tokens_per_s"] for run in runs["bare"]]
            ratios = [a / b for a, b in zip(rates, bare, strict=True)]
            line[f"{name}_ratio"] = round(statistics.median(ratios), 3)
            line[f"{name}_ratios"] = [round(ratio, 3) for ratio in ratios]
    last = runs["router"][-1]
    line["router_itl_p50_ms"], line["router_itl_p99_ms"] = last["itl_p50_ms"], last["itl_p99_ms"]
    line["router_tokens_an_event"] = round(last["tokens"] / last["events"], 3)
    line["cpu_ms_a_token"] = {
        process: round(statistics.median(run["cpu_ms"][process] for run in runs[way]), 2)
        for process, way in (
            ("bare", "bare"),
            ("stub", "router"),
            ("triton", "router"),
            ("router", "router"),
        )
    }
    tell(**line)


def added_ttft(triton: Measurer, router: Measurer) -> None:
    """Print what the router adds to the TTFT of a request that runs alone."""
    pairs = [(triton.ask(f"1 {n}"), router.ask(f"1 {n + TURNS}")) for n in range(TURNS)]
    there = statistics.median(a["largest_ttft_s"] for a, _ in pairs) * 1000
    through = statistics.median(b["largest_ttft_s"] for _, b in pairs) * 1000
    tell(
        triton_ttft_p50_ms=round(there, 2),
        router_ttft_p50_ms=round(through, 2),
        router_added_ms=round(through - there, 2),
    )


def stub(triton: int) -> int:
    """Return the process in which the engine runs."""
    for child in psutil.Process(triton).children():
        if any("tensorrt_llm/1/" in word for word in child.cmdline()):
            return child.pid
    raise SystemExit("Triton runs no tensorrt_llm")


def memory(pids: dict[str, int]) -> dict[str, float]:
    """Return the resident MiB of the router, of Triton, and of all its stubs."""
    triton = psutil.Process(pids["triton"])
    stubs = sum(child.memory_info().rss for child in triton.children(recursive=True))
    return {
        "router_mib": round(psutil.Process(pids["router"]).memory_info().rss / 2**20, 1),
        "triton_mib": round(triton.memory_info().rss / 2**20, 1),
        "stubs_mib": round(stubs / 2**20, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triton-python", default=str(ROOT / ".venv-triton/bin/python"))
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with ExitStack() as opened:
        ports, pids = opened.enter_context(stack(HERE / "policy.yaml"))
        ways = {
            "bare": Measurer(
                asked.triton_python, str(HERE / "bare_openvino.py"), str(ENGINE), "--serve"
            ),
            "triton": Measurer(
                sys.executable, str(HERE / "engine_client.py"), f"127.0.0.1:{ports['TRITON_GRPC']}"
            ),
            "router": Measurer(
                sys.executable, str(HERE / "router_client.py"), f"127.0.0.1:{ports['GRPC']}"
            ),
        }
        for way in ways.values():
            opened.callback(way.close)
        ways["bare"].read()
        for way in ways.values():
            way.ask("8 1")
        watched = {**pids, "bare": ways["bare"].pid, "stub": stub(pids["triton"])}
        watched.pop("stack")
        watched.pop("engine", None)
        for count in asked.in_flight:
            compare(ways, watched, count, asked.rounds)
        short = [
            Measurer(
                sys.executable, str(HERE / client), f"127.0.0.1:{ports[port]}", "--tokens", "2"
            )
            for client, port in (("engine_client.py", "TRITON_GRPC"), ("router_client.py", "GRPC"))
        ]
        for way in short:
            opened.callback(way.close)
            way.ask("1 1")
        added_ttft(*short)
        late = [ways["router"].ask(f"31 {9000 + n} newcomer") for n in range(NEWCOMERS)]
        tell(newcomer_behind_31_ttft_s=[run["newcomer_ttft_s"] for run in late])
        tell(**memory(pids))


if __name__ == "__main__":
    main()
