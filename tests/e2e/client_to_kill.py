"""A client that reads a long answer over one door and says on standard output when it has five.

    python client_to_kill.py forebay.v1|kserve|openai PORT

It goes on reading until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc
import httpx
from tritonclient.grpc import service_pb2 as kserve
from tritonclient.grpc import service_pb2_grpc

from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

PROMPT = "Count from one to five hundred in words, slowly and without a pause."
TOKENS = 800


async def forebay(port: int):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        sampling = pb.Sampling(max_tokens=TOKENS, min_tokens=TOKENS)
        made = pb.GenerateRequest(model="code", text=PROMPT, sampling=sampling)
        async for event in router_pb2_grpc.RouterStub(channel).Generate(made):
            if event.HasField("token"):
                yield event.token.text


async def triton(port: int):
    made = kserve.ModelInferRequest(model_name="code", id="1")
    for name, kind, value in (
        ("text_input", "BYTES", PROMPT.encode()),
        ("max_tokens", "INT32", TOKENS),
        ("min_tokens", "INT32", TOKENS),
        ("stream", "BOOL", True),
    ):
        tensor = made.inputs.add(name=name, datatype=kind, shape=[1, 1])
        field = {"BYTES": "bytes_contents", "INT32": "int_contents", "BOOL": "bool_contents"}[kind]
        getattr(tensor.contents, field).append(value)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await call.write(made)
        async for answer in call:
            assert not answer.error_message, answer.error_message
            yield answer


async def openai(port: int):
    body = {
        "model": "code",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "max_tokens": TOKENS,
    }
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream(
            "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body
        ) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get(
                "content"
            ):
                yield line


async def main() -> None:
    door = {"forebay.v1": forebay, "kserve": triton, "openai": openai}[sys.argv[1]]
    seen = 0
    async for _ in door(int(sys.argv[2])):
        seen += 1
        if seen == 5:
            print("five", flush=True)


asyncio.run(main())
