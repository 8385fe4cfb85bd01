"""The stub as an application, and as a server of it on loopback."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loadtest.cloud_stub import bodies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import Receive, Scope, Send

    from loadtest.cloud_stub.bodies import Asked

CUT_AFTER = 3
"""Tokens before a fault that strikes inside a stream."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it answers: the first token's lognormal time and rare pause, then a fixed gap."""

    ttft_s: float = 0.35
    sigma: float = 0.33
    pause_s: float = 3.0
    pause_share: float = 0.002
    tpot_s: float = 0.02

    def draw_s(self, dice: random.Random) -> float:
        """Return one time to the first token."""
        first_s = self.ttft_s * math.exp(self.sigma * dice.gauss(0.0, 1.0))
        return first_s + (self.pause_s if dice.random() < self.pause_share else 0.0)


@dataclass(slots=True)
class Stats:
    """What happened so far; `active` is now."""

    requests: int = 0
    active: int = 0
    cancelled: int = 0
    faults: int = 0
    tokens: int = 0


class Stub:
    """The server's application; `stats` may be read by whoever runs it in its own process."""

    def __init__(
        self,
        pace: Pace | None = None,
        *,
        seed: int = 1,
        fault: str | None = None,
        fault_share: float = 1.0,
    ) -> None:
        self.stats = Stats()
        self._pace = pace or Pace()
        self._dice = random.Random(seed)  # noqa: S311 - a pace, no secret
        self._fault, self._fault_share = fault, fault_share
        self.app = Starlette(
            routes=[
                Route("/stats", self._told, methods=["GET"]),
                Route("/v1/models", self._models, methods=["GET"]),
                Route("/v1/chat/completions", _Endpoint(self, chat=True)),
                Route("/v1/completions", _Endpoint(self, chat=False)),
            ]
        )

    async def answer(self, request: Request, send: Send, *, chat: bool) -> None:
        """Answer one request, until it is whole or its client has left."""
        self.stats.requests += 1
        self.stats.active += 1
        first_s = self._pace.draw_s(self._dice)
        start_s = asyncio.get_running_loop().time() + first_s
        try:
            asked = bodies.read(
                await request.body(), request.headers.get("x-stub-fault"), chat=chat
            )
            working = asyncio.ensure_future(self._work(asked, start_s, request, send))
            leaving = asyncio.ensure_future(request.receive())
            leaving.add_done_callback(lambda _: working.cancel())
            try:
                await asyncio.wait([working])
            finally:
                leaving.cancel()
                working.cancel()
            if working.cancelled():
                self.stats.cancelled += 1
            else:
                working.result()
        finally:
            self.stats.active -= 1

    async def _work(self, asked: Asked, start_s: float, request: Request, send: Send) -> None:
        fault = asked.fault
        if self._fault is not None and self._dice.random() < self._fault_share:
            fault = fault or self._fault
        self.stats.faults += fault is not None
        if fault == "hang":
            await asyncio.Event().wait()
        if (refused := bodies.refusal(fault)) is not None:
            await refused(request.scope, request.receive, send)
        elif asked.stream:
            await self._stream(asked, start_s, fault, send)
        else:
            await _until(start_s + self._pace.tpot_s * (asked.tokens - 1))
            self.stats.tokens += asked.tokens
            whole = JSONResponse(bodies.whole(asked, fault))
            await whole(request.scope, request.receive, send)

    async def _stream(self, asked: Asked, start_s: float, fault: str | None, send: Send) -> None:
        """Send each token at its moment; those that fell due together leave in one write."""
        loop, gap_s, sent = asyncio.get_running_loop(), self._pace.tpot_s, 0
        end = CUT_AFTER if fault is not None else asked.tokens
        pieces = bodies.pieces(asked.model, chat=asked.chat, refused=fault == "refusal")
        await send(_HEAD)
        while sent < end:
            await _until(start_s + sent * gap_s)
            late_s = loop.time() - start_s
            due = end if gap_s <= 0 else min(end, max(sent, int(late_s / gap_s)) + 1)
            body = b"".join(pieces[n % len(pieces)] for n in range(sent, due))
            self.stats.tokens += due - sent
            sent = due
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if fault == "stall":
            await asyncio.Event().wait()
        if fault == "cut":
            return  # the server breaks a connection whose body has no end
        await send({"type": "http.response.body", "body": bodies.end(asked, fault)})

    async def _told(self, _: Request) -> Response:
        return JSONResponse({**asdict(self.stats), "cpu_s": time.process_time()})

    async def _models(self, _: Request) -> Response:
        one = {"id": "stub", "object": "model", "created": 0, "owned_by": "loadtest"}
        return JSONResponse({"object": "list", "data": [one]})


class _Endpoint:
    """One path as a bare ASGI application: nothing stands between a token and its socket."""

    def __init__(self, stub: Stub, *, chat: bool) -> None:
        self._stub = stub
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stub.answer(Request(scope, receive), send, chat=self._chat)


_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")],
}


async def _until(at_s: float) -> None:
    left_s = at_s - asyncio.get_running_loop().time()
    if left_s > 0:
        await asyncio.sleep(left_s)


class _Server(uvicorn.Server):
    """uvicorn's server for somebody else's loop: that one's signals stay its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def config(stub: Stub) -> uvicorn.Config:
    """Return uvicorn's settings: nothing logged, nothing beside the answer."""
    return uvicorn.Config(
        stub.app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )


def listener(port: int) -> socket.socket:
    """Return a socket that listens already, so that nobody is turned away meanwhile."""
    made = socket.create_server(("127.0.0.1", port), backlog=1024)
    made.setblocking(False)  # noqa: FBT003 - the socket's own signature
    return made


@asynccontextmanager
async def serving(stub: Stub, port: int = 0) -> AsyncIterator[str]:
    """Serve a stub in this loop, and yield its base URL."""
    taken, server = listener(port), _Server(config(stub))
    task = asyncio.create_task(server.serve(sockets=[taken]))
    # It listens already: who calls before the server has begun waits in the backlog.
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    finally:
        server.should_exit = server.force_exit = True
        await task
