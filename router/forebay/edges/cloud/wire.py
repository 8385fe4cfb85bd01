"""Connections to a provider: opened, read and given up within bounds, closed at once.

The provider's SDK sends the request over a client made here; what comes back is read here, so
that no line, no page of an error and no silence is longer than its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import math
import socket
import ssl
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio
import httpx2

from forebay.edges.cloud.sse import Events, TooLong
from forebay.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from forebay.edges.cloud.faults import Faults
    from forebay.ports import Clock

CONNECT_S = 5.0
"""The longest that connecting, TLS included, may take."""

KEEP_S = 30.0
"""How long an idle connection is kept: opening one costs a TLS handshake."""

MOST_KEPT = 100
MOST_ERROR_BYTES = 64 << 10
ERROR_S = 1.0
"""How long the body of an error is waited for: its status says most of it."""


BROKEN = (httpx2.RequestError, httpx2.StreamError, ssl.SSLError, anyio.EndOfStream)
"""What a read raises when the connection or its HTTP breaks."""

_REFUSES = 300
_T = TypeVar("_T")
_C = TypeVar("_C", bound=httpx2.AsyncClient)


class Refusal(Exception):
    """A response that is an error, or a redirect: its status, headers and what fits of its body."""

    def __init__(self, response: httpx2.Response, body: bytes) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.status = response.status_code
        self.headers = response.headers
        self.body = body


def client(base_url: str, kind: type[_C] = httpx2.AsyncClient) -> _C:  # type: ignore[assignment]
    """Return a client for one provider; it raises `Refusal` and follows no redirect.

    Proxies and certificates of the environment count, except for an address of this machine.
    There is no bound on connections: admission bounds requests, and each takes one.
    """
    ours = _is_here(base_url)
    return kind(
        verify=_tls(trust_env=not ours),
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=MOST_KEPT, keepalive_expiry=KEEP_S
        ),
        follow_redirects=False,
        trust_env=not ours,
        event_hooks={"response": [_refusing]},
    )


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a provider may be silent, before its answer's first part and later, in seconds.

    One that keeps the connection awake and adds nothing to the answer is given up after `idle_s`.
    """

    first_s: float
    stall_s: float
    idle_s: float


class Patience:
    """Bounds each wait of one call by its deadline and by how long a provider may be silent.

    `begun` is whether a part of the answer was handed on: from then on it cannot be repeated.
    """

    def __init__(
        self, faults: Faults, clock: Clock, deadline_s: float | None, waits: Waits
    ) -> None:
        self.faults = faults
        self.begun = False
        self.began_s = clock.now_s()
        self._clock = clock
        self._deadline_s = deadline_s
        self._waits = waits
        self._moved_s = self.began_s

    def check(self) -> None:
        """Raise where the deadline has passed before anything was sent."""
        if self._left_s() <= 0:
            raise DeadlineExceeded(f"the deadline passed before {self.faults.target} was called")

    def moved(self) -> None:
        """Note that a part of the answer came, which is handed on."""
        self.begun = True
        self._moved_s = self._clock.now_s()

    async def within(self, waited: Awaitable[_T]) -> _T:
        """Return what is awaited, or raise our error for why it does not come."""
        left_s, silence_s, idle_s = self._left_s(), self._silence_s(), self._idle_s()
        try:
            async with asyncio.timeout(max(0.0, min(left_s, silence_s, idle_s))):
                return await waited
        except TimeoutError:
            if left_s <= min(silence_s, idle_s):
                late = f"the deadline passed while {self.faults.target} was answering"
                raise DeadlineExceeded(late) from None
            silent = f"it was silent for {silence_s:g} s"
            idle = f"it added nothing to its answer for {self._waits.idle_s:g} s"
            why = silent if silence_s <= idle_s else idle
            raise self.faults.broke(why, begun=self.begun) from None
        except BROKEN as error:
            raise self.faults.broke(reason(error), begun=self.begun) from None

    def _left_s(self) -> float:
        return math.inf if self._deadline_s is None else self._deadline_s - self._clock.now_s()

    def _silence_s(self) -> float:
        return self._waits.stall_s if self.begun else self._waits.first_s

    def _idle_s(self) -> float:
        return self._moved_s + self._waits.idle_s - self._clock.now_s()


class EventStream:
    """The events of one response, as they come; `done` once the server said `[DONE]`."""

    def __init__(self, response: httpx2.Response, patience: Patience, most_bytes: int) -> None:
        self._pieces = response.aiter_bytes()
        self._patience = patience
        self._left = most_bytes
        self._events = Events()
        self._over = False
        self.done = False

    async def next(self) -> list[tuple[bytes, bytes]] | None:
        """Return the events that came now, perhaps none; None after the end.

        Raises:
            TooLong: the stream, or an event of it, is longer than its bound.
        """
        if self._over:
            return None
        piece = await self._patience.within(anext(self._pieces, None))
        if piece is None:
            self._over = True
            found = self._events.finish()
        else:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLong
            found = self._events.feed(piece)
        said = [event for event in found if not event[1].startswith(b"[DONE]")]
        self.done = self.done or len(said) < len(found)
        return said


def reason(error: BaseException) -> str:
    """Return in words why a connection failed."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            told = getattr(cause, "verify_message", "") or cause.reason or "no reason was given"
            return f"TLS fails: {told}"
        if isinstance(cause, socket.gaierror):
            return "its host's name is not known"
        if isinstance(cause, ConnectionRefusedError):
            return "it refuses connections"
        if isinstance(cause, httpx2.ConnectTimeout):
            return f"it took no connection for {CONNECT_S:g} s"
        if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
            return "its address is none; `base_url` begins with http:// or https://"
    return "the connection broke"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, innermost last."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]


@functools.cache
def _tls(*, trust_env: bool) -> ssl.SSLContext:
    """Return the certificates to trust; reading them takes tens of milliseconds."""
    return httpx2.create_ssl_context(trust_env=trust_env)


async def _refusing(response: httpx2.Response) -> None:
    """Raise a response that is no success, with what fits of its body."""
    if response.status_code < _REFUSES:
        return
    body = b""
    with contextlib.suppress(TimeoutError, *BROKEN):
        async with asyncio.timeout(ERROR_S), aclosing(response.aiter_raw()) as pieces:
            async for piece in pieces:
                body += piece[: MOST_ERROR_BYTES - len(body)]
                if len(body) >= MOST_ERROR_BYTES:
                    break
    await response.aclose()
    raise Refusal(response, body)


def _is_here(base_url: str) -> bool:
    host = httpx2.URL(base_url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
