"""One answer over HTTP: the corridor runs while the client's hang-up is watched.

Before the first byte a failure is a status; after it, an event that ends the stream. The watch
starts with the request, so a client that leaves before the first token cancels as well.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from math import ceil
from typing import TYPE_CHECKING

import structlog

from forebay.edges.http_door.answers import Shape, Told, error_body, error_frame, paired
from forebay.errors import EngineUnavailable, ForebayError, status_of
from forebay.values import Decided, Done, Failed, Token, Verdict

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from forebay.corridor import Corridor
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
    """An ASGI response that asks the corridor when it is sent."""

    def __init__(self, corridor: Corridor, request: Request, shape: Shape) -> None:
        self._corridor = corridor
        self._request = request
        self._shape = shape
        self._told = Told(request.id, request.explain)
        self._started = False

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
        body = self._shape.whole(told, done)
        await self._start(send, 200, [_JSON, (b"content-length", b"%d" % len(body))])
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Send) -> None:
        """Send frames as tokens come; head and first text leave together with the first token."""
        shape = self._shape
        async with aclosing(self._corridor.run(self._request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    opening = b"" if self._started else await self._open(send)
                    frame = opening + shape.text(event)
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
                elif isinstance(event, Done):
                    frame = b"" if self._started else await self._open(send)
                    frame += shape.last(self._told, event)
                    await send({"type": "http.response.body", "body": frame})
                else:
                    self._note(event)

    async def _open(self, send: Send) -> bytes:
        await self._start(send, 200, _STREAM)
        return self._shape.first(self._told)

    def _note(self, event: object) -> None:
        """Take what changes the answer's frame and not its text; raise the failure that ends it."""
        if isinstance(event, Decided):
            self._told.decide(event)
        elif isinstance(event, Verdict):
            self._told.verdicts.append(event)
        elif isinstance(event, Failed):
            raise event.error

    async def _fail(self, send: Send, error: Exception) -> None:
        if self._started:
            await send({"type": "http.response.body", "body": error_frame(error)})
            return
        body = error_body(error)
        headers = [_JSON, (b"content-length", b"%d" % len(body)), *retry_after(error)]
        await self._start(send, status_of(error).http, headers)
        await send({"type": "http.response.body", "body": body})

    async def _start(self, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        named = [*headers, (b"x-request-id", self._request.id.encode())]
        await send({"type": "http.response.start", "status": status, "headers": named})


def retry_after(error: BaseException) -> list[tuple[bytes, bytes]]:
    """Return the Retry-After header of an error that says when, in whole seconds."""
    after_s = error.retry_after_s if isinstance(error, ForebayError) else None
    return [] if after_s is None else [(b"retry-after", b"%d" % max(ceil(after_s), 1))]
