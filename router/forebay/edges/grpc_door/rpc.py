"""How any service is put behind this door: from its descriptor, so that nothing is left bare.

Each handler turns malformed bytes, Forebay's errors and broken expectations into a status with a
sentence; the library's own answer to them would be UNKNOWN with a class name, or none at all for
an error of its own (`aio.BaseError`) that comes out of an engine's connection.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from forebay.edges.grpc_door.arrival import request_id
from forebay.errors import ForebayError, InvalidRequest, sentence_of, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

    Call = aio.ServicerContext[Any, Any]
    Refused = Callable[[str, str], None]

log = structlog.get_logger("forebay.grpc")

MAX_DETAILS_CHARS = 1024
"""Status details travel in trailers, which peers bound at 8 KiB or so."""

_CODES = {code.name: code for code in grpc.StatusCode}
_MALFORMED = object()
_STALLED_SENTENCE = "the client stopped reading its stream, so its answer was cut"
_LEFT_SENTENCE = "the client left before its answer was whole"
_BYTES_SENTENCE = "the message is not a valid {}: its bytes do not parse as protobuf"


class StalledClientError(Exception):
    """The client read nothing for the whole of `stall_s`."""


class ClientLeftError(Exception):
    """Nothing can be written to the client or read from it any more."""


class RecordedError(Exception):
    """The corridor ended a request with `error`; its record tells of it, so no door counts it."""

    def __init__(self, error: ForebayError) -> None:
        super().__init__(error)
        self.error = error


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
        """Await one write; writes of one stream do not overlap.

        Raises:
            ClientLeftError: the write failed.
        """
        self._since = self._loop.time()
        try:
            await write
        except aio.BaseError:
            raise ClientLeftError from None
        finally:
            self._since = None

    def _look(self) -> None:
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if waited_s < self._stall_s:
            self._timer = self._loop.call_later(self._stall_s - waited_s, self._look)
        elif self._task is not None:
            self._tripped = True
            self._task.cancel()


async def refuse(context: Call, error: BaseException) -> None:
    """End a call with the status of an error, its sentence, its id, and when to come back."""
    status = status_of(error)
    trailers = [("forebay-reason", status.reason)]
    if request_id():
        trailers.append(("x-request-id", request_id()))
    after_s = error.retry_after_s if isinstance(error, ForebayError) else None
    if after_s is not None:
        trailers.append(("retry-after", f"{after_s:.3f}"))
        trailers.append(("grpc-retry-pushback-ms", str(round(after_s * 1000))))
    sentence = sentence_of(error)[:MAX_DETAILS_CHARS]
    await _end(context, _CODES[status.grpc], sentence, tuple(trailers))


async def _end(
    context: Call, code: grpc.StatusCode, sentence: str, trailers: tuple[Any, ...] = ()
) -> None:
    """End a call; a client that has left already needs no status."""
    with suppress(aio.InternalError, aio.UsageError):
        await context.abort(code, sentence, trailers)


def unheard(_door: str, _reason: str) -> None:
    """Count nothing: what a door does with its refusals where nobody asks for them."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Ends each call of a service with a status of ours, and counts what the door refuses.

    `refused` is called with `door` and the reason of each refusal that no record tells of.
    """

    door: str
    refused: Refused = unheard

    def handlers(
        self,
        service: ServiceDescriptor,
        servicer: object,
        otherwise: Callable[..., Any] | None = None,
    ) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Return a guarded handler for each method of a service.

        Args:
            service: What the service promises.
            servicer: An object with a coroutine function, or an async generator function, for
                each method; methods it lacks are answered by `otherwise`.
            otherwise: A coroutine function `(request, context)` for unary methods.
        """
        made = {}
        for method in service.methods:
            behaviour = getattr(servicer, method.name, otherwise)
            if behaviour is not None:
                made[method.name] = self._handler(method, behaviour)
        return made

    def _handler(
        self, method: MethodDescriptor, behaviour: Callable[..., Any]
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
            self._guarded(method.full_name, method.input_type.name, behaviour),
            request_deserializer=_tolerant(GetMessageClass(method.input_type).FromString),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    def _guarded(
        self, name: str, message: str, behaviour: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return a handler that ends each call with a status of ours."""

        async def handle(request: Any, context: Call) -> Any:
            try:
                return await behaviour(_received(request, message), context)
            except RecordedError as ended:
                await refuse(context, ended.error)
            except ForebayError as error:
                self.refused(self.door, status_of(error).reason)
                await refuse(context, error)
            except StalledClientError:
                await _end(context, grpc.StatusCode.ABORTED, _STALLED_SENTENCE)
            except ClientLeftError:
                await _end(context, grpc.StatusCode.CANCELLED, _LEFT_SENTENCE)
            except (Exception, asyncio.CancelledError) as error:
                if _ends_the_call(error, context):
                    raise
                log.exception("grpc.broke", method=name, request_id=request_id())
                await refuse(context, error)

        return handle


def was_cancelled() -> bool:
    """Whether somebody cancelled this task, so that a CancelledError in it is meant for it.

    One that comes out of a call to an engine, cancelled there, ends that call alone.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ends_the_call(error: BaseException, context: Call) -> bool:
    """Whether the library knows already how the call ends: aborted by its service, or cancelled."""
    if isinstance(error, asyncio.CancelledError):
        return was_cancelled()
    return isinstance(error, aio.AbortError) and context.done()


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserialiser that yields a mark where bytes do not parse."""

    def deserialise(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return _MALFORMED

    return deserialise


def _received(request: Any, message: str) -> Any:
    """Return a request, or the requests of a stream, as they parsed."""
    if request is _MALFORMED:
        raise InvalidRequest(_BYTES_SENTENCE.format(message))
    return request if hasattr(request, "DESCRIPTOR") else _parsed(request, message)


async def _parsed(requests: AsyncIterator[Any], message: str) -> AsyncGenerator[Any, None]:
    try:
        async for request in requests:
            yield _received(request, message)
    except aio.BaseError:
        raise ClientLeftError from None


def _written(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async generator function as a coroutine function that writes."""

    async def write(request: Any, context: Call) -> None:
        async for response in behaviour(request, context):
            try:
                await context.write(response)
            except aio.BaseError:
                raise ClientLeftError from None

    return write
