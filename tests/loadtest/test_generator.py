"""The open loop: moments kept, lag told, and every offered request accounted for."""

import asyncio
import socket
import time

import pytest
import uvloop
from loadtest.generator import TICK_S, Span, offer, ticks_late_ms
from loadtest.grpc_client import GrpcSender
from loadtest.openai_client import OpenAISender
from loadtest.outcome import Outcome
from loadtest.plan import PlanError
from loadtest.report import report
from loadtest.work import schedule
from offers import CHAT, FAST, judged, plan

pytestmark = pytest.mark.slow


class Answers:
    """A sender that answers after a time and notes how many it had at once."""

    def __init__(self, after_s=0.0, block_s=0.0):
        self.after_s, self.block_s = after_s, block_s
        self.now = self.most = 0

    async def send(self, job, clock):
        sent_s = clock.now_s()
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(self.block_s)  # noqa: ASYNC251 - a generator that is too busy is what is tested
        await asyncio.sleep(self.after_s)
        self.now -= 1
        e2e_ms = (clock.now_s() - job.at_s) * 1000
        return Outcome(job.number, job.klass, job.door, job.at_s, sent_s, "served", e2e_ms=e2e_ms)


async def test_a_slow_service_is_offered_no_less():
    """Open loop: with answers of a second and thirty requests a second, thirty are open at once."""
    jobs, slow = schedule(plan(**FAST)), Answers(after_s=1.0)
    ran = await offer(jobs, {"grpc": slow}, Span(1.0, 3.0))
    assert len(ran.outcomes) == len(jobs)
    assert slow.most > len(jobs) * 0.8


async def test_requests_begin_at_their_moments():
    jobs = schedule(plan(**FAST))
    ran = await offer(jobs, {"grpc": Answers()}, Span(1.0, 1.0))
    late_s = sorted(o.sent_s - o.scheduled_s for o in ran.outcomes)
    assert late_s[0] >= 0
    assert late_s[len(late_s) // 2] < 0.05


def test_no_request_begins_before_its_moment_and_time_has_no_steps():
    """A uvloop's own clock goes in milliseconds: with it a TTFT was once below zero."""
    jobs = schedule(plan(**FAST))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ran = runner.run(offer(jobs, {"grpc": Answers()}, Span(1.0, 1.0)))
    assert min(o.sent_s - o.scheduled_s for o in ran.outcomes) >= 0
    assert any(abs(o.sent_s * 1000 - round(o.sent_s * 1000)) > 0.01 for o in ran.outcomes)


async def test_a_generator_that_falls_behind_fails_the_run():
    said = plan(**FAST)
    busy = Answers(block_s=0.06)
    ran = await offer(schedule(said), {"grpc": busy}, Span(1.0, 5.0))
    made = report(said, ran.outcomes, loop_late_ms=ran.loop_late_ms)
    assert not made.passed
    assert not made.body["generator"]["kept_up"]
    assert made.body["generator"]["loop_late_ms"]["max"] > 50


async def test_a_generator_that_computes_all_the_time_is_told():
    class Spins(Answers):
        async def send(self, job, clock):
            until_s = time.thread_time() + 0.03
            while time.thread_time() < until_s:
                pass
            return await super().send(job, clock)

    idle = await offer(schedule(plan(**FAST)), {"grpc": Answers()}, Span(1, 1))
    busy = await offer(schedule(plan(**FAST)), {"grpc": Spins()}, Span(1, 5))
    # A neighbour on its core takes of both; half a second's lead is in both, too.
    assert busy.busy > 3 * idle.busy


async def test_a_spike_in_which_the_generator_drowns_is_not_averaged_away(monkeypatch):
    class Spins(Answers):
        async def send(self, job, clock):
            until_s = time.thread_time() + (0.1 if job.at_s < 0.5 else 0.0)
            while time.thread_time() < until_s:
                pass
            return await super().send(job, clock)

    monkeypatch.setattr("loadtest.generator.BUSY_S", 0.2)
    jobs = schedule(plan(**{**FAST, "arrivals": {"kind": "poisson", "rate_rps": 10}}))
    wall_s, computed_s = time.monotonic(), time.thread_time()
    ran = await offer(jobs, {"grpc": Spins()}, Span(4, 1))
    mean = (time.thread_time() - computed_s) / (time.monotonic() - wall_s)
    assert ran.busy > 2 * mean


async def test_a_run_that_ends_inside_a_stretch_is_measured_to_its_end(monkeypatch):
    monkeypatch.setattr("loadtest.generator.BUSY_S", 1.0)
    monkeypatch.setattr("loadtest.generator.BUSY_LEAST_S", 0.2)

    class Later(Answers):
        async def send(self, job, clock):
            until_s = time.thread_time() + (0.03 if job.at_s > 1.5 else 0.0)
            while time.thread_time() < until_s:
                pass
            return await super().send(job, clock)

    jobs = schedule(plan(**FAST | {"duration_s": 1.9}))
    ran = await offer(jobs, {"grpc": Later()}, Span(1.9, 1.0))
    assert ran.busy > 0.2, "whole stretches end half a second and one and a half after the zero"


async def test_latency_counts_from_the_scheduled_moment():
    """What a late generator delays is in E2E: it is not hidden by counting from the sending."""
    jobs = schedule(plan(**FAST))
    ran = await offer(jobs, {"grpc": Answers(block_s=0.06)}, Span(1.0, 5.0))
    worst = max(ran.outcomes, key=lambda o: o.sent_s - o.scheduled_s)
    assert worst.e2e_ms >= (worst.sent_s - worst.scheduled_s) * 1000 + 60


async def test_what_is_open_when_the_drain_ends_is_unfinished_and_a_miss():
    said = plan(**FAST)
    jobs = schedule(said)
    ran = await offer(jobs, {"grpc": Answers(after_s=30)}, Span(1.0, 0.1))
    assert {o.ended for o in ran.outcomes} == {"unfinished"}
    assert report(said, ran.outcomes).body["attainment"] == 0
    assert len(ran.outcomes) == len(jobs)


async def test_a_mistake_in_a_sender_is_that_requests_failure():
    class Wrong(Answers):
        async def send(self, job, clock):
            if job.number == 1:
                raise KeyError("a mistake")
            return await super().send(job, clock)

    jobs = schedule(plan(**FAST))
    ran = await offer(jobs, {"grpc": Wrong()}, Span(1.0, 1.0))
    failed = [o for o in ran.outcomes if o.ended == "failed"]
    assert [(o.number, o.code, o.reason) for o in failed] == [(1, "KeyError", "'a mistake'")]
    assert len(ran.outcomes) == len(jobs)


async def test_a_run_that_is_stopped_cuts_off_what_is_open_and_offers_no_more():
    said = plan(**FAST | {"duration_s": 20.0})  # longer than a machine stands still
    span = Span(said.duration_s, 30.0)

    class Stops(Answers):
        async def send(self, job, clock):
            if job.number == 3:
                span.stop.set()
            return await super().send(job, clock)

    jobs = schedule(said)
    ran = await offer(jobs, {"grpc": Stops(after_s=30)}, span)
    assert [o.ended for o in ran.outcomes] == ["unfinished"] * len(ran.outcomes)
    assert 4 <= len(ran.outcomes) < len(jobs)
    assert ran.loop_late_ms
    made = judged(said, ran.outcomes, until_s=ran.stopped_s)
    assert made.body["until_s"] == ran.stopped_s < said.duration_s
    assert made.body["offered"] == len(ran.outcomes)


async def test_a_run_that_nobody_hears_ends():
    def deaf(_):
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        await offer(schedule(plan(**FAST)), {"grpc": Answers()}, Span(600.0, 600.0), deaf)


async def test_two_generators_can_have_one_zero():
    around = []

    class Notes(Answers):
        async def send(self, job, clock):
            around.append((time.monotonic(), clock.now_s(), time.monotonic()))
            return await super().send(job, clock)

    span = Span(1.0, 1.0, zero_s=time.monotonic() + 0.3)
    await offer(schedule(plan(**FAST))[:3], {"grpc": Notes()}, span)
    assert len(around) == 3
    assert all(a - span.zero_s <= now_s <= b - span.zero_s for a, now_s, b in around)


async def test_pauses_of_slow_readers_are_not_drained_away():
    classes = [{**CHAT, "slow": {"share": 1.0, "gap_ms": 5000}}]
    jobs = schedule(plan(**FAST, classes=classes))
    ran = await offer(jobs, {"grpc": Answers(after_s=1.5)}, Span(1.0, 0.1))
    assert {o.ended for o in ran.outcomes} == {"served"}
    assert jobs[0].patience_s == 60 + 4 * 5


@pytest.mark.parametrize(
    ("why", "late_s", "ticks_ms"),
    [
        ("early", -0.001, [0]),
        ("one tick", TICK_S * 0.5, [10]),
        ("a stall of three", TICK_S * 3.5, [70, 50, 30, 10]),
    ],
)
def test_a_stall_is_late_for_each_tick_that_it_made_miss(why, late_s, ticks_ms):
    assert ticks_late_ms(late_s) == pytest.approx(ticks_ms), why


def test_a_stall_is_a_bounded_number_of_samples():
    assert len(ticks_late_ms(3600.0)) == 1001


async def test_nobody_there_is_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    async with GrpcSender(f"127.0.0.1:{port}") as sender:
        assert not await sender.ready(0.2)
    assert not await OpenAISender(f"http://127.0.0.1:{port}").ready(0.2)
    strange = (f"127.0.0.1:{port}", f"https://127.0.0.1:{port}", "http://", "http://localhost:80a")
    for url in strange:
        with pytest.raises(PlanError, match="no address like http://HOST:PORT"):
            OpenAISender(url)
