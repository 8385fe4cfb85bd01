"""What the Triton engine makes of servers that misbehave, told over a real gRPC stream."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager

import grpc
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from forebay.edges.triton import EngineFiles, TritonEngine
from forebay.edges.triton.prompt import ChatTemplate
from forebay.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
    Overloaded,
)
from forebay.testing import ABILITIES, LoopClock, request
from forebay.values import Call, Guide, Prepared, Sampling

STALL_S = 0.3


def files():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return EngineFiles(tokenizer, ChatTemplate("{{ messages }}"), ABILITIES, end_id=999, pad_id=998)


FILES = files()


def says(text="", *, final=False, ids=None):
    """Return one response with the ids of `text`."""
    made = FILES.tokenizer.encode(text).ids if ids is None else ids
    response = pb.ModelInferResponse(model_name="tensorrt_llm")
    if made:
        response.outputs.add(name="output_ids", datatype="INT32", shape=[1, 1, len(made)])
        response.raw_output_contents.append(struct.pack(f"<{len(made)}i", *made))
    response.parameters["triton_final_response"].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response)


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Plays a script: responses, seconds to wait, or a status to end with."""

    def __init__(self, script):
        self.script = script
        self.asked = []
        self.cancelled = asyncio.Event()

    async def ModelStreamInfer(self, requests, context):  # noqa: N802 - KServe's name
        try:
            self.asked.append(await anext(aiter(requests)))
            for step in self.script:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, tuple):
                    await context.abort(*step)
                else:
                    yield step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def engine(*script, stall_s=5.0):
    triton, server = Triton(script), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield TritonEngine(channel, "tensorrt_llm", FILES, LoopClock(), stall_s=stall_s), triton
    await server.stop(None)


def call(max_tokens=10, deadline_s=None, **changed):
    return Call(request(**changed), Prepared(3, (1, 2, 3)), max_tokens, deadline_s)


async def answer(made, asked):
    chunks = [chunk async for chunk in made.generate(asked)]
    return "".join(chunk.text for chunk in chunks), chunks[-1].finish


@pytest.mark.parametrize(
    ("why", "script", "asked", "expected"),
    [
        ("pieces", [says("He"), says("llo"), says(final=True)], call(), ("Hello", "stop")),
        ("final with text", [says("Hi", final=True)], call(), ("Hi", "stop")),
        ("all that was asked", [says("abc"), says(final=True)], call(3), ("abc", "length")),
        ("an end token is no text", [says(ids=[65, 999]), says(final=True)], call(2), None),
        (
            "a stop string",
            [says("one"), says(" END two"), says(final=True)],
            call(sampling=Sampling(stop=("END",))),
            ("one ", "stop"),
        ),
    ],
)
async def test_answers(why, script, asked, expected):
    async with engine(*script) as (made, _):
        said = await answer(made, asked)
        assert said == (expected or (FILES.tokenizer.decode([65]), "stop")), why


INTERNAL, UNAVAILABLE = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("why", "script", "error"),
    [
        ("its queue is full", [(UNAVAILABLE, "the engine's queue is full")], Overloaded),
        ("its process died", [(INTERNAL, "Stub process is not healthy")], EngineUnavailable),
        ("it died later", [says("a"), (INTERNAL, "Stub process is not healthy")], EngineFailed),
        ("bad values", [(grpc.StatusCode.INVALID_ARGUMENT, "top_p")], InvalidRequest),
        ("a bare sentence", [pb.ModelStreamInferResponse(error_message="gone")], EngineUnavailable),
        ("it ends without an answer", [], EngineUnavailable),
        ("it ends in the middle", [says("a")], EngineFailed),
        ("it says nothing", [5.0], EngineUnavailable),
        ("it falls silent", [says("a"), 5.0], EngineFailed),
    ],
)
async def test_misbehaviour(why, script, error):
    async with engine(*script, stall_s=STALL_S) as (made, _):
        with pytest.raises(error):
            await answer(made, call())


async def test_a_deadline_reaches_triton():
    async with engine(5.0) as (made, triton):
        with pytest.raises(DeadlineExceeded):
            await answer(made, call(deadline_s=LoopClock().now_s() + 1.0))
        await asyncio.wait_for(triton.cancelled.wait(), 1)


async def test_a_task_that_is_cancelled_is_no_stall():
    async with engine(5.0) as (made, triton):
        task = asyncio.create_task(answer(made, call()))
        while not triton.asked:  # noqa: ASYNC110 - the server sets it
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(triton.cancelled.wait(), 1)


async def test_a_stop_string_ends_the_engines_work():
    async with engine(says("a END"), 5.0) as (made, triton):
        await answer(made, call(sampling=Sampling(stop=("END",))))
        await asyncio.wait_for(triton.cancelled.wait(), 1)


async def test_what_is_asked_goes_out_in_tensorrt_llms_tensors():
    sampling = Sampling(temperature=0, top_p=0.5, seed=7, bad=("no",), logprobs=True)
    async with engine(says("x", final=True)) as (made, triton):
        await answer(made, call(9, sampling=sampling, guide=Guide("regex", "[a-z]+")))
    sent = {
        tensor.name: raw
        for tensor, raw in zip(
            triton.asked[0].inputs, triton.asked[0].raw_input_contents, strict=True
        )
    }
    assert struct.unpack("<3i", sent["input_ids"]) == (1, 2, 3)
    assert struct.unpack("<i", sent["request_output_len"]) == (9,)
    assert struct.unpack("<i", sent["runtime_top_k"]) == (1,)
    assert struct.unpack("<i", sent["end_id"]) == (999,)
    assert sent["guided_decoding_guide_type"][4:] == b"regex"
    assert sent["guided_decoding_guide"][4:] == b"[a-z]+"
    assert sent["streaming"] == sent["return_log_probs"] == b"\x01"
    assert "temperature" not in sent
    assert len(sent["bad_words_list"]) == 2 * 4 * 5


async def test_a_deadline_that_has_passed_calls_nobody():
    async with engine(says("x", final=True)) as (made, triton):
        with pytest.raises(DeadlineExceeded):
            await answer(made, call(deadline_s=LoopClock().now_s() - 1))
        assert not triton.asked


async def test_a_call_that_ends_while_it_is_written_is_translated():
    """Deadlines of about a round trip meet every point of the call's beginning."""
    async with engine(0.05, says("x", final=True)) as (made, _):

        async def hurried(number):
            soon = LoopClock().now_s() + number * 0.0001
            with pytest.raises((DeadlineExceeded, EngineUnavailable)):
                await answer(made, call(deadline_s=soon))

        for _ in range(5):
            await asyncio.gather(*(hurried(number) for number in range(1, 40)))


async def test_a_closed_channel_is_an_unavailable_engine():
    async with engine() as (made, _):
        pass
    with pytest.raises(EngineUnavailable):
        await answer(made, call())


@pytest.mark.parametrize("words", [3, 5000, 50_000, 2_000_000])
async def test_a_prompt_is_counted_only_until_it_is_too_long(words):
    async with engine() as (made, _):
        prepared = await made.prepare(request("a " * words))
    if words * 2 <= ABILITIES.max_input_tokens:
        assert len(prepared.ids) == prepared.prompt_tokens == words * 2
    else:
        assert prepared.ids == () or len(prepared.ids) == prepared.prompt_tokens
        assert ABILITIES.max_input_tokens < prepared.prompt_tokens < 40_000


@pytest.mark.parametrize("text", ["", "   x"])
async def test_only_an_empty_prompt_is_refused(text):
    async with engine() as (made, _):
        if text:
            assert (await made.prepare(request(text))).ids
        else:
            with pytest.raises(InvalidRequest, match="empty"):
                await made.prepare(request(text))
