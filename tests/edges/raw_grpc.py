"""Streams at a raw socket: the bytes that the gRPC library sends, seen on their way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raw import PROMPT, End, Stream
from tritonclient.grpc import service_pb2 as kserve

from forebay.v1 import router_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Behind


@dataclass
class GrpcStream(Stream):
    """A stream of either gRPC service: the library's own bytes, seen on their way."""

    call: Any = None
    channel: Any = None

    def messages(self) -> list[bytes]:
        """Return the messages of the first call of the connection (RFC 9113, 4.1 and 6.1)."""
        at, body, made = 0, b"", []
        while at + 9 <= len(self.raw):
            size, kind = int.from_bytes(self.raw[at : at + 3], "big"), self.raw[at + 3]
            stream = int.from_bytes(self.raw[at + 5 : at + 9], "big")
            if kind == 0 and stream == 1:
                body += self.raw[at + 9 : at + 9 + size]
            at += 9 + size
        while len(body) >= 5:
            assert body[0] == 0, "no message is compressed"
            end = 5 + int.from_bytes(body[1:5], "big")
            assert end <= len(body), bytes(self.raw)
            made.append(bytes(body[5:end]))
            body = body[end:]
        return made

    async def caught_up(self) -> None:
        # Answered on the same connection, behind what was written before.
        await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest())

    async def _end(self) -> str:
        with suppress(aio.AioRpcError):
            while await self.call.read() is not aio.EOF:
                pass
        await self.caught_up()
        return (await self.call.code()).name


@dataclass
class GenerateStream(GrpcStream):
    """`forebay.v1.Router/Generate`."""

    def told(self) -> list[pb.GenerateEvent]:
        return [pb.GenerateEvent.FromString(message) for message in self.messages()]

    def text(self) -> str:
        return "".join(event.token.text for event in self.told())

    async def ended(self) -> End:
        code, told = await self._end(), self.told()
        whole = any(event.HasField("done") for event in told)
        assert whole == (code == "OK") == bool(told and told[-1].HasField("done"))
        reason = dict(await self.call.trailing_metadata()).get("forebay-reason", "")
        errors = [event.error.reason for event in told if event.HasField("error")]
        assert errors in ([], [reason]), "an event tells what the status says"
        return End(self.text(), whole=whole, reason=reason)


@dataclass
class KserveStream(GrpcStream):
    """`inference.GRPCInferenceService/ModelStreamInfer` with one request."""

    def told(self) -> list[kserve.ModelStreamInferResponse]:
        return [kserve.ModelStreamInferResponse.FromString(message) for message in self.messages()]

    def text(self) -> str:
        raws = [raw for said in self.told() for raw in said.infer_response.raw_output_contents]
        return b"".join(raw[4:] for raw in raws).decode()

    async def ended(self) -> End:
        await self.call.done_writing()
        assert await self._end() == "OK", "an error ends its request, not the call of many"
        *before, last = self.told()
        finals = [one.infer_response.parameters["triton_final_response"] for one in before]
        assert not any(final.bool_param for final in finals)
        assert last.infer_response.parameters["triton_final_response"].bool_param
        reason = last.infer_response.parameters["forebay_reason"].string_param
        assert bool(reason) == bool(last.error_message)
        return End(self.text(), whole=not last.error_message, reason=reason)


@asynccontextmanager
async def _tap(port: int, raw: bytearray) -> AsyncIterator[int]:
    """Yield a port that leads to another; what comes back over one connection is kept."""
    pumps: list[asyncio.Task[None]] = []
    ends: list[asyncio.StreamWriter] = []

    async def pump(reader: Any, writer: Any, kept: bytearray) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                kept += piece
                writer.write(piece)
        writer.close()

    async def joined(reader: Any, writer: Any) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        kept = bytearray() if ends else raw  # of the first connection
        ends.extend((writer, back))
        pumps.append(asyncio.create_task(pump(reader, back, bytearray())))
        pumps.append(asyncio.create_task(pump(there, writer, kept)))

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for end in ends:
            end.close()  # the library keeps a connection for a while after its channel
        await asyncio.gather(*pumps, *(end.wait_closed() for end in ends), return_exceptions=True)


@asynccontextmanager
async def generate_stream(back: Behind) -> AsyncIterator[GenerateStream]:
    stream = GenerateStream()
    async with (
        _tap(back.port, stream.raw) as port,
        aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stream.channel = channel
        method = channel.unary_stream("/forebay.v1.Router/Generate")
        stream.call = method(pb.GenerateRequest(text=PROMPT).SerializeToString())
        yield stream


@asynccontextmanager
async def kserve_stream(back: Behind) -> AsyncIterator[KserveStream]:
    message = kserve.ModelInferRequest(model_name="ensemble", id="x")
    for name, kind in (("text_input", "BYTES"), ("max_tokens", "INT32"), ("stream", "BOOL")):
        message.inputs.add(name=name, datatype=kind, shape=[1, 1])
    text = len(PROMPT).to_bytes(4, "little") + PROMPT.encode()
    message.raw_input_contents.extend([text, (4000).to_bytes(4, "little"), b"\x01"])
    stream = KserveStream()
    async with (
        _tap(back.port, stream.raw) as port,
        aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stream.channel = channel
        method = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        stream.call = method()
        await stream.call.write(message.SerializeToString())
        yield stream
