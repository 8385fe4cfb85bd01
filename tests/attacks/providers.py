"""Providers on loopback that speak their own APIs and break in whatever way they are told to.

The mode may be switched while calls are inside: a call keeps the mode it came in under, as a
call that hangs at a provider stays hung when the next one is answered.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attacks.wires import text_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from attacks.wires import Wire

TOKENS = 3
"""Tokens of a healthy answer, and those that come before a stream is cut or falls silent."""

RETRY_AFTER_S = 2

MODES = (
    "429",  # full, and says for how long
    "429 bare",  # full, and does not
    "500",
    "503",
    "page",  # 200 with a proxy's page
    "nonsense",  # 200 with a stream that is none
    "hang",  # accepts and never answers
    "mute",  # 200, the headers of a stream, and never a part of an answer
    "reset",
    "cut",  # breaks off after some tokens
)

FULL = ("429", "429 bare")


@dataclass(eq=False)
class Seen:
    """One call as its provider saw it: what it asked, when it came, when its client left."""

    text: str
    mode: str
    came_s: float
    headers: dict[str, str]
    sent: int = 0
    left_s: float | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set anew whenever a token is sent, or the client has left."""

    async def reached(self, sent: int) -> None:
        """Wait until so many tokens were sent."""
        while self.sent < sent:
            self.moved.clear()
            await self.moved.wait()

    async def left(self) -> float:
        """Wait until the client has left, and return when."""
        while self.left_s is None:
            self.moved.clear()
            await self.moved.wait()
        return self.left_s


class Provider:
    """A server that speaks one wire. `seen` has every call that reached it, in order."""

    def __init__(self, wire: Wire, mode: str = "healthy", words: str = "because") -> None:
        self.wire = wire
        self.mode = mode
        self.words = words
        self.url = ""
        self.seen: list[Seen] = []
        self.pause_s = 0.0
        self._came = asyncio.Event()
        self._serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def call(self, number: int) -> Seen:
        """Return the call of that number, from 0, once it has come."""
        while len(self.seen) <= number:
            self._came.clear()
            await self._came.wait()
        return self.seen[number]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection, one after another."""
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            while await self._call(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._serving[task]
            writer.close()

    async def close(self) -> None:
        """Break every connection, those of calls that hang among them."""
        serving = tuple(self._serving)
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*serving)

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one call; return whether the connection may bring another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert head[0].split(" ")[1].startswith(self.wire.path), head[0]
        headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        seen = Seen(text_in(body), self.mode, asyncio.get_running_loop().time(), headers)
        self.seen.append(seen)
        self._came.set()
        watching = asyncio.create_task(_watch(reader, seen))
        try:
            return await self._answer(seen, writer, watching)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _answer(
        self, seen: Seen, writer: asyncio.StreamWriter, watching: asyncio.Task[None]
    ) -> bool:
        if (refusal := self._refusal(seen.mode)) is not None:
            watching.cancel()  # what comes next is the connection's next call
            writer.write(refusal)
            await writer.drain()
            return True
        if seen.mode == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        if seen.mode != "hang":
            await self._stream(seen, writer)
        if seen.mode in ("hang", "mute", "silent"):
            await watching
        if seen.mode != "healthy":
            return False
        watching.cancel()
        writer.write(_chunk(self.wire.end(seen.sent)) + b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _stream(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Send an answer's head and tokens, as many as the mode lets out."""
        writer.write(_head("200 OK", "text/event-stream", "transfer-encoding: chunked"))
        if seen.mode == "nonsense":
            writer.write(_chunk(b"data: {half an ev\n\n"))
        elif seen.mode != "mute":
            writer.write(_chunk(self.wire.start))
            while seen.sent < TOKENS and seen.left_s is None:
                await asyncio.sleep(self.pause_s)
                writer.write(_chunk(self.wire.piece(seen.sent + 1)))
                seen.sent += 1
                seen.moved.set()
        await writer.drain()

    def _refusal(self, mode: str) -> bytes | None:
        """Return the response that stands in place of a stream."""
        if mode == "page":
            page = b"<html>Bad Gateway</html>"
            return _head("200 OK", "text/html", f"content-length: {len(page)}") + page
        number, _, bare = mode.partition(" ")
        if not number.isdecimal():
            return None
        body = json.dumps(self.wire.error(int(number), self.words)).encode()
        more = [f"content-length: {len(body)}"]
        more += [f"retry-after: {RETRY_AFTER_S}"] if number == "429" and not bare else []
        return _head(f"{number} Told", "application/json", *more) + body


async def _watch(reader: asyncio.StreamReader, seen: Seen) -> None:
    """Note when the client leaves; it sends nothing while it waits."""
    with suppress(ConnectionError):
        assert not await reader.read(1), "a client spoke while its answer was being sent"
    seen.left_s = asyncio.get_running_loop().time()
    seen.moved.set()


def _head(status: str, kind: str, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"content-type: {kind}", *more)
    return "\r\n".join((*lines, "", "")).encode()


def _chunk(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if piece else b""


@asynccontextmanager
async def listening(*providers: Provider) -> AsyncIterator[None]:
    """Have providers serve, each at its own `url`."""
    servers: list[Any] = []
    try:
        for provider in providers:
            server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
            servers.append(server)
            port = server.sockets[0].getsockname()[1]
            provider.url = f"http://127.0.0.1:{port}{provider.wire.base}"
        yield
    finally:
        for server in servers:
            server.close()
        for provider in providers:
            await provider.close()
        for server in servers:
            await server.wait_closed()
