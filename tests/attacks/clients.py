"""Clients of every door: each asks one thing, hears what comes, and may leave at any moment."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from tritonclient.grpc import service_pb2 as kserve
from tritonclient.grpc import service_pb2_grpc

from forebay.v1 import router_pb2 as pb
from forebay.v1 import router_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_TOKENS = 100

LONGEST_S = 100.0
"""No client here gives up before: the router has to end what it was asked."""


@dataclass(eq=False)
class Heard:
    """What one client heard: texts as they came, and the status that ended it."""

    texts: list[str] = field(default_factory=list)
    status: str = ""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def text(self, text: str) -> None:
        """Take in a piece."""
        if text:
            self.texts.append(text)
            self.moved.set()

    async def something(self, texts: int) -> None:
        """Wait for so many texts."""
        while len(self.texts) < texts:
            self.moved.clear()
            await self.moved.wait()


@dataclass(frozen=True)
class Clients:
    """Connections to one router's doors, shared by all who ask."""

    channel: grpc.aio.Channel
    http: httpx.AsyncClient

    async def ask(
        self, door: str, text: str, *, model: str = "auto", deadline_ms: int | None = None
    ) -> Heard:
        """Return what a client heard, once it has heard all; cancel it to have it leave."""
        return await self.hear(Heard(), door, text, model=model, deadline_ms=deadline_ms)

    async def hear(
        self,
        heard: Heard,
        door: str,
        text: str,
        *,
        model: str = "auto",
        deadline_ms: int | None = None,
    ) -> Heard:
        """Ask and note under `heard` what comes, as it comes."""
        try:
            heard.status = await DOORS[door](self, heard, text, model, deadline_ms)
        except grpc.aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ())
            heard.status = str(told.get("forebay-reason", error.code().name.lower()))
        return heard


def _generated(text: str, model: str, deadline_ms: int | None) -> pb.GenerateRequest:
    made = pb.GenerateRequest(model=model)
    made.messages.add(role="user", content=text)
    if deadline_ms is not None:
        made.context.deadline_ms = deadline_ms
    return made


async def generate(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    call = router_pb2_grpc.RouterStub(clients.channel).Generate(
        _generated(text, model, deadline_ms), timeout=LONGEST_S
    )
    async for event in call:
        heard.text(event.token.text)
    return "ok"


async def complete(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    answer = await router_pb2_grpc.RouterStub(clients.channel).Complete(
        _generated(text, model, deadline_ms), timeout=LONGEST_S
    )
    heard.text(answer.text)
    return "ok"


def _inferred(
    text: str, model: str, deadline_ms: int | None, *, stream: bool
) -> kserve.ModelInferRequest:
    made = kserve.ModelInferRequest(model_name=model, id="1")
    said = made.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    said.contents.bytes_contents.append(text.encode())
    most = made.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    most.contents.int_contents.append(MAX_TOKENS)
    flag = made.inputs.add(name="stream", datatype="BOOL", shape=[1, 1])
    flag.contents.bool_contents.append(stream)
    if deadline_ms is not None:
        made.parameters["timeout"].int64_param = deadline_ms * 1000
    return made


def _output(response: kserve.ModelInferResponse) -> str:
    raw = response.raw_output_contents
    return raw[0][4:].decode() if raw else ""


async def stream_infer(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    call = service_pb2_grpc.GRPCInferenceServiceStub(clients.channel).ModelStreamInfer(
        timeout=LONGEST_S
    )
    try:
        await call.write(_inferred(text, model, deadline_ms, stream=True))
        async for answer in call:
            response = answer.infer_response
            if answer.error_message:
                return response.parameters["forebay_reason"].string_param
            heard.text(_output(response))
            if response.parameters["triton_final_response"].bool_param:
                return "ok"
        return "ended early"
    finally:
        call.cancel()


async def infer(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    answer = await service_pb2_grpc.GRPCInferenceServiceStub(clients.channel).ModelInfer(
        _inferred(text, model, deadline_ms, stream=False), timeout=LONGEST_S
    )
    heard.text(_output(answer))
    return "ok"


def _posted(text: str, model: str, deadline_ms: int | None, *, stream: bool) -> dict[str, Any]:
    headers = {} if deadline_ms is None else {"x-forebay-deadline-ms": str(deadline_ms)}
    chat = [{"role": "user", "content": text}]
    body = {"model": model, "messages": chat, "stream": stream}
    return {"url": "/v1/chat/completions", "json": body, "headers": headers}


async def sse(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    asked = _posted(text, model, deadline_ms, stream=True)
    async with clients.http.stream("POST", **asked) as response:
        if response.status_code != 200:
            return str(json.loads(await response.aread())["error"]["code"])
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                return "ok"
            if not line.startswith("data: "):
                continue
            told = json.loads(line.removeprefix("data: "))
            if "error" in told:
                return str(told["error"]["code"])
            heard.text(told["choices"][0]["delta"].get("content") or "")
    return "ended early"


async def chat(
    clients: Clients, heard: Heard, text: str, model: str, deadline_ms: int | None
) -> str:
    response = await clients.http.post(**_posted(text, model, deadline_ms, stream=False))
    told = response.json()
    if response.status_code != 200:
        return str(told["error"]["code"])
    heard.text(told["choices"][0]["message"]["content"])
    return "ok"


STREAMS = {"forebay.v1 Generate": generate, "KServe stream": stream_infer, "OpenAI SSE": sse}
WHOLE = {"forebay.v1 Complete": complete, "KServe infer": infer, "OpenAI whole": chat}
DOORS: dict[str, Any] = STREAMS | WHOLE


@asynccontextmanager
async def clients(grpc_port: int, http_port: int) -> AsyncIterator[Clients]:
    """Yield clients of a router's two ports."""
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{http_port}",
            timeout=LONGEST_S,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        ) as http,
    ):
        yield Clients(channel, http)
