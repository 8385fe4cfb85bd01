"""HTTP/1.1 as uvicorn speaks it, with every wait bounded.

uvicorn bounds none of: a connection that never sends its headers, headers without end, a body
that trickles, a client that never reads. Each would hold memory or a place for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from forebay.edges.http_door.answers import error_json
from forebay.edges.http_door.app import DOOR, INVALID
from forebay.errors import STATUS, Overloaded, TooLarge

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from forebay.edges.http_door.server import HttpSettings


_OVERLOADED, _TOO_LARGE = STATUS[Overloaded].reason, STATUS[TooLarge].reason


def bounded(settings: HttpSettings, refused: Callable[[str, str], None]) -> type[asyncio.Protocol]:
    """Return the protocol class that keeps these settings' bounds and tells whom it refuses."""
    kept = {"bounds": settings, "refused": staticmethod(refused)}
    return type("BoundedProtocol", (_BoundedProtocol,), kept)


class _BoundedProtocol(HttpToolsProtocol):
    bounds: HttpSettings
    refused: Callable[[str, str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self.bounds.header_s)
        if len(self.connections) > self.bounds.max_connections:
            self.refused(DOOR, _OVERLOADED)
            self._refuse(503, "too_many_connections", "the router has all the connections it takes")

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            most = self.bounds.max_header_bytes
            if self._head_bytes > most and not self._reads_body(data):
                self.refused(DOOR, _TOO_LARGE)
                self._refuse(431, "headers_too_large", f"the headers are larger than {most} bytes")
                return
        super().data_received(data)

    def _reads_body(self, data: bytes) -> bool:
        """Whether this read ends the headers: what follows them is body and bounded elsewhere."""
        end = data.find(b"\r\n\r\n")
        return end >= 0 and self._head_bytes - len(data) + end <= self.bounds.max_header_bytes

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._begun = True
        self._wait(self.bounds.header_s)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._wait(self.bounds.body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begun = False
        self._wait(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.bounds.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _wait(self, seconds: float | None) -> None:
        """Give the client this long for what it is sending; None when nothing is awaited."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if seconds is not None:
            self._waiting = self.loop.call_later(seconds, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        self.refused(DOOR, INVALID)
        super().send_400_response(msg)

    def _too_slow(self) -> None:
        if self._begun:
            self.refused(DOOR, INVALID)
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._refuse(408, "request_timeout", "the request did not arrive in time")
        else:
            self.transport.abort()

    def _refuse(self, status: int, code: str, sentence: str) -> None:
        """Answer without an application, and close."""
        if self.transport.is_closing():
            return
        body = orjson.dumps(error_json(status, code, sentence))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()
