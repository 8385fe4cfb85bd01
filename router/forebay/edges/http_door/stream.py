"""The body of a stream: frames as they come, and a comment where none came for long.

Proxies cut a connection on which nothing moves, and an answer may wait longer than that in the
queue, or whole for its verdict. A comment is no part of an answer and commits nothing: the corridor
does not know of it, and may still repair, fail over or escalate. But it opens the response, so a
failure behind it is an event and no status. That is why it waits: what fails soon has its status.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.types import Message, Send

COMMENT = b": keep-alive\n\n"
"""What readers of server-sent events pass over: a line that begins with a colon."""


class EventStream:
    """One response of server-sent events; between its block's ends comments fill its silences.

    Args:
        send: ASGI's; one write at a time goes through it.
        head: The response's beginning, sent before its first byte and not earlier.
        silence_s: How long nothing is sent before a comment is.
    """

    def __init__(self, send: Send, head: Message, silence_s: float) -> None:
        self._send, self._head = send, head
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._spoke_s = self._loop.time()
        self._turn = asyncio.Lock()
        self.begun = False

    async def __aenter__(self) -> Self:
        self._comments = asyncio.create_task(self._comment())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._comments.cancel()

    async def write(self, frame: bytes, *, last: bool = False) -> None:
        """Send a frame; behind the last one nothing is sent."""
        async with self._turn:
            if last:
                self._comments.cancel()
            if not self.begun:
                await self._send(self._head)
                self.begun = True
            body = {"type": "http.response.body", "body": frame, "more_body": not last}
            await self._send(body)
            self._spoke_s = self._loop.time()

    async def _comment(self) -> None:
        """Send a comment at the end of each silence."""
        while True:
            await asyncio.sleep(self._spoke_s + self._silence_s - self._loop.time())
            if self._loop.time() - self._spoke_s >= self._silence_s:
                await self.write(COMMENT)
