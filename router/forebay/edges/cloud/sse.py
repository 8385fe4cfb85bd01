"""Server-sent events out of a stream of bytes, in bounded memory."""

from __future__ import annotations

MOST_EVENT_BYTES = 1 << 20
"""The longest event, and the longest line, that is taken; a chunk of an answer is far below."""


class TooLong(ValueError):
    """An event is longer than its bound."""


class Events:
    """Cuts a stream into events: each is its name, empty where it has none, and its data.

    Lines end in LF or CRLF. A lone CR, which the standard also allows, ends none here.
    """

    def __init__(self, most_bytes: int = MOST_EVENT_BYTES) -> None:
        self._most = most_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""

    def feed(self, piece: bytes) -> list[tuple[bytes, bytes]]:
        """Return the events that `piece` completes.

        Raises:
            TooLong: one is longer than the bound, whether it has ended or not.
        """
        self._line += piece
        found: list[tuple[bytes, bytes]] = []
        if b"\n" in piece:
            *lines, rest = bytes(self._line).split(b"\n")
            self._line = bytearray(rest)
            for line in lines:
                self._take(line.removesuffix(b"\r"), found)
        if len(self._line) > self._most:
            raise TooLong
        return found

    def finish(self) -> list[tuple[bytes, bytes]]:
        """Return the event that the stream's end completes: some servers leave out the last line's.

        What is half an event is told like a whole one; its data then makes no sense.
        """
        found: list[tuple[bytes, bytes]] = []
        self._take(bytes(self._line).removesuffix(b"\r"), found)
        self._take(b"", found)
        self._line.clear()
        return found

    def _take(self, line: bytes, found: list[tuple[bytes, bytes]]) -> None:
        if not line:
            if self._data:
                found.append((self._name, b"\n".join(self._data)))
            self._data, self._size, self._name = [], 0, b""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > self._most:
                raise TooLong
            self._data.append(value)
        elif field == b"event":
            self._name = value
