"""Streams at a raw socket: every byte that a door sends, at the moment a test looks. HTTP here."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Behind

PROMPT = "Say hello"


@dataclass(frozen=True)
class End:
    """How a stream ended: whole, as its door says that, or with the reason of an error."""

    text: str
    whole: bool
    reason: str


@dataclass
class Stream:
    """One stream of one door; `raw` is every byte that came over its connection so far."""

    raw: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """Return the answer's text so far, read off the bytes."""
        raise NotImplementedError

    async def caught_up(self) -> None:
        """Return when `raw` has all that the router had sent before."""
        raise NotImplementedError

    async def ended(self) -> End:
        """Read on to the end."""
        raise NotImplementedError


@dataclass
class HttpStream(Stream):
    """`/v1/chat/completions`, over a plain socket."""

    port: int = 0
    writer: asyncio.StreamWriter | None = None
    reading: asyncio.Task[None] | None = None
    status: int = 0

    def events(self) -> list[str]:
        """Return the events of the body so far, comments among them."""
        body: list[bytes] = []
        parser = httptools.HttpResponseParser(_Body(body))
        parser.feed_data(bytes(self.raw))
        self.status = parser.get_status_code()
        return b"".join(body).decode().split("\n\n")[:-1]

    def told(self) -> list[dict[str, Any]]:
        """Return what its events say, but for comments and [DONE]."""
        frames = (event.removeprefix("data: ") for event in self.events() if event[0] != ":")
        return [json.loads(frame) for frame in frames if frame != "[DONE]"]

    def text(self) -> str:
        choices = [choice for said in self.told() for choice in said.get("choices", ())]
        return "".join(choice["delta"].get("content", "") for choice in choices)

    def leave(self) -> None:
        """Hang up."""
        assert self.writer is not None
        self.writer.close()

    async def caught_up(self) -> None:
        # What was written before is in the kernel's buffers when another connection is answered.
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await reader.read()
        writer.close()

    async def ended(self) -> End:
        assert self.reading is not None
        await self.reading
        if not self.raw.startswith(b"HTTP/1.1 200"):
            error = json.loads(self.raw.partition(b"\r\n\r\n")[2])["error"]
            return End("", whole=False, reason=error["code"])
        errors = [said["error"]["code"] for said in self.told() if "error" in said]
        finishes = [c["finish_reason"] for said in self.told() for c in said.get("choices", ())]
        assert self.raw.endswith(b"\r\n0\r\n\r\n"), "the body has its end, whatever it says"
        done = self.events()[-1] == "data: [DONE]"
        assert done == ("stop" in finishes)
        return End(self.text(), whole=done, reason="".join(errors))


class _Body:
    def __init__(self, parts: list[bytes]) -> None:
        self.on_body = parts.append


@asynccontextmanager
async def http_stream(back: Behind) -> AsyncIterator[HttpStream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
    said = {"messages": [{"role": "user", "content": PROMPT}], "stream": True}
    body = json.dumps(said).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
    stream = HttpStream(port=back.port, writer=writer)
    stream.reading = asyncio.create_task(_pour(reader, stream.raw))
    try:
        yield stream
    finally:
        writer.close()
        await asyncio.gather(stream.reading, return_exceptions=True)


async def _pour(reader: asyncio.StreamReader, raw: bytearray) -> None:
    while piece := await reader.read(65536):
        raw += piece
