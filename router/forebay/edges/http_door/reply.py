"""One answer over HTTP: the corridor runs while the client's hang-up is watched.

Before the first byte a failure is a status; after it, an event that ends the stream. Where a stream
was silent for long, its first byte is a comment's (`stream.py`). The watch starts with the request,
so a client that leaves before the first token cancels as well.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import ceil
from typing import TYPE_CHECKING

import structlog

from forebay.edges.http_door.answers import Told, error_body, error_frame, paired
from forebay.edges.http_door.stream import EventStream
from forebay.errors import EngineUnavailable, ForebayError, status_of
from forebay.values import Decided, Done, Failed, Ticket, Token, Verdict

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from forebay.corridor import Corridor
    from forebay.edges.http_door.shapes import Shape
    from forebay.values import Request

log = structlog.get_logger("forebay.http")

_FAREWELL_S = 0.2
"""A client that does not read is not waited for when the server stops."""

_STOPPING = "the router stopped before the answer was whole"
_JSON = (b"content-type", b"application/json")
_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply:
    """An ASGI response that asks the corridor when it is sent.

    A stream that was silent for `silence_s` seconds gets a comment.
    """

    def __init__(
        self, corridor: Corridor, request: Request, shape: Shape, silence_s: float
    ) -> None:
        self._corridor = corridor
        self._request = request
        self._shape = shape
        self._silence_s = silence_s
        self._told = Told(request.id, request.explain)
        self._events: EventStream | None = None
        self._opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer; a hang-up closes the corridor at once and is no error.

        Any other cancellation is the server's own, at the end of its grace: the client is told.
        """
        task = asyncio.current_task()
        left = False

        async def watch() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
            if task is not None:
                task.cancel()

        watching = asyncio.create_task(watch())
        try:
            await self._answer(send)
        except asyncio.CancelledError:
            if not left:
                async with asyncio.timeout(_FAREWELL_S):
                    await self._fail(send, EngineUnavailable(_STOPPING))
        finally:
            watching.cancel()

    async def _answer(self, send: Send) -> None:
        try:
            await (self._stream(send) if self._request.stream else self._whole(send))
        except ForebayError as error:
            await self._fail(send, error)
        except Exception as error:
            log.exception("http.broke", request_id=self._request.id)
            await self._fail(send, error)

    async def _whole(self, send: Send) -> None:
        told, done = self._told, None
        async with aclosing(self._corridor.run(self._request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    told.texts.append(event.text)
                    told.logprobs += paired(event)
                elif isinstance(event, Done):
                    done = event
                else:
                    self._note(event)
        assert done is not None, "the corridor ended without Done or Failed"
        status = 200 if told.ticket is None else 202
        await self._json(send, status, self._shape.whole(told, done))

    async def _stream(self, send: Send) -> None:
        """Send frames as tokens come; what opens the answer leaves with its first token."""
        shape = self._shape
        stream = self._events = EventStream(send, self._head(200, _STREAM), self._silence_s)
        async with stream, aclosing(self._corridor.run(self._request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    await stream.write(self._opening() + shape.text(event))
                elif isinstance(event, Done):
                    await stream.write(self._opening() + shape.last(self._told, event), last=True)
                else:
                    self._note(event)

    def _opening(self) -> bytes:
        """Return what opens an answer, once."""
        opened, self._opened = self._opened, True
        return b"" if opened else self._shape.first(self._told)

    def _note(self, event: object) -> None:
        """Take what changes the answer's frame and not its text; raise the failure that ends it."""
        if isinstance(event, Decided):
            self._told.decide(event)
        elif isinstance(event, Verdict):
            self._told.verdicts.append(event)
        elif isinstance(event, Ticket):
            self._told.ticket = event
        elif isinstance(event, Failed):
            raise event.error

    async def _fail(self, send: Send, error: Exception) -> None:
        if self._events is not None and self._events.begun:
            await self._events.write(error_frame(error), last=True)
        else:
            await self._json(send, status_of(error).http, error_body(error), *retry_headers(error))

    async def _json(self, send: Send, status: int, body: bytes, *more: tuple[bytes, bytes]) -> None:
        sized = (b"content-length", b"%d" % len(body))
        await send(self._head(status, [_JSON, sized, *more]))
        await send({"type": "http.response.body", "body": body})

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> Message:
        named = [*headers, (b"x-request-id", self._request.id.encode())]
        return {"type": "http.response.start", "status": status, "headers": named}


def retry_headers(error: BaseException) -> list[tuple[bytes, bytes]]:
    """Return when a client may come back, in whole seconds, or else that nothing is won by it.

    OpenAI's SDK sends a request that ended in 5xx twice more unless it is told not to; each time
    it would walk its whole ladder again.
    """
    after_s = error.retry_after_s if isinstance(error, ForebayError) else None
    if after_s is None:
        return [(b"x-should-retry", b"false")]
    return [(b"retry-after", b"%d" % max(ceil(after_s), 1))]
