"""How any service is put behind this door: from its descriptor, so that nothing is left bare.

Each handler turns malformed bytes, Forebay's errors and broken expectations into a status with a
sentence; the library's own answer to them would be UNKNOWN with a class name.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from forebay.errors import ForebayError, InvalidRequest, sentence_of, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

log = structlog.get_logger("forebay.grpc")

MAX_DETAILS_CHARS = 1024
"""Status details travel in trailers, which peers bound at 8 KiB or so."""

_CODES = {code.name: code for code in grpc.StatusCode}
_MALFORMED = object()
_STALLED_SENTENCE = "the client stopped reading its stream, so its answer was cut"
_BYTES_SENTENCE = "the message is not a valid {}: its bytes do not parse as protobuf"


class StalledClientError(Exception):
    """The client read nothing for the whole of `stall_s`."""


class Patience:
    """Ends its block with `StalledClientError` once one write has waited `stall_s` seconds.

    One timer a stream looks at when the write in progress began, so a write costs two
    attributes and no timer of its own.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._tripped = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(self._stall_s, self._look)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._tripped and self._task and self._task.uncancel() == 0:
            raise StalledClientError

    async def during(self, write: Awaitable[None]) -> None:
        """Await one write; writes of one stream do not overlap."""
        self._since = self._loop.time()
        await write
        self._since = None

    def _look(self) -> None:
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if waited_s < self._stall_s:
            self._timer = self._loop.call_later(self._stall_s - waited_s, self._look)
        elif self._task is not None:
            self._tripped = True
            self._task.cancel()


async def refuse(context: aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    """End a call with the status of an error, its sentence, and when to come back."""
    status = status_of(error)
    trailers = [("forebay-reason", status.reason)]
    after_s = error.retry_after_s if isinstance(error, ForebayError) else None
    if after_s is not None:
        trailers.append(("retry-after", f"{after_s:.3f}"))
        trailers.append(("grpc-retry-pushback-ms", str(round(after_s * 1000))))
    sentence = sentence_of(error)[:MAX_DETAILS_CHARS]
    await context.abort(_CODES[status.grpc], sentence, tuple(trailers))
    raise AssertionError("abort returned")


def handlers(
    service: ServiceDescriptor, servicer: object, otherwise: Callable[..., Any] | None = None
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Return a guarded handler for each method of a service.

    Args:
        service: What the service promises.
        servicer: An object with a coroutine function, or an async generator function, for each
            method; methods it lacks are answered by `otherwise`.
        otherwise: A coroutine function `(request, context)` for unary methods.
    """
    made = {}
    for method in service.methods:
        behaviour = getattr(servicer, method.name, otherwise)
        if behaviour is not None:
            made[method.name] = _handler(method, behaviour)
    return made


def _handler(
    method: MethodDescriptor, behaviour: Callable[..., Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    streams = (method.client_streaming, method.server_streaming)
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[streams]
    if inspect.isasyncgenfunction(behaviour):
        behaviour = _written(behaviour)
    return make(
        _guarded(method.full_name, method.input_type.name, behaviour),
        request_deserializer=_tolerant(GetMessageClass(method.input_type).FromString),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserialiser that yields a mark where bytes do not parse."""

    def deserialise(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return _MALFORMED

    return deserialise


def _guarded(name: str, message: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that ends each call with a status of ours."""

    async def handle(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        if request is _MALFORMED:
            await refuse(context, InvalidRequest(_BYTES_SENTENCE.format(message)))
        received = request if hasattr(request, "DESCRIPTOR") else _parsed(request, message)
        try:
            return await behaviour(received, context)
        except ForebayError as error:
            await refuse(context, error)
        except StalledClientError:
            with suppress(aio.InternalError):  # the client left before it read even this
                await context.abort(grpc.StatusCode.ABORTED, _STALLED_SENTENCE)
        except aio.BaseError:
            raise
        except Exception as error:
            log.exception("grpc.broke", method=name)
            await refuse(context, error)

    return handle


async def _parsed(requests: AsyncIterator[Any], message: str) -> AsyncGenerator[Any, None]:
    async for request in requests:
        if request is _MALFORMED:
            raise InvalidRequest(_BYTES_SENTENCE.format(message))
        yield request


def _written(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async generator function as a coroutine function that writes."""

    async def write(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
        async for response in behaviour(request, context):
            await context.write(response)

    return write
