"""Locust's face, in processes of its own: imported here, it would patch this one for gevent."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from loadtest.limits import served

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PLAN = """\
name: tiny
duration_s: 2
drain_s: 2
lag_ms: 5000
arrivals: {kind: poisson, rate_rps: 10}
classes:
  - {name: chat, share: 1, door: grpc, slo: {ttft_ms: %d, attainment: 0.9}}
  - {name: code, share: 1, door: openai, slo: {ttft_ms: %d, attainment: 0.9}}
"""


@pytest.fixture(scope="module")
def doors():
    core = min(os.sched_getaffinity(0))
    with served("grpc", 4, core) as (grpc, _), served("openai", 4, core) as (http, _):
        yield ["--grpc", f"127.0.0.1:{grpc}", "--http", f"http://127.0.0.1:{http}"]


def command(tmp_path, doors, *more, ttft_ms=5000, plan=PLAN):
    path = tmp_path / "plan.yaml"
    path.write_text(plan % (ttft_ms, ttft_ms) if "%d" in plan else plan)
    head = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
    return [*head, "--plan", str(path), "--report", str(tmp_path / "out"), *doors, *more]


def headless(tmp_path, doors, **changed):
    return subprocess.run(
        command(tmp_path, doors, "--headless", **changed),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_headless_run_reports_both_doors_and_exits_by_the_slos(tmp_path, doors):
    ran = headless(tmp_path, doors)
    assert ran.returncode == 0, ran.stderr
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(body["doors"]) == {"grpc", "openai"}
    assert body["attainment"] == 1.0
    assert body["ended"] == {"served": body["offered"]}
    assert re.search(r"(?m)^grpc +chat +\d+ +0\(0.00%\)", ran.stdout + ran.stderr)


def test_a_missed_slo_is_a_failure_in_locust_and_an_exit_status(tmp_path, doors):
    # A limit below a microsecond cannot be kept by anybody.
    ran = headless(tmp_path, doors, plan=PLAN.replace("%d", "0.0001"))
    assert ran.returncode == 1
    assert "missed its TTFT SLO" in ran.stdout + ran.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["attainment"] == 0


def test_a_wrong_plan_is_a_sentence_and_status_2(tmp_path, doors):
    ran = headless(tmp_path, doors, plan=PLAN.replace("rate_rps", "rate_rp"))
    assert ran.returncode == 2, ran.stderr
    assert "plan.yaml:5:27: unknown key 'arrivals.poisson.rate_rp'; did you mean rate_rps?" in (
        ran.stdout + ran.stderr
    )


@contextmanager
def web(words):
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def until(url, words, within_s):
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            page = read(url)
        except OSError:
            page = ""
        if words in page:
            return page
        time.sleep(0.2)
    raise AssertionError(f"no {words!r} at {url}")


def test_the_web_interface_starts_a_run_and_shows_the_report(tmp_path, doors):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    at = f"http://127.0.0.1:{port}"
    more = ("--web-host", "127.0.0.1", "--web-port", str(port))
    with web(command(tmp_path, doors, *more)):
        until(f"{at}/slo", "No run yet", 20)
        urllib.request.urlopen(f"{at}/swarm", data=b"", timeout=5).close()
        page = until(f"{at}/slo", "all SLOs of their class", 20)
        assert page.count("<svg") == 5
        until(f"{at}/stats/requests", '"stopped"', 20)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["attainment"] == 1.0
