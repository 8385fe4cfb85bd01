"""Locust's face, in processes of its own: imported here, it would patch this one for gevent."""

import json
import os
import re
import signal
import socket
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
drain_s: 5
lag_ms: 5000
arrivals: {kind: poisson, rate_rps: 10}
classes:
  - {name: chat, share: 1, door: grpc, output_tokens: 4, slo: {ttft_ms: %d, attainment: 0.9}}
  - {name: code, share: 1, door: openai, output_tokens: 4, slo: {ttft_ms: %d, attainment: 0.9}}
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


def test_nobody_there_is_a_sentence_and_status_2(tmp_path, doors):
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
    ran = headless(tmp_path, ["--grpc", nobody, *doors[2:]])
    assert ran.returncode == 2, ran.stderr
    said = f"loadtest: no router answers at {nobody}; start one with `make up`"
    assert said in ran.stdout + ran.stderr
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert body["generator"]["broken_off"] == [f"grpc: {said}"]


@pytest.fixture
def silent():
    """A door that keeps every request open: a minute goes by between the tokens."""
    with served("grpc", 4, min(os.sched_getaffinity(0)), 60_000) as (port, _):
        yield f"127.0.0.1:{port}"


LONG = PLAN.replace("duration_s: 2", "duration_s: 60")


def test_a_generator_that_is_told_to_end_says_what_was_open_and_how_late_it_was(tmp_path, silent):
    path = tmp_path / "plan.yaml"
    leave = "door: grpc, hang_up: {share: 0.5, after_ms: 2500}"
    path.write_text(LONG.replace("door: grpc", leave) % (5000, 5000))
    words = [sys.executable, "-m", "loadtest", "generate", str(path), "--zero-told"]
    process = subprocess.Popen(
        [*words, "--only", "grpc", "--grpc", silent],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        # Its zero was two seconds ago: what was due since is sent at once. Some leave soon, and
        # by then the others have been answered with a decision.
        process.stdin.write(f"{time.monotonic() - 2}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["ended"] == "hung_up"
        process.terminate()
        *outcomes, last = map(json.loads, process.stdout)
        assert process.wait(10) == 0
    assert "unfinished" in {one["ended"] for one in outcomes}
    assert outcomes[-1]["moves"][0]["target"] == "fake"
    assert last["loop_late_ms"]
    assert last["busy"] > 0


def test_a_run_that_is_stopped_is_judged_until_then(tmp_path, doors, silent):
    """One door answers and the other does not; who was open at the stop has missed."""
    at, more = free()
    there = ["--grpc", silent, *doors[2:]]
    with web(command(tmp_path, there, *more, plan=LONG)):
        until(f"{at}/slo", "No run yet", 20)
        post(f"{at}/swarm")
        page = until(f"{at}/slo", r"\d\d requests were offered", 30)
        assert "still open is in none of these figures" in page
        post(f"{at}/stop")
        until(f"{at}/stats/requests", '"stopped"', 20)
        assert "ended early" in until(f"{at}/slo", "ended early", 5)
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert body["until_s"] == pytest.approx(body["duration_s"])
    assert body["until_s"] < 60
    assert set(body["doors"]["grpc"]["ended"]) == {"unfinished"}
    assert body["doors"]["openai"]["ended"]["served"] > 0
    assert body["generator"]["broken_off"] == []
    assert body["generator"]["measured"]
    assert not body["passed"]


def test_a_headless_run_that_is_told_to_end_writes_its_report(tmp_path, doors):
    process = subprocess.Popen(
        command(tmp_path, doors, "--headless", plan=LONG),
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        for line in process.stdout:
            if re.match(r"grpc +chat +[1-9]", line):
                break
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        status = process.wait(20)
    body = json.loads((tmp_path / "out" / "report.json").read_text())
    assert status == int(not body["passed"])
    assert 0 < body["until_s"] < 60
    assert body["generator"]["broken_off"] == []


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


def free():
    """Return the address of a free port, and Locust's words for it."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    more = ("--web-host", "127.0.0.1", "--web-port", str(port))
    return f"http://127.0.0.1:{port}", more


def read(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def post(url):
    urllib.request.urlopen(url, data=b"", timeout=15).close()


def until(url, words, within_s):
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            page = read(url)
        except OSError:
            page = ""
        if re.search(words, page):
            return page
        time.sleep(0.2)
    raise AssertionError(f"no {words!r} at {url}")


def test_the_web_interface_starts_a_run_and_shows_the_report(tmp_path, doors):
    at, more = free()
    with web(command(tmp_path, doors, *more)):
        until(f"{at}/slo", "No run yet", 20)
        post(f"{at}/swarm")
        page = until(f"{at}/slo", "all SLOs of their class", 20)
        assert page.count("<svg") == 5
        until(f"{at}/stats/requests", '"stopped"', 20)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["attainment"] == 1.0
