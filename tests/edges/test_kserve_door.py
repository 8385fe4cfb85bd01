"""KServe v2 on a real server, asked by tritonclient as it would ask Triton's own ensemble."""

from __future__ import annotations

import asyncio
import json

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from doors import GRPC, grpc_door, unread
from grpc import aio
from grpc._cython import cygrpc
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2 as kserve
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from forebay.edges.grpc_door import tensors
from forebay.edges.grpc_door.tally import Tallies
from forebay.errors import BROKEN_SENTENCE, EngineFailed, Overloaded
from forebay.testing import FakeEngine, ManualClock

MANY = ("word ",) * 400


def tensor(name, value, dtype=None, shape=None):
    array = np.array(value, dtype=dtype or object).reshape(shape or [1, -1])
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def inputs(text="Say hello", max_tokens=16, **more):
    """Return an ensemble request's tensors; `stream` and others by name, as (value, dtype)."""
    return [
        tensor("text_input", [text.encode()]),
        tensor("max_tokens", [max_tokens], np.int32),
        *(tensor(name, [value], dtype) for name, (value, dtype) in more.items()),
    ]


def client(back):
    return triton.InferenceServerClient(f"127.0.0.1:{back.port}")


async def streamed(back, *requests):
    """Return (result, error) pairs of one stream with many requests."""

    async def asked():
        for request in requests:
            yield request

    async with client(back) as made:
        return [pair async for pair in made.stream_infer(asked())]


def stream_request(*tensors_, id_="1", model="ensemble", **more):
    return {"model_name": model, "inputs": list(tensors_), "request_id": id_, **more}


def text(result):
    return result.as_numpy("text_output").reshape(-1)[0].decode()


STREAM = {"stream": (True, bool)}


async def test_a_streaming_request_as_to_the_ensemble():
    async with grpc_door() as back:
        pairs = await streamed(back, stream_request(*inputs(**STREAM), id_="abc"))
    assert [error for _, error in pairs] == [None] * len(pairs)
    results = [result.get_response() for result, _ in pairs]
    assert "".join(text(result) for result, _ in pairs) == "Hello, world."
    assert {r.id for r in results} == {"abc"}
    assert {r.model_name for r in results} == {"ensemble"}
    assert back.ledger.records[0].door == "kserve"


def raw_request(**parameters):
    message = kserve.ModelInferRequest(model_name="ensemble", id="x")
    for name, kind in (("text_input", "BYTES"), ("max_tokens", "INT32"), ("stream", "BOOL")):
        message.inputs.add(name=name, datatype=kind, shape=[1, 1])
    message.raw_input_contents.extend([b"\x02\0\0\0Hi", (4000).to_bytes(4, "little"), b"\x01"])
    for name, value in parameters.items():
        message.parameters[name].bool_param = value
    return message


async def test_the_final_flag_brings_an_empty_last_response():
    message = raw_request(triton_enable_empty_final_response=True)
    async with grpc_door() as back, aio.insecure_channel(f"127.0.0.1:{back.port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = [a.infer_response async for a in stub.ModelStreamInfer(iter([message]))]
    finals = [a.parameters["triton_final_response"].bool_param for a in answers]
    assert finals == [False] * 4 + [True]
    assert not answers[-1].outputs


async def test_without_the_final_flag_the_last_response_has_outputs():
    async with grpc_door() as back:
        pairs = await streamed(back, stream_request(*inputs(**STREAM)))
    assert [text(result) for result, _ in pairs] == ["Hello", ",", " world", ".", ""]
    finals = [r.get_response().parameters["triton_final_response"].bool_param for r, _ in pairs]
    assert finals == [False] * 4 + [True]


async def test_an_empty_answer_is_still_answered():
    async with grpc_door(FakeEngine(script=())) as back:
        pairs = await streamed(back, stream_request(*inputs(**STREAM)))
    assert [text(result) for result, _ in pairs] == [""]


async def test_without_stream_one_response_holds_the_input_and_the_answer():
    async with grpc_door() as back:
        whole = await streamed(back, stream_request(*inputs("Hi: ")))
        bare = await streamed(
            back, stream_request(*inputs("Hi: ", exclude_input_in_output=(True, bool)))
        )
    assert [text(result) for result, _ in whole] == ["Hi: Hello, world."]
    assert [text(result) for result, _ in bare] == ["Hello, world."]


async def test_unary_collects_the_stream():
    async with grpc_door() as back, client(back) as made:
        for model in ("ensemble", "tensorrt_llm_bls", "auto", "default", "local"):
            result = await made.infer(model, inputs(**STREAM), request_id="7")
            assert text(result) == "Hello, world."
            assert result.get_response().model_name == model
            assert result.get_response().id == "7"
    assert [c.request.model for c in back.engine.calls] == ["auto"] * 3 + ["default", "local"]


async def test_typed_contents_are_read_as_raw_ones_are():
    message = kserve.ModelInferRequest(model_name="ensemble")
    for name, kind, contents in (
        ("text_input", "BYTES", {"bytes_contents": [b"Hi"]}),
        ("max_tokens", "INT32", {"int_contents": [3]}),
        ("temperature", "FP32", {"fp32_contents": [0.5]}),
        ("seed", "UINT64", {"uint64_contents": [9]}),
        ("stream", "BOOL", {"bool_contents": [True]}),
    ):
        message.inputs.add(name=name, datatype=kind, shape=[1, 1], contents=contents)
    async with grpc_door() as back, aio.insecure_channel(f"127.0.0.1:{back.port}") as channel:
        answer = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    assert answer.outputs[0].name == "text_output"
    sampling = back.engine.calls[0].request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (3, 0.5, 9)


async def test_every_honoured_tensor_reaches_the_corridor():
    sent = [
        *inputs(
            temperature=(0.5, np.float32),
            top_p=(0.25, np.float32),
            top_k=(7, np.int32),
            min_tokens=(2, np.int32),
            repetition_penalty=(1.5, np.float32),
            presence_penalty=(0.5, np.float32),
            frequency_penalty=(-0.5, np.float32),
            seed=(5, np.uint64),
            return_log_probs=(True, bool),
            return_num_input_tokens=(True, bool),
            return_num_output_tokens=(True, bool),
            exclude_input_in_output=(True, bool),
            stream=(False, bool),
            guided_decoding_guide_type=(b"json_schema", object),
            guided_decoding_guide=(b'{"type":"object"}', object),
            beam_width=(1, np.int32),
            length_penalty=(0.0, np.float32),
            pad_id=(2, np.int32),
        ),
        tensor("lora_weights", [], np.float16, [1, 0]),
        tensor("stop_words", [b"END", b"", b"STOP"]),
        tensor("bad_words", [b""]),
    ]
    async with grpc_door() as back, client(back) as made:
        result = await made.infer("ensemble", sent)
    sampling = back.engine.calls[0].request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 7)
    assert (sampling.min_tokens, sampling.seed, sampling.logprobs) == (2, 5, True)
    assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.5, 0.5)
    assert sampling.frequency_penalty == -0.5
    assert (sampling.stop, sampling.bad) == (("END", "STOP"), ())
    assert back.engine.calls[0].request.guide.source == '{"type":"object"}'
    assert result.as_numpy("num_input_tokens").tolist() == [[2]]
    assert result.as_numpy("num_output_tokens").tolist() == [[4]]
    assert result.as_numpy("output_log_probs").shape[:2] == (1, 1)


_SHAPES = {"BYTES": (b"x", object), "INT32": (3, np.int32), "FP32": (0.5, np.float32)}
_SHAPES |= {"BOOL": (True, bool), "UINT64": (1, np.uint64), "FP16": (1, np.float16)}
_REFUSED_TYPES = {
    "decoder_text_input": "BYTES",
    "prompt_embedding_table": "FP16",
    "prompt_table_extra_id": "UINT64",
    "embedding_bias_words": "BYTES",
    "embedding_bias_weights": "FP32",
    "lora_task_id": "UINT64",
    "lora_weights": "FP16",
    "lora_config": "INT32",
}


def test_every_refused_tensor_is_in_the_table_of_tests():
    assert set(_REFUSED_TYPES) == set(tensors.REFUSED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *_REFUSED_TYPES.items(),
        *((name, kind) for name, (kind, _) in tensors.NEUTRAL.items()),
        ("no_such_tensor", "INT32"),
    ],
)
async def test_a_tensor_that_cannot_be_honoured_is_refused_by_name(name, kind):
    async with grpc_door() as back, client(back) as made:
        with pytest.raises(InferenceServerException) as caught:
            await made.infer("ensemble", inputs(**{name: _SHAPES[kind]}))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith(name)
    assert back.engine.calls == []


@pytest.mark.parametrize(
    ("why", "sent", "named"),
    [
        ("no text", [tensor("max_tokens", [1], np.int32)], "text_input"),
        ("no length", [tensor("text_input", [b"x"])], "max_tokens"),
        ("wrong type", [*inputs(), tensor("top_k", [1], np.int64)], "top_k"),
        ("a batch", [tensor("text_input", [b"x", b"y"], shape=[2, 1])], "text_input"),
        ("a batch of lists", [*inputs(), tensor("stop_words", [b"x"] * 2, shape=[2, 1])], "stop_w"),
        ("twice", [*inputs(), tensor("max_tokens", [1], np.int32)], "max_tokens"),
        ("no UTF-8", [tensor("text_input", [b"\xff"])], "text_input"),
        ("out of bounds", inputs(temperature=(9, np.float32)), "temperature"),
        ("no tokens", inputs(max_tokens=0), "max_tokens"),
        ("no such guide", inputs(guided_decoding_guide_type=(b"ebnf_grammar", object)), "guided_d"),
        ("a guide alone", inputs(guided_decoding_guide=(b"{}", object)), "guided_decoding_guide"),
        (
            "no schema",
            inputs(
                guided_decoding_guide_type=(b"json_schema", object),
                guided_decoding_guide=(b"{", object),
            ),
            "guided_decoding_guide",
        ),
    ],
)
async def test_a_wrong_tensor_is_named(why, sent, named):
    async with grpc_door() as back, client(back) as made:
        with pytest.raises(InferenceServerException) as caught:
            await made.infer("ensemble", sent)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT", why
    assert caught.value.message().startswith(named), why


@pytest.mark.parametrize(
    ("why", "changed", "named"),
    [
        ("a short buffer", lambda m: m.raw_input_contents.append(b"x"), "raw_input_contents"),
        (
            "half a number",
            lambda m: m.raw_input_contents.__setitem__(1, b"\x00\x00"),
            "max_tokens",
        ),
        ("half a length", lambda m: m.raw_input_contents.__setitem__(0, b"\x00"), "text_input"),
        (
            "half a text",
            lambda m: m.raw_input_contents.__setitem__(0, b"\x09\0\0\0x"),
            "text_input",
        ),
        ("a shape that lies", lambda m: m.inputs[1].shape.__setitem__(0, 4), "max_tokens"),
        ("below nothing", lambda m: m.inputs[1].shape.extend([-1, -1]), "max_tokens"),
        ("a sequence", lambda m: m.parameters["sequence_id"].MergeFrom(_int(1)), "parameter seq"),
        ("odd context", lambda m: m.parameters["forebay"].MergeFrom(_int(1)), "parameter forebay"),
        ("no JSON", lambda m: m.parameters["forebay"].MergeFrom(_str("{")), "forebay"),
        ("odd key", lambda m: m.parameters["forebay"].MergeFrom(_str('{"a":1}')), "forebay.a"),
        ("no time", lambda m: m.parameters["timeout"].MergeFrom(_int(0)), "parameter timeout"),
        ("an odd output", lambda m: m.outputs.add(name="context_logits"), "output context_logits"),
        ("an output twice", lambda m: m.outputs.extend([TEXT_OUT, TEXT_OUT]), "outputs"),
        ("outputs", lambda m: m.outputs.extend([TEXT_OUT] * 250_000), "outputs must hold at most"),
        ("inputs", lambda m: m.inputs.extend([NO_WEIGHTS] * 200_000), "inputs must hold at most"),
        ("ranks", lambda m: m.inputs[0].shape.extend([2**62] * 300_000), "text_input must hold"),
        (
            "ranks of nothing",
            lambda m: (m.inputs.append(FLAT), m.raw_input_contents.append(b"")),
            "lora_weights must hold at most 8",
        ),
        (
            "empty words",
            lambda m: _add(m, "stop_words", "BYTES", b"\0\0\0\0" * 900_000),
            "stop_words must hold at most 128 elements",
        ),
        (
            "a flag a million times",
            lambda m: _add(m, "stream", "BOOL", b"\0" * 1_000_000),
            "stream must hold at most 128 elements, and holds 1000000",
        ),
        (
            "tensor parameters",
            lambda m: [m.inputs[0].parameters[str(i)] for i in range(10_000)],
            "text_input must hold at most 16 parameters",
        ),
        (
            "tools for a text",
            lambda m: m.parameters["forebay"].MergeFrom(_str('{"tools":[{"name":"look"}]}')),
            "forebay.tools cannot be honoured beside a plain text",
        ),
    ],
)
async def test_a_wrong_message_is_named(why, changed, named):
    message = kserve.ModelInferRequest(model_name="ensemble")
    message.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    message.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    message.raw_input_contents.extend([b"\x02\0\0\0Hi", b"\x03\0\0\0"])
    changed(message)
    async with grpc_door() as back, aio.insecure_channel(f"127.0.0.1:{back.port}") as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, why
    assert caught.value.details().startswith(named), why


async def test_typed_elements_are_bounded_too():
    message = kserve.ModelInferRequest(model_name="ensemble")
    contents = {"int_contents": [1] * 1_000_000}
    message.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1], contents=contents)
    async with grpc_door() as back, aio.insecure_channel(f"127.0.0.1:{back.port}") as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    assert caught.value.details().startswith("max_tokens must hold at most 128 elements")


TEXT_OUT = kserve.ModelInferRequest.InferRequestedOutputTensor(name="text_output")
NO_WEIGHTS = kserve.ModelInferRequest.InferInputTensor(name="lora_weights", shape=[0])
FLAT = kserve.ModelInferRequest.InferInputTensor(name="lora_weights", shape=[0] * 9)


def _add(message, name, kind, raw):
    message.inputs.add(name=name, datatype=kind, shape=[1, 1])
    message.raw_input_contents.append(raw)


def _int(value):
    return kserve.InferParameter(int64_param=value)


def _str(value):
    return kserve.InferParameter(string_param=value)


async def test_the_context_rides_in_a_parameter_and_explain_tells_the_decision():
    context = {"labels": {"task": "chat"}, "deadline_ms": 9000, "explain": True}
    async with grpc_door() as back:
        pairs = await streamed(
            back, stream_request(*inputs(**STREAM), parameters={"forebay": json.dumps(context)})
        )
    request = back.engine.calls[0].request
    assert request.labels.task == "chat"
    assert request.deadline_s == pytest.approx(request.received_s + 9)
    told = [r.get_response().parameters["forebay"].string_param for r, _ in pairs]
    assert json.loads(told[0])["decision"]["target"] == "local"
    assert told[1:] == [""] * (len(told) - 1)


async def test_the_timeout_of_tritons_clients_is_a_deadline():
    async with grpc_door() as back, client(back) as made:
        await made.infer("ensemble", inputs(), timeout=2_000_000)
    request = back.engine.calls[0].request
    assert request.deadline_s == pytest.approx(request.received_s + 2)


async def test_unknown_models_get_the_nearest_names():
    async with grpc_door() as back, client(back) as made:
        for model, hint in (("tensorrt_llm", "tensorrt_llm_bls"), ("ensembel", "ensemble")):
            with pytest.raises(InferenceServerException) as caught:
                await made.is_model_ready(model)
            assert caught.value.status() == "StatusCode.NOT_FOUND"
            assert hint in caught.value.message()
        for model in ("tensorrt_llm", "no-such-model"):
            with pytest.raises(InferenceServerException) as caught:
                await made.infer(model, inputs())
            assert caught.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(InferenceServerException) as caught:
            await made.infer("ensemble", inputs(), model_version="2")
        assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_many_requests_interleave_and_one_that_fails_stops_no_other():
    engine = FakeEngine(gap_s=0.005)
    async with grpc_door(engine) as back:
        pairs = await streamed(
            back,
            stream_request(*inputs(**STREAM), id_="a"),
            stream_request(*inputs(temperature=(9, np.float32), **STREAM), id_="bad"),
            stream_request(*inputs(**STREAM), id_="b"),
            stream_request(*inputs(**STREAM), id_="lost", model="nowhere"),
        )
    texts = {}
    for result, error in pairs:
        if error is None:
            texts.setdefault(result.get_response().id, []).append(text(result))
    assert {key: "".join(parts) for key, parts in texts.items()} == dict.fromkeys(
        ("a", "b"), "Hello, world."
    )
    errors = [error for _, error in pairs if error]
    assert len(errors) == 2
    assert any("temperature" in str(error) for error in errors)
    assert any("nowhere" in str(error) for error in errors)


async def test_a_failure_in_a_stream_carries_its_id_and_reason():
    async with (
        grpc_door(FakeEngine(error=Overloaded("it is full", 2.0))) as back,
        aio.insecure_channel(f"127.0.0.1:{back.port}") as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (answer,) = [a async for a in stub.ModelStreamInfer(iter([raw_request()]))]
    assert answer.error_message == "it is full"
    assert answer.infer_response.id == "x"
    assert answer.infer_response.parameters["forebay_reason"].string_param == "overloaded"
    assert answer.infer_response.parameters["retry_after_s"].double_param == 2.0


class Picky(FakeEngine):
    """An engine that breaks on one prompt, as its own connection would."""

    async def generate(self, call):
        if call.request.prompt.text == "bad":
            raise self.error
        async for chunk in FakeEngine(script=MANY[:20], gap_s=0.005).generate(call):
            yield chunk


@pytest.mark.parametrize(
    "broken",
    [
        aio.UsageError("closed"),
        cygrpc.ExecuteBatchError("secret"),
        aio.AbortError("aborted"),
        asyncio.CancelledError("cancelled"),
        KeyError("secret"),
    ],
    ids=lambda broken: type(broken).__name__,
)
async def test_one_that_breaks_in_a_stream_ends_no_other(broken):
    engine = Picky(error=broken)
    async with grpc_door(engine) as back:
        with capture_logs() as logs:
            pairs = await streamed(
                back,
                stream_request(*inputs(max_tokens=30, **STREAM), id_="a"),
                stream_request(*inputs("bad", **STREAM), id_="bad"),
                stream_request(*inputs(max_tokens=30, **STREAM), id_="b"),
            )
    said = {"a": "", "b": ""}
    for result, error in pairs:
        if error is None:
            said[result.get_response().id] += text(result)
    assert said == dict.fromkeys("ab", "word " * 20)
    assert [str(error) for _, error in pairs if error] == [BROKEN_SENTENCE]
    (logged,) = [entry["request_id"] for entry in logs if entry["event"] == "kserve.broke"]
    assert logged in {record.id for record in back.ledger.records}


async def test_bytes_that_are_no_message_end_the_whole_stream():
    async with (
        grpc_door(FakeEngine(hang=True)) as back,
        aio.insecure_channel(f"127.0.0.1:{back.port}") as channel,
    ):
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        await call.write(raw_request().SerializeToString())
        await call.read()
        await call.write(b"\xff\xff\xff")
        await unread(call)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "not a valid ModelInferRequest" in await call.details()
        await back.cancelled()
    assert back.refusals == [("kserve", "invalid_request")]


async def test_what_the_door_refuses_is_counted_and_what_the_corridor_refuses_is_not():
    async with grpc_door() as back, client(back) as made:
        wrong = inputs(temperature=(9, np.float32))
        await streamed(back, stream_request(*wrong), stream_request(*inputs(), model="nowhere"))
        for call in (
            made.infer("ensemble", wrong),
            made.infer("nowhere", inputs()),
            made.get_model_metadata("nowhere"),
            made.load_model("ensemble"),
        ):
            with pytest.raises(InferenceServerException):
                await call
    assert back.refusals == [
        ("kserve", "invalid_request"),
        ("kserve", "invalid_request"),
        ("kserve", "unknown_model"),
        ("kserve", "not_permitted"),
    ]


async def test_a_broken_stream_leaves_what_was_said_and_an_error():
    engine = FakeEngine(error=EngineFailed("it broke"), error_after=2)
    async with grpc_door(engine) as back:
        pairs = await streamed(back, stream_request(*inputs(**STREAM)))
    assert [text(r) for r, error in pairs if error is None] == ["Hello", ","]
    assert "it broke" in str(pairs[-1][1])


@pytest.mark.parametrize("tokens", [0, 5])
async def test_a_hang_up_cancels_the_engine_at_once(tokens):
    engine = FakeEngine(script=MANY[:tokens], hang=True)
    async with grpc_door(engine) as back, client(back) as made:

        async def asked():
            yield stream_request(*inputs(**STREAM))
            await asyncio.Event().wait()

        call = made.stream_infer(asked())
        for _ in range(tokens):
            await anext(call)
        reading = asyncio.ensure_future(anext(call))
        await back.runs()
        call.cancel()
        await back.cancelled()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_client_that_stops_reading_is_cut():
    engine = FakeEngine(script=("x" * 1000,) * 4000)
    options = [("grpc.http2.bdp_probe", 0)]
    async with (
        grpc_door(engine) as back,
        aio.insecure_channel(f"127.0.0.1:{back.port}", options=options) as channel,
    ):
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await call.write(raw_request())
        await call.read()
        await back.runs()
        await back.cancelled(GRPC.stall_s + 3)
        read = await unread(call)
    assert await call.code() is grpc.StatusCode.ABORTED
    assert read * 1000 <= 256 * 1024


class Described:
    """Triton's stub, as far as descriptions go."""

    def __init__(self, down=False):
        self.down = down

    async def ModelMetadata(self, message, **_call):  # noqa: N802
        self._up(message)
        return kserve.ModelMetadataResponse(
            name=message.name,
            platform="ensemble",
            inputs=[{"name": "text_input", "datatype": "BYTES", "shape": [-1, 1]}],
        )

    async def ModelConfig(self, message, **_call):  # noqa: N802
        self._up(message)
        config = {"name": message.name, "platform": "ensemble", "max_batch_size": 32}
        config["ensemble_scheduling"] = {"step": [{"model_name": "preprocessing"}]}
        return kserve.ModelConfigResponse(config=config)

    def _up(self, message):
        assert message.name == "ensemble"
        if self.down:
            raise aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata())


async def test_descriptions_are_the_ensembles_under_the_name_that_was_asked():
    async with grpc_door(triton=Described()) as back, client(back) as made:
        for name in ("auto", "ensemble", "local"):
            metadata = await made.get_model_metadata(name)
            assert (metadata.name, metadata.inputs[0].name) == (name, "text_input")
            config = (await made.get_model_config(name)).config
            assert config.name == name
            assert config.model_transaction_policy.decoupled
            assert not config.HasField("ensemble_scheduling")
        with pytest.raises(InferenceServerException) as caught:
            await made.get_model_metadata("tensorrt_llm")
        assert caught.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("stub", [None, Described(down=True)])
async def test_without_triton_descriptions_are_unavailable(stub):
    async with grpc_door(triton=stub) as back, client(back) as made:
        for ask in (made.get_model_metadata, made.get_model_config):
            with pytest.raises(InferenceServerException) as caught:
                await ask("ensemble")
            assert caught.value.status() == "StatusCode.UNAVAILABLE"


async def test_what_there_is_and_whether_it_is_ready():
    async with grpc_door() as back, client(back) as made:
        assert await made.is_server_live()
        assert await made.is_server_ready()
        assert await made.is_model_ready("auto")
        assert (await made.get_server_metadata()).name == "forebay"
        back.why = "Triton is down"
        assert await made.is_server_live()
        assert not await made.is_server_ready()
        assert not await made.is_model_ready("ensemble")


async def test_statistics_count_by_the_model_that_was_named():
    async with grpc_door() as back, client(back) as made:
        await made.infer("ensemble", inputs())
        with pytest.raises(InferenceServerException):
            await made.infer("ensemble", inputs(temperature=(9, np.float32)))
        with pytest.raises(InferenceServerException):
            await made.infer("x" * 1000, inputs())
        (stats,) = (await made.get_inference_statistics("ensemble")).model_stats
        assert len((await made.get_inference_statistics()).model_stats) == 1
    assert (stats.inference_count, stats.inference_stats.success.count) == (1, 1)
    assert stats.inference_stats.fail.count == 1
    assert stats.inference_stats.success.ns > 0


def test_statistics_lose_no_request():
    clock = ManualClock()
    tallies = Tallies(clock, lambda: ("a", "b"))

    def failing(model):
        with pytest.raises(KeyError), tallies.counting(model):
            raise KeyError

    with tallies.counting("a"), tallies.counting("a"):
        clock.time_s += 1
    failing("b")
    failing("no such model")
    (a, b) = tallies.response("").model_stats
    assert (a.name, a.inference_stats.success.count, a.inference_stats.success.ns) == (
        "a",
        2,
        2 * 10**9,
    )
    assert (b.name, b.inference_stats.success.count, b.inference_stats.fail.count) == ("b", 0, 1)


async def test_nobody_controls_the_server():
    async with grpc_door() as back, client(back) as made:
        for ask in (
            made.get_model_repository_index(),
            made.load_model("ensemble"),
            made.unload_model("ensemble"),
            made.get_trace_settings(),
            made.update_trace_settings(settings={}),
            made.get_log_settings(),
            made.update_log_settings({}),
            made.get_system_shared_memory_status(),
            made.register_system_shared_memory("a", "/a", 8),
            made.unregister_system_shared_memory("a"),
            made.get_cuda_shared_memory_status(),
            made.unregister_cuda_shared_memory("a"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                await ask
            assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
            assert "repository" in caught.value.message()
