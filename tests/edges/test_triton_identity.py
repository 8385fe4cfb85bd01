"""An engine is called only while Triton says that it is the one whose files the router reads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from test_triton_engine import FILES, answer, call, says
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from forebay.edges.triton import CHANNEL_OPTIONS, Identity, TritonEngine
from forebay.edges.triton.identity import AGAIN_S, mismatch
from forebay.edges.triton.manifest import Stated
from forebay.errors import DeadlineExceeded, EngineUnavailable

OURS = {
    "engine_sm": "90",
    "engine_version_tensorrt_llm": "1.2.1",
    "engine_tokenizer_sha256": "a" * 64,
    "engine_chat_template_sha256": "b" * 64,
    "engine_max_seq_len": "8192",
    "engine_manifest_digest": "c" * 64,
}
OTHER = OURS | {"engine_sm": "89", "engine_manifest_digest": "d" * 64}
BEFORE = {name: OURS[name] for name in ("engine_sm", "engine_manifest_digest")}
STATED = Stated("/engines/ours", OURS)


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.at_s = 100.0

    def now_s(self):
        return self.at_s

    def wall_s(self):
        return self.at_s


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves one engine under parameters that a test sets; counts what it is asked."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.asked = self.called = 0
        self.free = asyncio.Event()
        self.free.set()

    async def ModelConfig(self, request, context):  # noqa: N802 - Triton's name
        self.asked += 1
        await self.free.wait()
        if self.parameters is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such call")
        if request.name != "tensorrt_llm":
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")
        response = pb.ModelConfigResponse()
        for name, value in self.parameters.items():
            response.config.parameters[name].string_value = value
        return response

    async def ModelStreamInfer(self, requests, context):  # noqa: N802
        self.called += 1
        await anext(aiter(requests))
        yield says("Hi", final=True)


@asynccontextmanager
async def listening(triton, port=0):
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def engine(port, stated=STATED, model="tensorrt_llm"):
    clock = Clock()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        identity = Identity(channel, model, address, stated, clock)
        yield TritonEngine(channel, model, FILES, clock, identity=identity), identity, clock


async def eventually(made):
    """Return the answer once the channel, which backs off after failures, has reconnected."""
    for _ in range(100):
        with suppress(EngineUnavailable):
            return await answer(made, call())
        await asyncio.sleep(0.05)
    return None


async def test_the_stated_engine_is_called_and_asked_about_once():
    triton = Triton(OURS)
    async with listening(triton) as port, engine(port) as (made, identity, _):
        for _ in range(3):
            assert await answer(made, call()) == ("Hi", "stop")
    assert (triton.asked, triton.called, identity.wrong) == (1, 3, None)


async def test_another_engine_is_never_called_and_is_named_to_the_operator_only():
    triton = Triton(OTHER)
    async with listening(triton) as port, engine(port) as (made, identity, _):
        with pytest.raises(EngineUnavailable) as told:
            await answer(made, call())
        assert triton.called == 0
        assert "sm is 89 there and 90 here" in identity.wrong
        assert f"manifest_digest is {'d' * 12} there and {'c' * 12} here" in identity.wrong
        assert f"127.0.0.1:{port}" in identity.wrong
        assert "/readyz" in str(told.value)
        assert "/engines/ours" not in str(told.value)


async def test_a_triton_that_is_not_up_is_no_other_engine():
    async with listening(Triton(OURS)) as port:
        pass
    async with engine(port) as (made, identity, _):
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await answer(made, call())
        assert identity.wrong is None
        async with listening(Triton(OURS), port):
            assert await eventually(made) == ("Hi", "stop")


async def test_a_model_that_is_not_loaded_yet_is_no_other_engine():
    triton = Triton(OURS)
    async with listening(triton) as port, engine(port, model="later") as (made, identity, _):
        with pytest.raises(EngineUnavailable, match="unknown model"):
            await answer(made, call())
        assert (identity.wrong, triton.called) == (None, 0)


async def test_a_triton_that_comes_back_with_another_engine_is_not_called():
    async with listening(Triton(OURS)) as port:
        kept = engine(port)
        made, identity, _ = await kept.__aenter__()
        await answer(made, call())
    other = Triton(OTHER)
    async with listening(other, port):
        for _ in range(50):
            with pytest.raises(EngineUnavailable):
                await answer(made, call())
            if identity.wrong:
                break
            await asyncio.sleep(0.05)
        assert identity.wrong is not None
        assert other.called == 0
    async with listening(Triton(OURS), port):
        assert await eventually(made) == ("Hi", "stop")
        assert identity.wrong is None
    await kept.__aexit__(None, None, None)


async def test_another_engine_loaded_under_a_standing_connection_is_noticed():
    triton = Triton(OURS)
    async with listening(triton) as port, engine(port) as (made, identity, clock):
        await answer(made, call())
        triton.parameters = OTHER
        clock.at_s += AGAIN_S + 0.1
        with pytest.raises(EngineUnavailable):
            await answer(made, call())
        assert triton.called == 1
        triton.parameters = OURS
        clock.at_s += AGAIN_S + 0.1
        await answer(made, call())
        assert identity.wrong is None


async def test_callers_share_one_question_and_wait_no_longer_than_they_can():
    triton = Triton(OURS)
    triton.free.clear()
    async with listening(triton) as port, engine(port) as (made, _, clock):
        hurried = asyncio.create_task(answer(made, call(deadline_s=clock.now_s() + 0.05)))
        patient = [asyncio.create_task(answer(made, call())) for _ in range(20)]
        with pytest.raises(DeadlineExceeded):
            await hurried
        triton.free.set()
        assert set(await asyncio.gather(*patient)) == {("Hi", "stop")}
    assert triton.asked == 1


@pytest.mark.parametrize("parameters", [None, {}, {"gpt_model_type": "V1"}])
async def test_an_engine_made_by_other_means_is_taken_on_trust_without_a_manifest(parameters):
    triton = Triton(parameters)
    async with listening(triton) as port:
        async with engine(port, stated=None) as (made, _, _):
            assert await answer(made, call()) == ("Hi", "stop")
        async with engine(port) as (made, identity, _):
            with pytest.raises(EngineUnavailable):
                await answer(made, call())
            assert "does not say which engine it is" in identity.wrong
    assert triton.called == 1


@pytest.mark.parametrize(
    ("why", "stated", "served", "said"),
    [
        ("the same", STATED, OURS, None),
        ("rendered before text was named", STATED, BEFORE, None),
        ("no manifest here", None, OURS, "has no manifest.json to compare it with"),
        ("nothing anywhere", None, {}, None),
        ("another SM", STATED, OURS | {"engine_sm": "89"}, "sm is 89 there and 90 here"),
        (
            "a CPU's engine there",
            STATED,
            {"engine_manifest_digest": "d" * 64},
            "sm is none there and 90 here",
        ),
        (
            "a CPU's engine here",
            Stated("/engines/ours", {"engine_manifest_digest": "d" * 64}),
            OURS,
            "sm is 90 there and none here",
        ),
        (
            "another release",
            STATED,
            OURS | {"engine_version_tensorrt_llm": "1.1.0"},
            "version_tensorrt_llm is 1.1.0 there and 1.2.1 here",
        ),
        (
            "another tokenizer",
            STATED,
            OURS | {"engine_tokenizer_sha256": "e" * 64},
            f"tokenizer_sha256 is {'e' * 12} there and {'a' * 12} here",
        ),
        (
            "another template",
            STATED,
            OURS | {"engine_chat_template_sha256": "e" * 64},
            "chat_template_sha256 is eeeeeeeeeeee there",
        ),
        (
            "other limits",
            STATED,
            OURS | {"engine_max_seq_len": "4096"},
            "max_seq_len is 4096 there and 8192 here",
        ),
        (
            "the same, compiled anew",
            STATED,
            OURS | {"engine_manifest_digest": "f" * 64},
            "manifest_digest is ffffffffffff there and cccccccccccc here",
        ),
    ],
)
def test_what_differs_is_named_with_both_values(why, stated, served, said):
    found = mismatch("tensorrt_llm", "10.0.0.7:8001", stated, served)
    if said is None:
        assert found is None, why
    else:
        assert said in found, why
        assert "restart" in found
        assert "10.0.0.7:8001" in found
