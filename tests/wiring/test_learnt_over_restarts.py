"""What a router learns by answering, kept in its home and read by the next one, as it is wired."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import grpc
import pytest
from structlog.testing import capture_logs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from forebay.corridor import Corridor
from forebay.edges import learnt
from forebay.edges.triton import manifest
from forebay.policy.admission.model import UNKNOWN, Speed
from forebay.testing import LoopClock, house, request
from forebay.values import Done, Sampling
from forebay.wiring import Settings, read_policy
from forebay.wiring.engines import Engines

TOKENS = 150
"""More than twice the steps that the router wants to see before it learns from them."""

LETTER = b"\x41\x00\x00\x00"


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves one engine, a token each few milliseconds."""

    def __init__(self, digest):
        self.digest = digest

    async def ModelConfig(self, request, context):  # noqa: N802 - Triton's name
        response = pb.ModelConfigResponse()
        response.config.parameters[manifest.DIGEST].string_value = self.digest
        return response

    async def ModelStreamInfer(self, requests, context):  # noqa: N802
        asked = await anext(aiter(requests))
        most = dict(zip([one.name for one in asked.inputs], asked.raw_input_contents, strict=True))
        left = int.from_bytes(most["request_output_len"], "little")
        for number in range(left):
            await asyncio.sleep(0.002)
            response = pb.ModelInferResponse(model_name="tensorrt_llm")
            response.outputs.add(name="output_ids", datatype="INT32", shape=[1, 1, 1])
            response.raw_output_contents.append(LETTER)
            response.parameters["triton_final_response"].bool_param = number == left - 1
            yield pb.ModelStreamInferResponse(infer_response=response)


def built(folder):
    """Write an engine's files as a builder does; return its digest."""
    folder.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    engine = {"max_input_len": 100, "max_seq_len": 400, "end_id": 999, "pad_id": 998}
    (folder / "engine.json").write_text(json.dumps(engine))
    files = {
        name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in manifest.READ
    }
    said = {"builder": "trtllm", "build": "b", "files": files, "limits": {}}
    said["digest"] = manifest._digest(said)
    (folder / manifest.MANIFEST).write_text(json.dumps(said))
    return said["digest"]


@asynccontextmanager
async def listening(triton):
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


POLICY = """
models:
  local: {{triton: {{engine: "{folder}", address: "127.0.0.1:{port}"}}}}
default: {{model: local}}
"""


@asynccontextmanager
async def routing(tmp_path):
    """Run a router's engines over `tmp_path` until left, and stop them as the router does."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    path = tmp_path / "policy.yaml"
    environ = {"FOREBAY_POLICY": str(path), "FOREBAY_HOME": str(home)}
    policy, clock = read_policy(path), LoopClock()
    engines = Engines(Settings.of(environ), policy, clock)
    watching = asyncio.create_task(engines.watch())
    try:
        async with asyncio.timeout(20):
            while engines.unready():
                assert not watching.done(), watching
                await asyncio.sleep(0.01)
        yield engines, policy, clock
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await engines.close()


@pytest.fixture
def engine(tmp_path):
    return tmp_path / "engine"


async def learns(engines, policy, clock):
    """Let the engine answer once and wait until its speed was learnt."""
    made = replace(
        house(), policy=policy, engines=engines.by_target, admission=engines.admission, clock=clock
    )
    asking = request(received_s=clock.now_s(), sampling=Sampling(max_tokens=TOKENS))
    async with aclosing(Corridor(made).run(asking)) as run:
        events = [event async for event in run]
    assert isinstance(events[-1], Done), events[-1]
    member = only(engines)
    async with asyncio.timeout(20):
        while not member.learnt:  # noqa: ASYNC110 - learnt by a timer of admission's
            await asyncio.sleep(0.05)
    return member.speed


def only(engines):
    """Return the one replica that there is, as admission has it."""
    (pool,) = engines.admission.controller.state.pools.values()
    (replica,) = pool.replicas.values()
    return replica


async def test_the_next_router_begins_with_what_this_one_learnt(tmp_path, engine):
    digest = built(engine)
    async with listening(Triton(digest)) as port:
        (tmp_path / "policy.yaml").write_text(POLICY.format(folder=engine, port=port))
        async with routing(tmp_path) as wired:
            assert only(wired[0]).speed == Speed(UNKNOWN), "nothing is known of a first router's"
            await learns(*wired)
            found = only(wired[0]).speed
    kept = learnt.load(tmp_path / "home" / "learnt.json")
    assert list(kept.engines) == [digest]
    assert kept.speed(digest) == found != Speed(UNKNOWN)
    assert kept.classes["default"].answers == 1

    async with listening(Triton(digest)) as elsewhere:
        (tmp_path / "policy.yaml").write_text(POLICY.format(folder=engine, port=elsewhere))
        async with routing(tmp_path) as (engines, _, _):
            assert only(engines).speed.step == found.step
            assert engines.admission.controller.state.memory == kept
    assert learnt.load(tmp_path / "home" / "learnt.json") == kept, "nothing happened in between"


@pytest.mark.parametrize("raw", [b"", b"\xff" * 1000, b'{"engines": {"x": [0, 0, 0, 0]}}'])
async def test_a_file_that_is_broken_stops_no_router(tmp_path, engine, raw):
    digest = built(engine)
    (tmp_path / "home").mkdir()
    place = tmp_path / "home" / "learnt.json"
    place.write_bytes(raw)
    async with listening(Triton(digest)) as port:
        (tmp_path / "policy.yaml").write_text(POLICY.format(folder=engine, port=port))
        with capture_logs() as logs:
            async with routing(tmp_path) as (engines, _, _):
                assert only(engines).speed == Speed(UNKNOWN)
    assert [one["event"] for one in logs if one["event"].startswith("learnt")] == ["learnt.unread"]
    assert learnt.load(place).engines == {}
