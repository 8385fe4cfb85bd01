"""A server that costs next to nothing: what the generator's own limits are measured against.

    python -m loadtest.fake_server --door grpc --tokens 32

prints its port as a JSON line and answers every request with so many tokens, all at once or
`--gap-ms` apart.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click
import grpc
import orjson
import uvloop
from grpc import aio

from forebay.v1 import router_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def events(tokens: int) -> list[bytes]:
    """Return a whole answer as serialised `GenerateEvent`s."""
    decision = pb.Decision(route="fake", target="fake", move="first", reason="headroom")
    done = pb.Done(finish="length", prompt_tokens=40, completion_tokens=tokens)
    said = [
        pb.GenerateEvent(decision=decision),
        *(pb.GenerateEvent(token=pb.Token(text=" word", tokens=1)) for _ in range(tokens)),
        pb.GenerateEvent(done=done),
    ]
    return [event.SerializeToString() for event in said]


def frames(tokens: int) -> list[bytes]:
    """Return a whole answer as the body of an OpenAI stream, an event each."""
    first = {"choices": [], "forebay": {"target": "fake", "move": "first", "reason": "headroom"}}
    token = {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": tokens}}
    written = [b"data: " + orjson.dumps(one) + b"\n\n" for one in (first, *[token] * tokens, usage)]
    return [*written, b"data: [DONE]\n\n"]


async def serve_grpc(tokens: int, gap_s: float) -> tuple[int, aio.Server]:
    """Start the gRPC door on a free port."""
    said = events(tokens)

    async def generate(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        for event in said:
            yield event
            if gap_s:
                await asyncio.sleep(gap_s)

    server = aio.server()
    method: Any = grpc.unary_stream_rpc_method_handler(generate)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("forebay.v1.Router", {"Generate": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return port, server


async def serve_http(tokens: int, gap_s: float) -> tuple[int, asyncio.Server]:
    """Start the HTTP door on a free port; it reads a request's head and body, nothing of it."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    chunks = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames(tokens)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # somebody who only looks whether we listen
            writer.close()
            return
        length = next(
            int(line.split(b":")[1])
            for line in asked.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        writer.write(head)
        for chunk in chunks:
            writer.write(chunk)
            if gap_s:
                await asyncio.sleep(gap_s)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1]), server


async def _serve(door: str, tokens: int, gap_s: float) -> None:
    port, server = await (serve_grpc if door == "grpc" else serve_http)(tokens, gap_s)
    print(json.dumps({"port": port}), flush=True)
    ended: Any = server.wait_for_termination if isinstance(server, aio.Server) else None
    await (ended() if ended is not None else asyncio.Event().wait())


@click.command()
@click.option("--door", type=click.Choice(["grpc", "openai"]), default="grpc")
@click.option("--tokens", default=32)
@click.option("--gap-ms", default=0.0, help="after each event")
def main(*, door: str, tokens: int, gap_ms: float) -> None:
    """Serve until killed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(door, tokens, gap_ms / 1000))


if __name__ == "__main__":
    main()
