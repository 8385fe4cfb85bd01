"""The router's queue on a real engine: promises kept or refused early, deadlines never passed."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from foreign import load_of, streams
from routers import ENGINE, serving, until

from forebay.edges.triton_metrics import PERIOD_S

BURST, TOKENS = 64, 64
TTFT_MS = 1500
KEPT = 0.9
"""The share of served requests that must have kept their promise: "mostly", on two cores."""

pytestmark = pytest.mark.timeout(120)


def policy(triton):
    """Return a policy whose classes may not leave this machine."""
    address = f"127.0.0.1:{triton.port('TRITON_GRPC')}"
    page = f"http://127.0.0.1:{triton.port('TRITON_METRICS')}/metrics"
    return f"""
models:
  local:
    triton: {{address: "{address}", engine: {ENGINE}, metrics: "{page}"}}
    limits: {{kv_ceiling: 1.0}}
routes:
  - name: chat
    match: {{task: chat}}
    model: local
    slo: {{ttft_ms: {TTFT_MS}, attainment: 0.95}}
    spill: never
default:
  model: local
  spill: never
"""


@pytest.fixture(scope="module")
def router(triton, tmp_path_factory):
    """Return a router of this file's own."""
    with serving(tmp_path_factory.mktemp("router"), policy(triton)) as running:
        yield running


def waiting(router):
    return sum(router.gauges()["forebay_waiting"].values())


def top(router):
    """Return what `forebay top` tells a program."""
    port = router.ports["FOREBAY_HTTP_PORT"]
    command = [sys.executable, "-m", "forebay", "top", "--json", "--http-port", str(port)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return json.loads(said.stdout)


def test_a_burst_is_served_in_time_or_refused_with_the_numbers(router):
    warm = [router.ask(tokens=TOKENS, task="chat") for _ in range(3)]
    assert {one.code for one in warm} == {"OK"}
    began_s, deepest, shown = time.monotonic(), [], []
    over = threading.Event()

    def watch():
        while not over.wait(0.05):
            deepest.append(waiting(router))

    with ThreadPoolExecutor(BURST + 2) as pool:
        watching = pool.submit(watch)
        asked = [pool.submit(router.ask, tokens=TOKENS, task="chat") for _ in range(BURST)]
        shown.append(pool.submit(top, router))
        told = [one.result(60) for one in asked]
        over.set()
        watching.result(10)
    took_s = time.monotonic() - began_s
    served = [one for one in told if one.code == "OK"]
    refused = [one for one in told if one.code != "OK"]
    kept = [one for one in served if one.done.ttft_ms <= TTFT_MS]
    print(
        f"{len(served)} served ({len(kept)} in time), {len(refused)} refused in {took_s:.1f} s, "
        f"at most {max(deepest):.0f} waited; {Counter(one.sentence for one in refused)}"
    )
    assert len(served) >= BURST / 4
    assert len(refused) >= 1, "the burst is more than the engine can begin in time"
    assert len(kept) >= KEPT * len(served)
    assert max(deepest) > 0
    assert waiting(router) == 0
    for one in refused:
        assert one.code == "RESOURCE_EXHAUSTED"
        assert one.retry_after_s >= 1.0
        assert re.search(r"local takes no more now: .*\d", one.sentence), one.sentence
        assert one.took_s <= TTFT_MS / 1000 + 0.5, "it was refused while it could try elsewhere"
    pools = {dict(labels)["pool"] for labels in router.gauges()["forebay_waiting"]}
    assert set(shown[0].result(30)["waiting"]) == pools


@pytest.mark.parametrize(
    ("deadline_ms", "labels", "most_ms"),
    [(60, {}, 60), (1000, {}, 1000), (1000, {"task": "chat"}, 1000)],
    ids=["60 ms", "1 s: a slot may come free", "1 s, less than the SLO: a slot may come free"],
)
def test_a_deadline_that_cannot_be_met_is_refused_before_it_passes(
    router, triton, deadline_ms, labels, most_ms
):
    page = f"http://127.0.0.1:{triton.port('TRITON_METRICS')}/metrics"
    with streams(f"127.0.0.1:{triton.port('TRITON_GRPC')}", 40, tokens=1500):
        until(lambda: load_of(page).active >= 32, 10)
        time.sleep(2 * PERIOD_S)
        told = router.ask(deadline_ms=deadline_ms, **labels)
    until(lambda: load_of(page).active == 0, 10)
    print(told.code, told.sentence, f"{told.took_s * 1000:.0f} ms")
    assert told.code == "DEADLINE_EXCEEDED"
    assert re.search(r"\d+ requests are in flight.* s are left", told.sentence), told.sentence
    assert told.took_s * 1000 < most_ms
