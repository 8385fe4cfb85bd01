"""One prompt through every door of a real stack; greedy, so all must say the same."""

from __future__ import annotations

import json

import grpc
import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc.aio as triton
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

PROMPT = "The three primary colours are"
MOST = 24
LOOPBACK = "127.0.0.1"


def tensor(name, value, dtype):
    array = np.array([[value]], dtype=dtype)
    made = triton.InferInput(name, [1, 1], np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def ensemble_request():
    """The request of a Triton client, the same for Triton's port and for the router's."""
    return {
        "model_name": "ensemble",
        "request_id": "7",
        "inputs": [
            tensor("text_input", PROMPT.encode(), object),
            tensor("max_tokens", MOST, np.int32),
            tensor("top_k", 1, np.int32),
            tensor("stream", True, bool),
        ],
    }


async def through_triton(port):
    """Return the pieces of text that tritonclient reads from a port."""

    async def asked():
        yield ensemble_request()

    pieces = []
    async with triton.InferenceServerClient(f"{LOOPBACK}:{port}") as client:
        async for result, error in client.stream_infer(asked(), stream_timeout=60):
            assert error is None, error
            assert result.get_response().id == "7"
            pieces.append(result.as_numpy("text_output").reshape(-1)[0].decode())
    return pieces


async def through_forebay(port):
    message = pb.GenerateRequest(
        text=PROMPT, sampling=pb.Sampling(max_tokens=MOST, temperature=0, top_k=1)
    )
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        call = router_pb2_grpc.RouterStub(channel).Generate(message, timeout=60)
        return [event async for event in call]


async def through_reflection(port):
    """Call `Complete` knowing nothing of it but its name, as grpcurl does."""
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="forebay.v1.Router")
        (told,) = [r async for r in reflection.ServerReflectionInfo(iter([asked]))]
        pool = descriptor_pool.DescriptorPool()
        for raw in told.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(raw))
        method = pool.FindMethodByName("forebay.v1.Router.Complete")
        request, response = map(
            message_factory.GetMessageClass, (method.input_type, method.output_type)
        )
        message = request(text=PROMPT)
        message.sampling.max_tokens, message.sampling.top_k = MOST, 1
        message.sampling.temperature = 0
        call = channel.unary_unary(
            "/forebay.v1.Router/Complete",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return (await call(message, timeout=60)).text


async def through_openai(port):
    async with sdk(port) as client:
        stream = await client.completions.create(
            model="auto", prompt=PROMPT, max_tokens=MOST, temperature=0, stream=True
        )
        return "".join([chunk.choices[0].text async for chunk in stream])


async def through_httpx(port):
    body = {"prompt": PROMPT, "max_tokens": MOST, "temperature": 0}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"http://{LOOPBACK}:{port}/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def sdk(port):
    return openai.AsyncOpenAI(
        base_url=f"http://{LOOPBACK}:{port}/v1", api_key="none", max_retries=0, timeout=60
    )


async def test_every_door_says_what_triton_says(stack):
    grpc_port, http_port = stack.port("GRPC"), stack.port("HTTP")
    pieces = await through_triton(stack.port("TRITON_GRPC"))
    said = "".join(pieces)
    assert said.strip()
    assert len(pieces) > 1

    routed = await through_triton(grpc_port)
    assert "".join(routed) == said
    assert len(routed) > 1

    events = await through_forebay(grpc_port)
    assert [events[0].WhichOneof("event"), events[-1].WhichOneof("event")] == ["decision", "done"]
    assert "".join(event.token.text for event in events) == said
    assert await through_reflection(grpc_port) == said
    assert await through_openai(http_port) == said
    assert await through_httpx(http_port) == said


async def test_the_sdk_streams_tools_and_a_schema(stack):
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    tool = {
        "type": "function",
        "function": {"name": "look_up", "description": "Look it up", "parameters": schema},
    }
    async with sdk(stack.port("HTTP")) as client:
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Name a colour, as JSON."}],
            tools=[tool],
            tool_choice="none",
            response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
            temperature=0,
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert json.loads(text)["colour"] in ("red", "green")
    assert chunks[-1].usage.completion_tokens > 0


async def test_describing_goes_through_to_triton(stack):
    async with triton.InferenceServerClient(f"{LOOPBACK}:{stack.port('GRPC')}") as client:
        metadata = await client.get_model_metadata("auto")
        assert "text_input" in {tensor.name for tensor in metadata.inputs}
        config = (await client.get_model_config("ensemble")).config
        assert config.model_transaction_policy.decoupled


@pytest.mark.parametrize("door", ["GRPC", "HTTP"])
async def test_a_wrong_value_is_a_sentence(stack, door):
    if door == "HTTP":
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"http://{LOOPBACK}:{stack.port(door)}/v1/completions",
                json={"prompt": PROMPT, "temperature": 9},
            )
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "temperature"
        return
    message = pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(temperature=9))
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{stack.port(door)}") as channel:
        call = router_pb2_grpc.RouterStub(channel).Complete(message)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "temperature" in await call.details()
