"""One page of a server, fetched over and over on one connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

LIMIT_BYTES = 1 << 20
"""Bytes of an answer, its head included."""

_PIECE_BYTES = 1 << 16
_PLAIN_PORT, _TLS_PORT = 80, 443
_OK = 200


class PageReader:
    """Fetches one URL. Only one fetch at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (_TLS_PORT if tls else _PLAIN_PORT)
        self._tls = True if tls else None
        target = parts.path or "/"
        target = f"{target}?{parts.query}" if parts.query else target
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Accept: text/plain",
            "User-Agent: forebay",
        )
        self._request = "\r\n".join((*lines, "", "")).encode("ascii")
        self._open: tuple[StreamReader, StreamWriter] | None = None

    async def get(self, timeout_s: float) -> bytes:
        """Return the page.

        Raises:
            OSError: nobody answers, or not in time.
            ValueError: what came is no page: not HTTP, not status 200, cut off or too large.
        """
        try:
            async with asyncio.timeout(timeout_s):
                if self._open is not None and self._open[1].is_closing():
                    self.close()  # reset while it was idle: uvloop lets nobody write there
                if self._open is not None:
                    try:
                        return await self._fetch(*self._open)
                    except (ConnectionError, EOFError):
                        self.close()  # the server closed it while it was idle
                self._open = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                try:
                    return await self._fetch(*self._open)
                except EOFError as error:
                    raise ValueError("the answer ends too early") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection, now."""
        if self._open is not None:
            self._open[1].transport.abort()
            self._open = None

    async def _fetch(self, reader: StreamReader, writer: StreamWriter) -> bytes:
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        writer.write(self._request)
        received = 0
        while not answer.complete:
            piece = await reader.read(_PIECE_BYTES)
            if not piece:
                if not answer.until_end:
                    raise EOFError
                break
            received += len(piece)
            if received > LIMIT_BYTES:
                raise ValueError(f"the page is larger than {LIMIT_BYTES:,} bytes")
            try:
                parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                raise ValueError(f"the answer is no HTTP: {error}") from error
        if parser.get_status_code() != _OK:
            raise ValueError(f"the answer has status {parser.get_status_code()}")
        if answer.until_end:
            self.close()
        return b"".join(answer.body)


class _Answer:
    """What the parser tells of one answer."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.complete = False
        self.headed = False
        self.sized = False

    @property
    def until_end(self) -> bool:
        """Whether the body, of a length not told, ends where the connection does."""
        return self.headed and not self.sized

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note whether the body's end is told."""
        self.sized = self.sized or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self.headed = True

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.body.append(piece)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        self.complete = True
