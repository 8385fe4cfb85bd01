"""How much the generator can offer on one core before it measures itself.

It climbs against `fake_server`, a process on another core where there is one, until its send lag
breaks the bound that fails a run, twice. CPU shares tell which of the two was at its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from loadtest import plan as plans
from loadtest.report import report
from loadtest.run import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtest.plan import Door, Plan

STEP = 1.5
FIRST_RPS = 40.0
LAST_RPS = 5000.0


def climb(
    door: Door, *, seconds: float, tokens: int, gap_ms: float, drive: Callable[[Any], Any]
) -> Iterator[dict[str, Any]]:
    """Yield one line for each load, the last being the first at which the generator fell behind."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with served(door, tokens, cores[-1], gap_ms) as (port, server):
        rate_rps = FIRST_RPS
        while rate_rps <= LAST_RPS:
            plan = _plan(door, port, rate_rps, seconds, tokens)
            line = _step(plan, server, drive)
            yield line
            if not line["kept_up"]:
                # Once more: a neighbour's work for a moment is no limit of ours.
                line = _step(plan, server, drive)
                yield line
                if not line["kept_up"]:
                    return
            rate_rps *= STEP


@contextmanager
def served(
    door: Door, tokens: int, core: int, gap_ms: float = 0.0
) -> Iterator[tuple[int, psutil.Process]]:
    """Yield port and process of a fake server on one core."""
    flags = ["--door", door, "--tokens", str(tokens), "--gap-ms", str(gap_ms)]
    command = [sys.executable, "-m", "loadtest.fake_server", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=plans.ROOT) as process:  # noqa: S603 - our own module
        try:
            os.sched_setaffinity(process.pid, {core})
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["port"]), psutil.Process(process.pid)
        finally:
            process.kill()


def _step(plan: Plan, server: psutil.Process, drive: Callable[[Any], Any]) -> dict[str, Any]:
    began_s, before_s, of_server_s = time.monotonic(), time.process_time(), _cpu_s(server)
    ran = drive(run(plan))
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - before_s
    body = report(plan, ran.outcomes, loop_late_ms=ran.loop_late_ms, busy=ran.busy).body
    answered = body["ended"].get("served", 0)
    lag = body["generator"]["send_lag_ms"]
    return {
        "door": plan.door,
        "offered_rps": round(body["offered_rps"], 1),
        "answered": answered,
        "offered": body["offered"],
        "tokens_per_s": round(body["completion_tokens"] / plan.duration_s),
        "send_lag_p50_ms": lag["p50"],
        "send_lag_p99_ms": lag["p99"],
        "ttft_p99_ms": body["ttft_ms"]["p99"],
        "generator_cpu": round(cpu_s / wall_s, 2),
        "generator_cpu_ms_per_request": round(1000 * cpu_s / max(answered, 1), 2),
        "server_cpu": round((_cpu_s(server) - of_server_s) / wall_s, 2),
        "kept_up": body["generator"]["kept_up"] and answered == body["offered"],
    }


def _cpu_s(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _plan(door: Door, port: int, rate_rps: float, seconds: float, tokens: int) -> Plan:
    one = {
        "name": "limit",
        "share": 1,
        "slo": {"attainment": 0.5},
        "prompt_tokens": 40,
        "output_tokens": tokens,
    }
    return plans.Plan.model_validate(
        {
            "name": "limits",
            "duration_s": seconds,
            "drain_s": 10,
            "door": door,
            "grpc": f"127.0.0.1:{port}",
            "http": f"http://127.0.0.1:{port}",
            "arrivals": {"kind": "poisson", "rate_rps": rate_rps},
            "classes": [one],
        }
    )
