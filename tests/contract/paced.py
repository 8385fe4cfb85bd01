"""Servers that speak Anthropic's and Google's streams at a steady pace, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
TTFT_S, TPOT_S = 0.02, 0.01


def _sse(told: dict) -> bytes:
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def anthropic(body: dict) -> Iterator[bytes]:
    """Yield an answer of as many tokens as are asked for, one for each delta."""
    yield _sse({"type": "message_start", "message": {"usage": {"input_tokens": 9}}})
    delta = {"type": "text_delta", "text": "word"}
    for _ in range(body["max_tokens"]):
        yield _sse({"type": "content_block_delta", "index": 0, "delta": delta})
    counts = {"output_tokens": body["max_tokens"]}
    end = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": counts}
    yield _sse(end) + _sse({"type": "message_stop"})


def google(body: dict) -> Iterator[bytes]:
    """Yield an answer of as many tokens as are asked for, one for each piece."""
    most = body["generationConfig"]["maxOutputTokens"]
    yield b""
    for said in range(1, most + 1):
        candidate = {"content": {"parts": [{"text": "word"}]}}
        yield _sse({"candidates": [candidate], "usageMetadata": {"candidatesTokenCount": said}})
    counts = {"promptTokenCount": 9, "candidatesTokenCount": most}
    yield _sse({"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": counts})


class Paced:
    """Answers by `speaks`; `active` counts the answers under way."""

    def __init__(self, speaks) -> None:
        self.active = 0
        self._speaks = speaks

    async def serve(self, reader, writer) -> None:
        self.active += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].split("\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            working = asyncio.ensure_future(self._answer(body, writer))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            for task in (working, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await task
        finally:
            self.active -= 1
            writer.close()

    async def _answer(self, body: dict, writer) -> None:
        writer.write(HEAD)
        pace_s = TTFT_S
        for piece in self._speaks(body):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pace_s)
            pace_s = TPOT_S


@asynccontextmanager
async def serving(paced: Paced) -> AsyncIterator[str]:
    server = await asyncio.start_server(paced.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
