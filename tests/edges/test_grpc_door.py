"""forebay.v1 on a real server: every status, hostile bytes, hang-ups, stalls, drains."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest
from doors import GRPC, NAMES, behind, grpc_door, unread
from grpc import aio
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from forebay.edges.grpc_door import GrpcDoor
from forebay.edges.grpc_door.rpc import ClientLeftError, Patience, StalledClientError
from forebay.errors import (
    BROKEN_SENTENCE,
    STATUS,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
    SettingsError,
)
from forebay.testing import FakeEngine, LoopClock
from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

MANY = ("word ",) * 400


def ask(text="Say hello", **changed):
    return pb.GenerateRequest(text=text, **changed)


def stub(channel):
    return router_pb2_grpc.RouterStub(channel)


def dial(back, *options):
    return aio.insecure_channel(f"127.0.0.1:{back.port}", options=options)


async def events(call):
    return [event async for event in call]


async def until_it_fails(call):
    told = []
    with suppress(aio.AioRpcError):
        while True:
            told.append(await call.read())
    return told


async def rest(call):
    """Read on where `read` was used before."""
    told = []
    while (event := await call.read()) is not aio.EOF:
        told.append(event)
    return told


async def test_a_stream_tells_the_decision_then_tokens_then_done():
    async with grpc_door() as back, dial(back) as channel:
        told = await events(stub(channel).Generate(ask()))
    kinds = [event.WhichOneof("event") for event in told]
    assert kinds[0] == "decision"
    assert kinds[-1] == "done"
    assert "".join(event.token.text for event in told) == "Hello, world."
    first, last = told[0].decision, told[-1].done
    assert (first.route, first.target, first.move) == ("default", "local", "first")
    assert first.request_id == back.ledger.records[0].id
    assert (last.finish, last.prompt_tokens, last.completion_tokens) == ("stop", 2, 4)
    assert last.e2e_ms > 0
    assert back.ledger.records[0].door == "grpc"


async def test_complete_is_the_same_answer_whole():
    async with grpc_door() as back, dial(back) as channel:
        answer = await stub(channel).Complete(ask())
    assert answer.text == "Hello, world."
    assert answer.decision.target == "local"
    assert answer.done.completion_tokens == 4
    assert back.ledger.records[0].stream is False


async def test_explain_executes_nothing():
    async with grpc_door() as back, dial(back) as channel:
        answer = await stub(channel).Explain(ask())
    assert (answer.route, [rung.target for rung in answer.rungs]) == ("default", ["local"])
    assert answer.rungs[0].placement == "admit"
    assert back.engine.calls == []


async def test_what_a_message_says_reaches_the_corridor():
    message = pb.GenerateRequest(
        model="local",
        messages=[
            pb.Message(role="system", content="Be brief"),
            pb.Message(role="user", content="Hi"),
        ],
        sampling=pb.Sampling(
            max_tokens=3, temperature=0, seed=2**64 - 1, stop=["END"], logprobs=True
        ),
        guide=pb.Guide(json_schema='{"type":"object"}'),
        context=pb.Context(
            labels=pb.Labels(task="chat", sensitivity="high"),
            tools=[pb.Tool(name="look", parameters_json_schema='{"type":"object"}')],
            deadline_ms=5000,
        ),
        tool_choice="auto",
    )
    async with grpc_door() as back, dial(back) as channel:
        await stub(channel).Complete(message)
    request = back.engine.calls[0].request
    assert [m.role for m in request.prompt.messages] == ["system", "user"]
    assert (request.sampling.max_tokens, request.sampling.temperature) == (3, 0)
    assert request.sampling.seed == 2**64 - 1
    assert request.sampling.top_p is None
    assert request.sampling.stop == ("END",)
    assert (request.guide.kind, request.guide.source) == ("json_schema", '{"type":"object"}')
    assert (request.labels.task, request.labels.sensitivity) == ("chat", "high")
    assert request.tools[0].parameters == {"type": "object"}
    assert request.tool_choice == "auto"
    assert request.deadline_s == pytest.approx(request.received_s + 5)


async def test_sources_are_refused_as_long_as_nothing_reads_them():
    message = ask(context=pb.Context(sources=[pb.Source(id="a", text="b")]))
    async with grpc_door() as back, dial(back) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).Complete(message)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "sources" in caught.value.details()
    assert back.engine.calls == []


@pytest.mark.parametrize(
    ("why", "changed", "names"),
    [
        ("no prompt", {"text": ""}, "messages"),
        ("two prompts", {"messages": [pb.Message(role="user", content="x")]}, "messages"),
        ("hot", {"sampling": pb.Sampling(temperature=2.5)}, "sampling.temperature"),
        (
            "not a number",
            {"sampling": pb.Sampling(temperature=float("nan"))},
            "sampling.temperature",
        ),
        ("no mass", {"sampling": pb.Sampling(top_p=0)}, "sampling.top_p"),
        ("no tokens", {"sampling": pb.Sampling(max_tokens=0)}, "sampling.max_tokens"),
        ("too long", {"sampling": pb.Sampling(max_tokens=2**31)}, "sampling.max_tokens"),
        (
            "upside down",
            {"sampling": pb.Sampling(max_tokens=1, min_tokens=2)},
            "sampling.min_tokens",
        ),
        ("many stops", {"sampling": pb.Sampling(stop=["x"] * 17)}, "sampling.stop"),
        ("an empty stop", {"sampling": pb.Sampling(stop=[""])}, "sampling.stop"),
        ("no schema", {"guide": pb.Guide(json_schema="{")}, "guide.json_schema"),
        ("a list", {"guide": pb.Guide(json_schema="[]")}, "guide.json_schema"),
        ("a huge regex", {"guide": pb.Guide(regex="a" * 70_000)}, "guide.regex"),
        (
            "no such sensitivity",
            {"context": pb.Context(labels=pb.Labels(sensitivity="odd"))},
            "context.labels.sensitivity",
        ),
        ("no time", {"context": pb.Context(deadline_ms=0)}, "context.deadline_ms"),
        (
            "a tool twice",
            {"context": pb.Context(tools=[pb.Tool(name="a"), pb.Tool(name="a")])},
            "context.tools",
        ),
        ("no tool", {"context": pb.Context(tools=[pb.Tool(name="")])}, "context.tools[0].name"),
        ("big", {"context": pb.Context(sources=[pb.Source(id="a", text="x" * 2**18)])}, "context"),
        (
            "no such choice",
            {
                "text": "",
                "messages": [pb.Message(role="user", content="x")],
                "context": pb.Context(tools=[pb.Tool(name="a")]),
                "tool_choice": "b",
            },
            "tool_choice",
        ),
        ("tools for a text", {"context": pb.Context(tools=[pb.Tool(name="a")])}, "context.tools"),
        ("a tool for a text", {"tool_choice": "required"}, "tool_choice"),
        (
            "no such role",
            {"text": "", "messages": [pb.Message(role="boss", content="x")]},
            "messages[0].role",
        ),
    ],
)
async def test_a_wrong_field_is_named(why, changed, names):
    async with grpc_door() as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).Complete(pb.GenerateRequest(**{"text": "x", **changed}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, why
    assert caught.value.details().startswith(names), why
    assert "Error" not in caught.value.details()
    assert "pydantic" not in caught.value.details()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"messages": [pb.Message()] * 450_000}, "messages must hold at most 4096 items"),
        (
            {"messages": [pb.Message(role="user", tool_calls=[pb.ToolCall()] * 129)]},
            "messages[0].tool_calls must hold at most 128 items",
        ),
        (
            {"messages": [pb.Message(tool_calls=[pb.ToolCall()] * 100)] * 41},
            "messages must hold at most 4096 tool calls",
        ),
        ({"sampling": pb.Sampling(stop=[""] * 400_000)}, "sampling.stop must hold at most 16"),
        ({"sampling": pb.Sampling(bad=[""] * 400_000)}, "sampling.bad must hold at most 128"),
        (
            {"context": pb.Context(tools=[pb.Tool()] * 400_000)},
            "context.tools must hold at most 128 items",
        ),
        (
            {"context": pb.Context(sources=[pb.Source()] * 400_000)},
            "context.sources must hold at most 1024 items",
        ),
    ],
)
async def test_every_list_is_bounded_before_its_items_are_looked_at(changed, sentence):
    message = pb.GenerateRequest(**{"text": "" if "messages" in changed else "x", **changed})
    async with grpc_door() as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).Complete(message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(sentence)
    assert ", and holds " in caught.value.details()


def error(kind):
    return kind("a sentence", 2.5) if kind is Overloaded else kind("a sentence")


@pytest.mark.parametrize("kind", list(STATUS))
async def test_every_error_is_an_event_and_then_its_status(kind):
    engine = FakeEngine(error=error(kind))
    async with grpc_door(engine) as back, dial(back) as channel:
        call = stub(channel).Generate(ask())
        told = await until_it_fails(call)
        trailers = dict(await call.trailing_metadata())
    status = STATUS[kind]
    assert (await call.code()).name == status.grpc
    assert "a sentence" in await call.details()
    assert told[-1].error.reason == status.reason
    assert trailers["forebay-reason"] == status.reason
    after_s = {Overloaded: "2.500", EngineUnavailable: "1.000"}.get(kind)
    assert trailers.get("retry-after") == after_s


async def test_a_broken_expectation_is_internal_and_tells_nothing_of_itself():
    engine = FakeEngine(error=KeyError("secret"))
    async with grpc_door(engine) as back, dial(back) as channel:
        for call in (stub(channel).Complete(ask()), events(stub(channel).Generate(ask()))):
            with pytest.raises(aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in caught.value.details()
            assert "KeyError" not in caught.value.details()


@pytest.mark.parametrize(
    "broken",
    [
        aio.UsageError("the channel is closed"),
        aio.InternalError("secret"),
        cygrpc.ExecuteBatchError("secret"),
        aio.AbortError("another call was aborted"),
        asyncio.CancelledError("another call was cancelled"),
    ],
    ids=lambda broken: type(broken).__name__,
)
@pytest.mark.parametrize("after", [0, 2])
async def test_an_engines_grpc_error_is_not_taken_for_the_doors_own(broken, after):
    engine = FakeEngine(error=broken, error_after=after)
    async with grpc_door(engine) as back, dial(back) as channel:
        generate = stub(channel).Generate(ask(), timeout=5)
        complete = stub(channel).Complete(ask(), timeout=5)
        with capture_logs() as logs:
            await until_it_fails(generate)
            with suppress(aio.AioRpcError):
                await complete
        for call in (generate, complete):
            assert await call.code() is grpc.StatusCode.INTERNAL
            assert await call.details() == BROKEN_SENTENCE
        told = {
            dict(await call.trailing_metadata())["x-request-id"] for call in (generate, complete)
        }
    assert told == {record.id for record in back.ledger.records}
    assert {entry["request_id"] for entry in logs if entry["event"] == "grpc.broke"} == told
    assert back.refusals == []


async def test_a_write_that_fails_means_the_client_has_left():
    async def fails():
        raise aio.InternalError("nobody is there")

    async with Patience(0.02) as patience:
        with pytest.raises(ClientLeftError):
            await patience.during(fails())
        await asyncio.sleep(0.05)


async def test_patience_ends_with_a_write_that_lasts():
    with pytest.raises(StalledClientError):
        async with Patience(0.02) as patience:
            await patience.during(asyncio.sleep(5))


async def test_what_the_door_refuses_is_counted_and_what_the_corridor_refuses_is_not():
    chat = pb.GenerateRequest(messages=[pb.Message()] * 5000)
    big = ask(context=pb.Context(sources=[pb.Source(id="a", text="x" * 2**18)]))
    async with grpc_door() as back, dial(back) as channel:
        raw = channel.unary_unary("/forebay.v1.Router/Complete")
        calls = [
            (raw, b"\xff\xff\xff"),
            (stub(channel).Complete, ask("")),
            (stub(channel).Complete, chat),
            (stub(channel).Explain, big),
            (stub(channel).Complete, ask(model="nowhere")),
            (stub(channel).Explain, ask(model="nowhere")),
        ]
        for call, message in calls:
            with pytest.raises(aio.AioRpcError):
                await call(message)
        back.engine.error = Overloaded("it is full", 1.0)
        await until_it_fails(stub(channel).Generate(ask()))
    assert back.refusals == [
        ("grpc", "invalid_request"),
        ("grpc", "invalid_request"),
        ("grpc", "invalid_request"),
        ("grpc", "too_large"),
    ]


async def test_an_error_after_the_first_token_ends_the_stream_with_it():
    engine = FakeEngine(error=EngineFailed("it broke"), error_after=2)
    async with grpc_door(engine) as back, dial(back) as channel:
        call = stub(channel).Generate(ask())
        told = [event.WhichOneof("event") for event in await until_it_fails(call)]
    assert await call.code() is grpc.StatusCode.ABORTED
    assert told == ["decision", "token", "token", "error"]


METHODS = [
    ("/forebay.v1.Router/Generate", True),
    ("/forebay.v1.Router/Complete", False),
    ("/inference.GRPCInferenceService/ModelInfer", False),
    ("/inference.GRPCInferenceService/ServerLive", False),
    ("/inference.GRPCInferenceService/RepositoryIndex", False),
    ("/grpc.health.v1.Health/Check", False),
    ("/grpc.health.v1.Health/Watch", True),
]


async def test_bytes_that_do_not_parse_are_invalid_with_a_sentence():
    async with grpc_door() as back, dial(back) as channel:
        for path, streams in METHODS:
            make = channel.unary_stream if streams else channel.unary_unary
            call = make(path)(b"\xff\xff\xff")
            with pytest.raises(aio.AioRpcError) as caught:
                await (events(call) if streams else call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, path
            assert "not a valid" in caught.value.details(), path
        for path in (
            "/inference.GRPCInferenceService/ModelStreamInfer",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            call = channel.stream_stream(path)(iter([b"\xff\xff\xff"]))
            with pytest.raises(aio.AioRpcError) as caught:
                await events(call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, path


def test_no_bytes_make_it_unknown_or_internal():
    """Random bytes to every unary method: refused or answered, never UNKNOWN, never INTERNAL."""
    runner = asyncio.Runner()
    door = grpc_door()
    back = runner.run(door.__aenter__())
    channel = runner.run(_opened(back))
    odd = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}

    async def send(path, raw):
        call = channel.unary_unary(path)(raw)
        async with asyncio.timeout(5):
            assert await call.code() not in odd, (path, raw)
        assert "<class" not in (await call.details() or "")

    unary = [path for path, streams in METHODS if not streams]

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(unary), st.binary(max_size=64))
    def property_(path, raw):
        runner.run(send(path, raw))

    try:
        property_()
    finally:
        runner.run(channel.close())
        runner.run(door.__aexit__(None, None, None))
        runner.close()


async def _opened(back):
    return dial(back)


async def test_a_message_over_the_bound_is_refused():
    async with grpc_door() as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).Complete(ask("x" * (4 * 2**20 + 1)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_clients_deadline_becomes_the_requests_and_the_earlier_one_counts():
    async with grpc_door() as back, dial(back) as channel:
        await stub(channel).Complete(ask(), timeout=3)
        await stub(channel).Complete(ask(context=pb.Context(deadline_ms=1000)), timeout=3)
        await stub(channel).Complete(ask())
    left = [c.deadline_s and c.deadline_s - c.request.received_s for c in back.engine.calls]
    assert left[0] == pytest.approx(3, abs=1)
    assert left[1] == pytest.approx(1, abs=0.01)
    assert left[2] is None


async def test_a_deadline_that_passes_frees_the_engine():
    async with grpc_door(FakeEngine(hang=True)) as back, dial(back) as channel:
        started_s = time.monotonic()
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).Complete(ask(), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started_s < 3
        await back.cancelled()


@pytest.mark.parametrize("tokens", [0, 5])
async def test_a_hang_up_cancels_the_engine_at_once(tokens):
    engine = FakeEngine(script=MANY[:tokens], hang=True)
    async with grpc_door(engine) as back, dial(back) as channel:
        call = stub(channel).Generate(ask())
        for _ in range(1 + tokens):
            await call.read()
        await back.runs()
        call.cancel()
        await back.cancelled()
        assert back.held == 0
        assert back.ledger.records[0].status == "cancelled"


async def test_a_closed_connection_cancels_the_engine_at_once():
    async with grpc_door(FakeEngine(hang=True)) as back:
        channel = dial(back)
        call = asyncio.ensure_future(stub(channel).Complete(ask()))
        await back.runs()
        await channel.close()
        await back.cancelled()
        await asyncio.gather(call, return_exceptions=True)


async def test_a_client_that_stops_reading_is_bounded_and_cut():
    word = "x" * 1000
    engine = FakeEngine(script=(word,) * 4000)
    sampling = pb.Sampling(max_tokens=4000)
    window = ("grpc.http2.bdp_probe", 0)
    async with grpc_door(engine) as back, dial(back, window) as channel:
        call = stub(channel).Generate(ask(sampling=sampling))
        await call.read()
        await back.runs()
        await back.cancelled(GRPC.stall_s + 3)
        read = await unread(call)
    assert await call.code() is grpc.StatusCode.ABORTED
    assert "stopped reading" in await call.details()
    assert read * 1000 <= 256 * 1024, "what left the engine: in the router and on its way"


async def test_health_follows_readiness_and_a_drain():
    async with grpc_door() as back, dial(back) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="forebay.v1.Router")
        serving = health_pb2.HealthCheckResponse.SERVING
        assert (await health.Check(asked)).status == serving
        watch = health.Watch(asked)
        assert (await watch.read()).status == serving
        back.why = "Triton is down"
        changed = await asyncio.wait_for(watch.read(), 2)
        assert changed.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="no.such"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch.cancel()


async def test_a_drain_lets_a_stream_end():
    back = behind(FakeEngine(script=MANY[:20], gap_s=0.02))
    door = GrpcDoor(
        back.corridor,
        LoopClock(),
        names=lambda: NAMES,
        unready=back.unready,
        settings=replace(GRPC, grace_s=5),
    )
    back.port = await door.start()
    async with dial(back) as channel:
        call = stub(channel).Generate(ask())
        await call.read()
        stopping = asyncio.create_task(door.stop())
        told = await rest(call)
        await stopping
    assert told[-1].WhichOneof("event") == "done"


async def test_reflection_lists_and_describes_every_service():
    async with grpc_door() as back, dial(back) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="forebay.v1.Router"),
            reflection_pb2.ServerReflectionRequest(
                file_containing_symbol="inference.GRPCInferenceService"
            ),
        ]
        listed, ours, theirs = [r async for r in reflection.ServerReflectionInfo(iter(asked))]
        later = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        assert [r async for r in later(iter(asked[:1]))] == [listed]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "forebay.v1.Router",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert ours.file_descriptor_response.file_descriptor_proto
    assert theirs.file_descriptor_response.file_descriptor_proto


async def test_a_taken_port_says_what_to_do():
    async with grpc_door() as back:
        with pytest.raises(SettingsError, match="FOREBAY_GRPC_PORT"):
            async with grpc_door(settings=replace(GRPC, port=back.port)):
                pass


async def test_a_half_open_connection_is_closed():
    async with grpc_door(settings=replace(GRPC, handshake_s=0.3)) as back:
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        async with asyncio.timeout(5):
            while await reader.read(1024):
                pass
        writer.close()


async def test_an_invalid_request_from_the_engine_stays_invalid():
    engine = FakeEngine(error=InvalidRequest("the schema has no meaning"))
    async with grpc_door(engine) as back, dial(back) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await stub(channel).Complete(ask())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
