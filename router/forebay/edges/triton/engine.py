"""One model of a Triton server as an `Engine`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from forebay.edges.triton import tensors
from forebay.edges.triton.answer import AnswerText
from forebay.edges.triton.prompts import Prompts
from forebay.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
)
from forebay.values import Chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.edges.triton.files import EngineFiles
    from forebay.edges.triton.identity import Identity
    from forebay.ports import Clock
    from forebay.values import Abilities, Call, Prepared, Request

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Without these a stream that its client does not read would fill megabytes here.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 << 10),
)

# Asks Triton to end a failed stream with a status code instead of a bare sentence.
_METADATA = (("triton_grpc_error", "true"),)

STALL_S = 30.0
"""An engine that sends nothing for so long is given up; its slowest step is far below."""


class TritonEngine:
    """Calls `tensorrt_llm` over `ModelStreamInfer`, one stream a request.

    A stream of its own is what makes cancellation reach the engine: closing `generate`
    cancels the call, and Triton tells the model.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        model: str,
        files: EngineFiles,
        clock: Clock,
        *,
        identity: Identity | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._model = model
        self._files = files
        self._prompts = Prompts(files)
        self._clock = clock
        self._identity = identity
        self._stall_s = stall_s

    @property
    def abilities(self) -> Abilities:
        """Return the limits that the engine was built with."""
        return self._prompts.abilities

    async def prepare(self, request: Request) -> Prepared:
        """Return the prompt's ids, by the model's own template and tokenizer."""
        return await self._prompts.prepare(request)

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is decoded; one chunk for each response of the engine."""
        request = call.request
        bad = [ids for word in request.sampling.bad for ids in self._spellings(word)]
        end_id = self._files.end_id if request.sampling.end_id is None else request.sampling.end_id
        ends = (end_id, self._files.pad_id)
        message = tensors.infer_request(self._model, call, request.guide, bad, ends)
        answer = AnswerText(self._files.tokenizer, request.sampling.stop)
        decoded, ended = 0, False
        if self._identity is not None:
            await self._identity.require(self._left_s(call))
        left_s = self._left_s(call)
        stream = self._opened(left_s)
        stall = _Stall(stream, self._stall_s)
        try:
            await stream.write(message)
            await stream.done_writing()
            async for response in stream:
                stall.seen()
                if response.error_message:
                    raise _said(None, response.error_message, begun=decoded > 0)
                ids = tensors.ids_of(response.infer_response)
                final = tensors.is_final(response.infer_response)
                ended = ended or end_id in ids[-1:]
                decoded += len(ids)
                text = answer.feed([token for token in ids if token != end_id])
                if ids or text:
                    logprobs = tensors.logprobs_of(response.infer_response)
                    yield Chunk(text, len(ids), None, logprobs)
                if answer.stopped or final:
                    break
            else:
                raise _said(None, "it ended the stream before the answer", begun=decoded > 0)
            full = decoded >= call.max_tokens and not answer.stopped and not ended
            yield Chunk(answer.finish(), finish="length" if full else "stop")
        except grpc.aio.AioRpcError as error:
            raise _translated(error, begun=decoded > 0) from error
        except grpc.aio.BaseError as error:
            # The call ended between two of our own writes; only its status says why.
            raise await self._ended(stream, call, begun=decoded > 0) from error
        except asyncio.CancelledError:
            if not stall.given_up:
                raise
            silent = f"it was silent for {self._stall_s:.0f} s"
            raise _said(None, silent, begun=decoded > 0) from None
        finally:
            stall.over()
            stream.cancel()

    def _left_s(self, call: Call) -> float | None:
        left_s = None if call.deadline_s is None else call.deadline_s - self._clock.now_s()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the engine was called")
        return left_s

    def _spellings(self, word: str) -> list[list[int]]:
        """Return a word's ids at a text's start and inside it: the space belongs to a token."""
        return [self._prompts.ids(word), self._prompts.ids(f" {word}")]

    def _opened(self, left_s: float | None) -> grpc.aio.StreamStreamCall[Any, Any]:
        stream: grpc.aio.StreamStreamCall[Any, Any]
        try:
            stream = self._stub.ModelStreamInfer(timeout=left_s, metadata=_METADATA)
        except grpc.aio.UsageError:
            raise EngineUnavailable("the router is closing its connection to the engine") from None
        return stream

    async def _ended(
        self, stream: grpc.aio.StreamStreamCall[Any, Any], call: Call, *, begun: bool
    ) -> ForebayError:
        if call.deadline_s is not None and call.deadline_s <= self._clock.now_s():
            return DeadlineExceeded(_TOO_LATE)
        return _said(await stream.code(), await stream.details() or _NO_REASON, begun=begun)


class _Stall:
    """Cancels a stream that was silent for one to two periods; a timer a period, none a token."""

    def __init__(self, stream: grpc.aio.StreamStreamCall[Any, Any], period_s: float) -> None:
        self._stream = stream
        self._period_s = period_s
        self._heard = True
        self.given_up = False
        self._timer = asyncio.get_running_loop().call_later(period_s, self._look)

    def seen(self) -> None:
        """Note that something came."""
        self._heard = True

    def over(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if not self._heard:
            self.given_up = True
            self._stream.cancel()
            return
        self._heard = False
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._look)


_TOO_LATE = "the deadline passed while the engine was answering"
_NO_REASON = "no reason was given"
_QUEUE_FULL = ("queue is full", "maximum queue size")
"""What the embedded engine and Triton's own scheduler say when their bounded queue refuses."""

_CLIENTS_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


def _translated(error: grpc.aio.AioRpcError, *, begun: bool) -> ForebayError:
    """Return our error for a status of Triton; `begun` once it has sent a token."""
    code, sentence = error.code(), error.details() or _NO_REASON
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(_TOO_LATE)
    if code in _CLIENTS_FAULT:
        return InvalidRequest(sentence)
    return _said(code, sentence, begun=begun)


def _said(code: grpc.StatusCode | None, sentence: str, *, begun: bool) -> ForebayError:
    """Return our error for what Triton said; `code` is None where it gave no status."""
    if begun:
        return EngineFailed(f"the engine broke off: {sentence}")
    full = any(words in sentence for words in _QUEUE_FULL)
    if full and code in (None, grpc.StatusCode.UNAVAILABLE):
        return Overloaded(f"the engine's queue is full: {sentence}", retry_after_s=1.0)
    return EngineUnavailable(f"the engine does not answer: {sentence}")
