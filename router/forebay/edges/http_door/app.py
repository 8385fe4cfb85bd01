"""The routes of the HTTP door, and how anything that is wrong is told: in OpenAI's shape."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from forebay.edges.http_door import bodies, wire
from forebay.edges.http_door.answers import error_body, error_json, ticket_json
from forebay.edges.http_door.density import sparse
from forebay.edges.http_door.reply import Reply, retry_headers
from forebay.edges.http_door.shapes import ChatShape, CompletionShape
from forebay.errors import (
    BROKEN,
    BROKEN_SENTENCE,
    STATUS,
    ForebayError,
    InvalidRequest,
    TooLarge,
    status_of,
)
from forebay.policy.context import fault, parsed, unknown_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

    from forebay import values
    from forebay.corridor import Corridor
    from forebay.edges.http_door.shapes import Shape
    from forebay.ports import Clock

log = structlog.get_logger("forebay.http")

JSON = "application/json"
DEADLINE_HEADER = "x-forebay-deadline-ms"
"""Until when the client waits, in milliseconds from the request's arrival."""

DOOR = "http"
INVALID = STATUS[InvalidRequest].reason
NOT_FOUND = "not_found"
"""The reason counted where a path or its method is not there."""

_CLIENT_LEFT = 499


@dataclass(frozen=True, slots=True)
class Served:
    """What stands behind the routes.

    `names` are the models that a client may name, `unready` says why nothing can be served or
    None, `metrics` returns a page and its content type, `refused` is called with the door and the
    reason of each request that is refused before the corridor. A stream that is silent for
    `silence_s` seconds gets a comment.
    """

    corridor: Corridor
    clock: Clock
    names: Callable[[], tuple[str, ...]]
    unready: Callable[[], str | None]
    metrics: Callable[[], tuple[bytes, str]]
    max_body_bytes: int
    refused: Callable[[str, str], None]
    silence_s: float


def application(served: Served) -> Starlette:
    """Return the ASGI application."""
    endpoints = Endpoints(served)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.complete, methods=["POST"]),
            Route("/v1/models", endpoints.models, methods=["GET"]),
            Route("/v1/models/{name:path}", endpoints.model, methods=["GET"]),
            Route("/v1/tickets/{id}", endpoints.ticket, methods=["GET"]),
            Route("/metrics", endpoints.metrics, methods=["GET"]),
            Route("/healthz", endpoints.alive, methods=["GET"]),
            Route("/readyz", endpoints.ready, methods=["GET"]),
        ],
        exception_handlers={
            ForebayError: endpoints.told,
            HTTPException: endpoints.told_by_path,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
    )


class Endpoints:
    """One method for each route."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._since_s = round(served.clock.wall_s())

    async def chat(self, request: Request) -> ASGIApp:
        """Answer `POST /v1/chat/completions`."""
        arrival, said = await self._read(request)
        body = bodies.read(bodies.ChatBody, said)
        shape = ChatShape(self._now_s(), logprobs=body.logprobs, usage=_wants_usage(body))
        return self._reply(wire.request_of(body, arrival), shape)

    async def complete(self, request: Request) -> ASGIApp:
        """Answer `POST /v1/completions`."""
        arrival, said = await self._read(request)
        body = bodies.read(bodies.CompletionBody, said)
        probs = body.logprobs is not None
        shape = CompletionShape(self._now_s(), logprobs=probs, usage=_wants_usage(body))
        return self._reply(wire.request_of(body, arrival), shape)

    async def models(self, _request: Request) -> Response:
        """List what a client may name: auto, the route classes, the targets."""
        listed = [self._model(name) for name in self._served.names()]
        return Response(orjson.dumps({"object": "list", "data": listed}), media_type=JSON)

    async def model(self, request: Request) -> Response:
        """Return one of them."""
        name, names = request.path_params["name"], self._served.names()
        if name not in names:
            raise unknown_model(name, names)
        return Response(orjson.dumps(self._model(name)), media_type=JSON)

    async def ticket(self, request: Request) -> Response:
        """Return how a request stands that waits for a person."""
        found = await self._served.corridor.ticket(request.path_params["id"])
        return Response(orjson.dumps(ticket_json(found)), media_type=JSON)

    async def metrics(self, _request: Request) -> Response:
        """Return the metrics page."""
        page, content_type = self._served.metrics()
        return Response(page, headers={"content-type": content_type})

    async def alive(self, _request: Request) -> Response:
        """Say that the process runs."""
        return Response(b"ok\n", media_type="text/plain")

    async def ready(self, _request: Request) -> Response:
        """Say whether a request could be answered now, and if not why."""
        why = self._served.unready()
        if why is None:
            return Response(b"ready\n", media_type="text/plain")
        return Response(f"{why}\n", status_code=503, media_type="text/plain")

    async def told(self, _request: Request, error: Exception) -> Response:
        """Tell what an endpoint refused; what the corridor refuses is told by `Reply`."""
        status = status_of(error)
        self._served.refused(DOOR, status.reason)
        return Response(error_body(error), status.http, _come_back(error), JSON)

    async def told_by_path(self, request: Request, error: Exception) -> Response:
        """Tell what is not there."""
        assert isinstance(error, HTTPException)
        path = request.url.path[:256]
        told = {
            404: (
                "unknown_path",
                (
                    f"there is nothing at {path}; this door serves /v1/chat/completions, "
                    "/v1/completions, /v1/models, /v1/tickets, /metrics, /healthz and /readyz"
                ),
            ),
            405: ("method_not_allowed", f"{path} does not take {request.method}"),
        }
        self._served.refused(DOOR, NOT_FOUND if error.status_code in told else INVALID)
        code, sentence = told.get(error.status_code, ("http", str(error.detail)))
        body = orjson.dumps(error_json(error.status_code, code, sentence))
        headers = _come_back(error) | dict(error.headers or {})
        return Response(body, error.status_code, headers, JSON)

    def _reply(self, asked: values.Request, shape: Shape) -> Reply:
        return Reply(self._served.corridor, asked, shape, self._served.silence_s)

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since_s, "owned_by": "forebay"}

    def _now_s(self) -> int:
        return round(self._served.clock.wall_s())

    async def _read(self, request: Request) -> tuple[wire.Arrival, object]:
        """Return a request's arrival and its parsed body."""
        received_s = self._served.clock.now_s()
        raw = await self._body(request)
        deadline_ms = wire.deadline_header(request.headers.get(DEADLINE_HEADER))
        if not raw:
            raise fault("the body", "must be a JSON object, and is empty")
        said = parsed(sparse(raw), "the body")
        return wire.Arrival(uuid.uuid4().hex, received_s, deadline_ms, len(raw)), said

    async def _body(self, request: Request) -> bytes:
        """Return the whole body; refuse it as soon as it is known to be too large.

        The connection stays: what still comes is read and dropped, for closing it would reset it
        before the client has read why.
        """
        most = self._served.max_body_bytes
        stated = request.headers.get("content-length", "0")
        size, parts = 0, []
        if not (stated.isdecimal() and len(stated) < 20 and int(stated) <= most):  # noqa: PLR2004
            raise TooLarge(f"the body is larger than {most} bytes")
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLarge(f"the body is larger than {most} bytes")
            parts.append(part)
        return b"".join(parts)


def _wants_usage(body: bodies.Body) -> bool:
    if body.stream_options.include_usage and not body.stream:
        raise fault("stream_options", "is only for streams; set stream to true")
    return body.stream_options.include_usage


async def _gone(_request: Request, _error: Exception) -> Response:
    """Answer nobody: the client left while it was sending."""
    return Response(status_code=_CLIENT_LEFT)


async def _broken(_request: Request, error: Exception) -> Response:
    """Tell that an expectation of ours broke; the server logs what it was."""
    body = orjson.dumps(error_json(BROKEN.http, BROKEN.reason, BROKEN_SENTENCE))
    return Response(body, BROKEN.http, _come_back(error), JSON)


def _come_back(error: Exception) -> dict[str, str]:
    """Return the headers that say whether the request may be sent again, and when."""
    return {name.decode(): value.decode() for name, value in retry_headers(error)}
