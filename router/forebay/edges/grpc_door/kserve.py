"""`inference.GRPCInferenceService`: what a Triton client finds when it points at the router."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from grpc import aio
from tritonclient.grpc import service_pb2 as kserve

from forebay import __version__
from forebay.edges.grpc_door.arrival import arrival_of, request_id
from forebay.edges.grpc_door.infer import ALIASES, Answers, Asked, asked_of, failure, known_version
from forebay.edges.grpc_door.rpc import (
    ClientLeftError,
    Patience,
    RecordedError,
    unheard,
    was_cancelled,
)
from forebay.edges.grpc_door.tally import Tallies
from forebay.errors import EngineUnavailable, ForebayError, NotPermitted, status_of
from forebay.policy.context import unknown_model
from forebay.values import Decided, Failed, Ticket, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

    from forebay.corridor import Corridor
    from forebay.ports import Clock

    Call = aio.ServicerContext[Any, Any]
    Write = Callable[[kserve.ModelStreamInferResponse], Any]

log = structlog.get_logger("forebay.kserve")

MAX_PER_STREAM = 256
"""Requests of one ModelStreamInfer call that run at once; the next is read when one has ended."""

DOOR = "kserve"

DESCRIBED = "ensemble"
"""The model of Triton whose tensors the router's own models have."""

_DESCRIBE_S = 2.0
_CONTROL = (
    "the router lets nobody control an engine's repository, traces, logs or shared memory; "
    "ask Triton itself, from its own machine"
)


class InferenceService:
    """Answers Triton's inference protocol out of the corridor.

    Args:
        corridor: Where requests go.
        clock: The corridor's clock.
        names: What a client may name as a model, as of now.
        unready: Why nothing can be served now, or None.
        triton: Returns a Triton server to ask for the ensemble's tensors; None where there is none.
        stall_s: How long a client may leave a stream unread.
        refused: Called with the door and the reason of a refusal inside a stream.
    """

    def __init__(
        self,
        corridor: Corridor,
        clock: Clock,
        *,
        names: Callable[[], tuple[str, ...]],
        unready: Callable[[], str | None],
        triton: Callable[[], GRPCInferenceServiceStub | None],
        stall_s: float,
        refused: Callable[[str, str], None] = unheard,
    ) -> None:
        self._corridor = corridor
        self._clock = clock
        self._names = names
        self._unready = unready
        self._triton = triton
        self._stall_s = stall_s
        self._refused = refused
        self._tallies = Tallies(clock, self._all_names)

    # ---- what there is --------------------------------------------------------------------

    async def ServerLive(  # noqa: N802
        self, _message: Any, _context: Call
    ) -> kserve.ServerLiveResponse:
        """Return that the router runs."""
        return kserve.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, _message: Any, _context: Call
    ) -> kserve.ServerReadyResponse:
        """Return whether a request could be answered now."""
        return kserve.ServerReadyResponse(ready=self._unready() is None)

    async def ServerMetadata(  # noqa: N802
        self, _message: Any, _context: Call
    ) -> kserve.ServerMetadataResponse:
        """Return what this server is."""
        return kserve.ServerMetadataResponse(name="forebay", version=__version__)

    async def ModelReady(  # noqa: N802
        self, message: kserve.ModelReadyRequest, _context: Call
    ) -> kserve.ModelReadyResponse:
        """Return whether a model is known and could be asked now."""
        self._known(message.name, message.version)
        return kserve.ModelReadyResponse(ready=self._unready() is None)

    async def ModelMetadata(  # noqa: N802
        self, message: kserve.ModelMetadataRequest, _context: Call
    ) -> kserve.ModelMetadataResponse:
        """Return the ensemble's tensors under the name that was asked for."""
        self._known(message.name, message.version)
        described = await self._described("ModelMetadata", kserve.ModelMetadataRequest)
        answer = kserve.ModelMetadataResponse()
        answer.CopyFrom(described)
        answer.name, answer.platform = message.name, "forebay"
        answer.versions[:] = ["1"]
        return answer

    async def ModelConfig(  # noqa: N802
        self, message: kserve.ModelConfigRequest, _context: Call
    ) -> kserve.ModelConfigResponse:
        """Return the ensemble's config as the router's own: decoupled, without inner steps."""
        self._known(message.name, message.version)
        described = await self._described("ModelConfig", kserve.ModelConfigRequest)
        answer = kserve.ModelConfigResponse()
        answer.CopyFrom(described)
        config = answer.config
        config.name, config.platform, config.max_batch_size = message.name, "forebay", 1
        config.ClearField("ensemble_scheduling")
        config.model_transaction_policy.decoupled = True
        return answer

    async def ModelStatistics(  # noqa: N802
        self, message: kserve.ModelStatisticsRequest, _context: Call
    ) -> kserve.ModelStatisticsResponse:
        """Return what this door has answered since it started, by the model that was named."""
        if message.name:
            self._known(message.name, message.version)
        return self._tallies.response(message.name)

    async def refused(self, _message: Any, _context: Call) -> NoReturn:
        """Refuse what controls a server."""
        raise NotPermitted(_CONTROL)

    # ---- inference ------------------------------------------------------------------------

    async def ModelInfer(  # noqa: N802
        self, message: kserve.ModelInferRequest, context: Call
    ) -> kserve.ModelInferResponse:
        """Return the whole answer in one response."""
        with self._tallies.counting(message.model_name):
            asked = asked_of(message, arrival_of(context, self._clock))
            answers = Answers(asked)
            whole = await self._whole(asked, answers)
            return answers.piece(whole, final=True)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[kserve.ModelInferRequest], context: Call
    ) -> None:
        """Write the responses of many requests as they come; one that fails stops no other."""
        places = asyncio.Semaphore(MAX_PER_STREAM)
        turn = asyncio.Lock()
        async with Patience(self._stall_s) as patience:

            async def write(response: kserve.ModelStreamInferResponse) -> None:
                async with turn:
                    await patience.during(context.write(response))

            async def answer(message: kserve.ModelInferRequest) -> None:
                try:
                    await self._answer(message, context, write)
                finally:
                    places.release()

            try:
                async with asyncio.TaskGroup() as group:
                    async for message in requests:
                        await places.acquire()
                        group.create_task(answer(message))
            except ExceptionGroup as broken:
                raise broken.exceptions[0] from None

    async def _answer(self, message: kserve.ModelInferRequest, context: Call, write: Write) -> None:
        """Write the responses to one request of a stream, or the error that ends it."""
        try:
            with self._tallies.counting(message.model_name):
                asked = asked_of(message, arrival_of(context, self._clock))
                async with aclosing(self._responses(asked)) as responses:
                    async for response in responses:
                        await write(kserve.ModelStreamInferResponse(infer_response=response))
        except ClientLeftError:
            raise
        except RecordedError as ended:
            await write(failure(ended.error, message.id))
        except ForebayError as error:
            self._refused(DOOR, status_of(error).reason)
            await write(failure(error, message.id))
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled():
                raise
            log.exception("kserve.broke", request_id=request_id())
            await write(failure(error, message.id))

    async def _responses(self, asked: Asked) -> AsyncGenerator[kserve.ModelInferResponse, None]:
        """Yield the responses to one request; each is only good until the next is asked for."""
        answers = Answers(asked)
        if not asked.in_pieces:
            yield answers.piece(await self._whole(asked, answers), final=True)
            return
        async with aclosing(self._corridor.run(asked.request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    yield answers.piece(event)
                elif isinstance(event, Decided):
                    answers.decided(event)
                elif isinstance(event, Ticket):
                    answers.parked(event)
                elif isinstance(event, Failed):
                    raise RecordedError(event.error)
        yield answers.end()

    async def _whole(self, asked: Asked, answers: Answers) -> Token:
        """Return the whole answer as one token, with the prompt before it where asked for."""
        texts, tokens = [asked.echo], 0
        logprobs: list[float] = []
        async with aclosing(self._corridor.run(asked.request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    texts.append(event.text)
                    tokens += event.tokens
                    logprobs += event.logprobs
                elif isinstance(event, Decided):
                    answers.decided(event)
                elif isinstance(event, Ticket):
                    answers.parked(event)
                elif isinstance(event, Failed):
                    raise RecordedError(event.error)
        return Token("".join(texts), tokens, tuple(logprobs))

    # ---- names ----------------------------------------------------------------------------

    def _all_names(self) -> tuple[str, ...]:
        return (*self._names(), *ALIASES)

    def _known(self, name: str, version: str) -> None:
        """Refuse a name that is no model, and a version that is none of it."""
        names = self._all_names()
        if name not in names:
            raise unknown_model(name, names)
        known_version(name, version)

    async def _described(self, call: str, request: type) -> Any:
        """Return what Triton says of the ensemble."""
        if (triton := self._triton()) is None:
            raise EngineUnavailable("no Triton serves this policy; nothing describes its tensors")
        try:
            return await getattr(triton, call)(request(name=DESCRIBED), timeout=_DESCRIBE_S)
        except (grpc.RpcError, aio.BaseError):  # the latter when its channel is closed
            told = "Triton, which describes the ensemble's tensors, does not answer"
            raise EngineUnavailable(told) from None
