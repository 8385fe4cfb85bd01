"""Records on their way: written once, in order, whatever one sink does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import apsw
import orjson
import pytest
from prometheus_client import CollectorRegistry

from forebay.edges.gauges import AdmissionGauges
from forebay.edges.recorder import Recorder
from forebay.edges.store import RecordStore
from forebay.edges.telemetry import RequestMetrics, page
from forebay.errors import SettingsError
from forebay.policy.admission import Ask, Controller, Place, ReplicaSpec, Terms
from forebay.testing import ManualClock, policy
from forebay.values import Attempt, Labels, Record, Scrape, Timing, Usage, Verdict

RECORD = Record(
    id="r-1",
    at_wall_s=1.0,
    door="grpc",
    route="default",
    target="local",
    labels=Labels(task="chat", sensitivity="low"),
    policy="test",
    status="ok",
    attempts=(
        Attempt(
            "small", "first", "route_matched", "refused", 3, (Verdict("json_schema", "failed"),)
        ),
        Attempt("local", "escalate", "verdict_failed", "answered", 4),
    ),
    usage=Usage(10, 4),
    timing=Timing(ttft_ms=50.0, tpot_ms=20.0, e2e_ms=110.0),
    stream=True,
    itl_ms=(20.0, 20.0, 20.0),
)


def rows(path):
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute("SELECT id, body FROM records ORDER BY rowid"))
    finally:
        connection.close()


def test_all_records_are_written_in_order(tmp_path):
    store = RecordStore(tmp_path / "records.db")
    recorder = Recorder([store])
    for number in range(1000):
        recorder.append(replace(RECORD, id=f"r-{number}"))
    recorder.close()
    store.close()
    found = rows(tmp_path / "records.db")
    assert [row[0] for row in found] == [f"r-{n}" for n in range(1000)]
    assert orjson.loads(found[0][1])["labels"]["task"] == "chat"
    assert "itl_ms" not in orjson.loads(found[0][1])


class Failing:
    def write(self, records):
        raise OSError("disk full")


class Gate:
    """A sink that waits, as a slow disk does."""

    def __init__(self):
        self.open = threading.Event()
        self.count = 0

    def write(self, records):
        self.open.wait(5)
        self.count += len(records)


def test_a_failing_sink_does_not_stop_the_next():
    gate = Gate()
    gate.open.set()
    recorder = Recorder([Failing(), gate])
    recorder.append(RECORD)
    recorder.close()
    assert gate.count == 1


class Full:
    """A log whose disk is full."""

    def error(self, *_, **__):
        raise OSError(28, "No space left on device")


class Once:
    """A sink that breaks an expectation the first time."""

    def __init__(self):
        self.count = 0

    def write(self, records):
        self.count += len(records)
        if self.count == 1:
            raise TypeError("a bug")


def test_the_writer_outlives_any_sink_and_its_own_log(monkeypatch):
    monkeypatch.setattr("forebay.edges.recorder._log", Full())
    once = Once()
    recorder = Recorder([Failing(), once])
    recorder.append(RECORD)
    while once.count < 1:
        time.sleep(0.001)
    recorder.append(RECORD)
    recorder.close()
    assert once.count == 2


def test_closing_gives_up_a_sink_that_hangs():
    gate = Gate()
    recorder = Recorder([gate])
    recorder.append(RECORD)
    began = time.monotonic()
    recorder.close(timeout_s=0.1)
    assert time.monotonic() - began < 2
    gate.open.set()


def test_append_never_waits_for_a_slow_sink():
    gate = Gate()
    recorder = Recorder([gate])
    for _ in range(100):
        recorder.append(RECORD)
    assert gate.count == 0
    gate.open.set()
    recorder.close()
    assert gate.count == 100


def test_a_store_that_cannot_be_opened_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="FOREBAY_HOME"):
        RecordStore(tmp_path / "file" / "records.db")


@pytest.fixture
def metrics():
    registry = CollectorRegistry()
    document = {
        "models": {"local": {"triton": {}}},
        "default": {
            "model": "local",
            "constraints": {"max_latency_ms": 100},
            "slo": {"ttft_ms": 50},
        },
    }
    return RequestMetrics(registry, policy(document)), registry


@pytest.mark.parametrize(
    "line",
    [
        'forebay_requests_total{door="grpc",route="default",status="ok",target="local"} 1.0',
        'forebay_tokens_total{kind="completion",route="default",target="local"} 4.0',
        'forebay_itl_seconds_count{route="default",target="local"} 3.0',
        'forebay_ttft_seconds_sum{route="default",target="local"} 0.05',
        'forebay_slo_total{met="false",route="default",slo="e2e"} 1.0',
        'forebay_slo_total{met="true",route="default",slo="ttft"} 1.0',
        'forebay_verdicts_total{outcome="failed",route="default",verifier="json_schema"} 1.0',
        'forebay_decisions_total{move="escalate",outcome="answered",reason="verdict_failed",'
        'route="default",target="local"} 1.0',
        'forebay_policy_info{version="test"} 1.0',
    ],
)
def test_a_record_becomes_series(metrics, line):
    sink, registry = metrics
    sink.write([RECORD])
    assert line in page(registry)[0].decode().splitlines()


def test_what_a_door_refuses_is_counted(metrics):
    sink, registry = metrics
    sink.refused("http", "invalid_request")
    line = 'forebay_refused_total{door="http",reason="invalid_request"} 1.0'
    assert line in page(registry)[0].decode().splitlines()


@pytest.mark.parametrize("status", ["cancelled", "invalid_request"])
def test_what_clients_do_neither_meets_nor_misses_an_slo(metrics, status):
    sink, registry = metrics
    sink.write([replace(RECORD, status=status)])
    assert "forebay_slo_total{" not in page(registry)[0].decode()


def test_a_refusal_misses_every_slo(metrics):
    sink, registry = metrics
    sink.write([replace(RECORD, status="overloaded", timing=Timing(e2e_ms=1.0))])
    text = page(registry)[0].decode()
    assert 'forebay_slo_total{met="false",route="default",slo="ttft"} 1.0' in text


def test_what_admission_knows_is_read_when_it_is_asked_for():
    clock = ManualClock(10.0)
    controller = Controller([Place("small", "pool"), Place("cloud")])
    replica = controller.join(ReplicaSpec("engine", "pool"), 10.0)
    registry = CollectorRegistry()
    registry.register(AdmissionGauges(controller.state, clock))
    silent = page(registry)[0].decode()
    assert 'forebay_serves{engine="engine",target="small"} 1.0' in silent
    assert 'forebay_engine{engine="engine"' not in silent, "nothing was scraped yet"
    controller.scraped(replica, Scrape(at_s=10.0, active=3, kv_used=0.5), own_at_poll=0)
    controller.ask(Ask("r", Terms("chat"), "small", 10, 10, 10.0), 10.0)
    controller.drain(10.0)
    text = page(registry)[0].decode()
    assert 'forebay_inflight{target="small"} 1.0' in text
    assert 'forebay_engine{engine="engine",what="kv_used"} 0.5' in text
    assert 'forebay_engine{engine="engine",what="foreign"} 3.0' in text
    assert 'forebay_engine_inflight{engine="engine"} 1.0' in text
    assert 'forebay_engine_state{engine="engine",state="closed"} 1.0' in text
    replica.health = replica.health.drained()
    text = page(registry)[0].decode()
    assert 'forebay_engine_state{engine="engine",state="draining"} 1.0' in text
    assert 'state="closed"' not in text
