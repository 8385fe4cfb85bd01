"""The generator end to end, in this process, against doors before a corridor of fakes."""

import asyncio
from dataclasses import replace

import pytest
from edges.doors import GRPC, HTTP, grpc_door, http_door
from loadtest.report import report
from loadtest.run import fill, run
from loadtest.work import schedule
from offers import CHAT, FAST, plan

from forebay.errors import EngineUnavailable, Overloaded
from forebay.testing import FakeEngine

pytestmark = pytest.mark.slow


def wired(back, door="grpc", **changed):
    where = f"127.0.0.1:{back.port}"
    return plan(**{**FAST, "door": door, "grpc": where, "http": f"http://{where}", **changed})


async def test_grpc_end_to_end():
    async with grpc_door(FakeEngine(script=("a", " b", " c", " d"), finish="length")) as back:
        said = wired(back)
        ran = await run(said)
    body = report(said, ran.outcomes).body
    assert body["offered"] == len(schedule(said)) > 10
    assert body["ended"] == {"served": body["offered"]}
    assert body["attainment"] == 1.0
    assert body["completion_tokens"] == 4 * body["offered"]
    assert body["ttft_ms"]["count"] == body["offered"]
    assert body["decisions"][0]["target"] == "local"
    assert all(o.router_ttft_ms is not None for o in ran.outcomes)


async def test_openai_end_to_end():
    async with http_door(FakeEngine(script=("a", " b", " c", " d"), finish="length")) as back:
        said = wired(back, "openai")
        ran = await run(said)
    body = report(said, ran.outcomes).body
    assert body["ended"] == {"served": body["offered"]}
    assert body["completion_tokens"] == 4 * body["offered"]
    moves = [(one["move"], one["target"], one["count"]) for one in body["decisions"]]
    assert moves == [("first", "local", body["offered"])]
    assert all(len(o.itl_ms) == 3 for o in ran.outcomes)


class Late(FakeEngine):
    """An engine that takes its time to be full."""

    async def generate(self, call):
        await asyncio.sleep(0.1)
        raise Overloaded("it is full", 1.0)
        yield


@pytest.mark.parametrize(
    ("engine", "ended"),
    [
        (FakeEngine(script=("a", " b"), finish="length", gap_s=0.1), ("served", "OK", "")),
        (Late(), ("refused", "STREAM_ERROR", "overloaded")),
    ],
)
async def test_comments_in_a_silent_stream_are_no_events(engine, ended):
    async with http_door(engine, replace(HTTP, silence_s=0.02)) as back:
        ran = await run(wired(back, "openai"))
    assert {(o.ended, o.code, o.reason) for o in ran.outcomes} == {ended}


class Counting(FakeEngine):
    """An engine that knows how many words were taken from it."""

    said = 0

    async def generate(self, call):
        async for chunk in super().generate(call):
            self.said += 1
            yield chunk


DOORS = [("grpc", grpc_door, GRPC), ("openai", http_door, HTTP)]


@pytest.mark.parametrize(("name", "door", "settings"), DOORS)
async def test_clients_that_leave_cancel_upstream(name, door, settings):
    engine = FakeEngine(script=("word ",) * 4, gap_s=0.01, hang=True)
    classes = [{**CHAT, "hang_up": {"share": 1.0, "after_tokens": 2}, "output_tokens": 50}]
    async with door(engine, settings) as back:
        ran = await run(wired(back, name, classes=classes, drain_s=1.0))
        assert {o.ended for o in ran.outcomes} == {"hung_up"}
        assert {o.completion_tokens for o in ran.outcomes} == {2}
        await back.cancelled(1.0)


@pytest.mark.parametrize(("name", "door", "settings"), DOORS)
@pytest.mark.parametrize(("ttft_ms", "attainment"), [(60000, 1.0), (1, 0.0)])
async def test_clients_leave_before_the_first_token(name, door, settings, ttft_ms, attainment):
    """They are content where a first token was not late yet."""
    engine = FakeEngine(script=(), hang=True)
    slo = {"ttft_ms": ttft_ms, "attainment": 0.5}
    classes = [{**CHAT, "slo": slo, "hang_up": {"share": 1.0, "after_ms": 150}}]
    async with door(engine, settings) as back:
        said = wired(back, name, classes=classes, drain_s=60)
        ran = await run(said)
        await back.cancelled(1.0)
    assert {(o.ended, o.ttft_ms) for o in ran.outcomes} == {("hung_up", None)}
    assert min(o.e2e_ms for o in ran.outcomes) >= 150
    assert report(said, ran.outcomes).body["attainment"] == attainment


@pytest.mark.parametrize(("name", "door", "settings"), DOORS)
async def test_what_came_before_the_runs_end_is_kept(name, door, settings):
    async with door(FakeEngine(script=("a", " b"), hang=True), settings) as back:
        classes = [{**CHAT, "slo": {"tpot_ms": 100, "attainment": 0.5}}]
        ran = await run(wired(back, name, classes=classes, drain_s=0.3))
        await back.cancelled(1.0)
    assert {(o.ended, o.code) for o in ran.outcomes} == {("unfinished", "UNFINISHED")}
    assert {(o.target, o.completion_tokens) for o in ran.outcomes if o.ttft_ms} == {("local", 2)}


@pytest.mark.parametrize(
    ("name", "door", "settings", "code"),
    [("grpc", grpc_door, GRPC, "DEADLINE_EXCEEDED"), ("openai", http_door, HTTP, "CLIENT_TIMEOUT")],
)
async def test_what_came_before_a_timeout_is_kept(name, door, settings, code):
    async with door(FakeEngine(script=("a", " b"), hang=True), settings) as back:
        ran = await run(wired(back, name, timeout_s=1.0))
    assert {(o.ended, o.code) for o in ran.outcomes} == {("failed", code)}
    assert {(o.target, o.completion_tokens) for o in ran.outcomes if o.ttft_ms} == {("local", 2)}


async def test_an_answer_of_another_length_is_a_miss():
    async with grpc_door(FakeEngine(script=("a", " b"))) as back:
        said = wired(back)
        ran = await run(said)
    assert report(said, ran.outcomes).body["missed"] == {"length": len(ran.outcomes)}


async def test_slow_readers_hold_a_router_up():
    """Over gRPC nobody is sent what it has no room for: its window is small."""
    engine = Counting(script=("word ",) * 400)
    slow = {"slow": {"share": 1.0, "gap_ms": 300}, "hang_up": {"share": 1.0, "after_ms": 800}}
    async with grpc_door(engine) as back:
        said = wired(back, classes=[{**CHAT, "output_tokens": 400, **slow}])
        ran = await run(said.times(0.1))
        assert {o.ended for o in ran.outcomes} == {"hung_up"}
        assert engine.said < 400 * len(ran.outcomes) / 2


@pytest.mark.parametrize(("name", "door", "settings"), DOORS)
async def test_slow_readers_take_their_time(name, door, settings):
    classes = [{**CHAT, "slow": {"share": 1.0, "gap_ms": 100}}]
    async with door(FakeEngine(script=("a", " b", " c", " d")), settings) as back:
        said = wired(back, name, classes=classes)
        ran = await run(said)
    assert min(o.e2e_ms for o in ran.outcomes) > 300
    assert report(said, ran.outcomes).body["attainment"] == 1.0


@pytest.mark.parametrize(
    ("name", "door", "settings", "code"),
    [("grpc", grpc_door, GRPC, "UNAVAILABLE"), ("openai", http_door, HTTP, "HTTP 503")],
)
async def test_what_nobody_answers_is_offered_all_the_same(name, door, settings, code):
    async with door(FakeEngine(error=EngineUnavailable("it is gone")), settings) as back:
        said = wired(back, name)
        ran = await run(said)
    body = report(said, ran.outcomes).body
    assert body["offered"] == len(schedule(said))
    assert body["attainment"] == 0
    assert sum(error["count"] for error in body["errors"]) == body["offered"]
    # Some may still wait in the router for a replica that does not come back.
    assert {code} <= {error["code"] for error in body["errors"]} <= {code, "UNFINISHED"}


async def test_a_closed_loop_keeps_as_many_in_flight_as_it_has_clients():
    engine = FakeEngine(script=("a", " b"), gap_s=0.02)
    async with grpc_door(engine) as back:
        ran = await fill(wired(back), clients=5, duration_s=2.0)
    assert len(ran.outcomes) > 20
    assert {o.ended for o in ran.outcomes} == {"served"}
