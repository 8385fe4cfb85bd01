"""One model of a Triton server as an `Engine`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from forebay.edges.triton import tensors
from forebay.edges.triton.answer import AnswerText
from forebay.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    ForebayError,
    InvalidRequest,
    Overloaded,
)
from forebay.values import Chunk, Prepared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from forebay.edges.triton.files import EngineFiles
    from forebay.ports import Clock
    from forebay.values import Abilities, Call, Request

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

LONG_PROMPT_CHARS = 16_384
"""Longer prompts are tokenised on a thread: 16,384 characters take about 5 ms."""

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
        stall_s: float = STALL_S,
    ) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._model = model
        self._files = files
        self._clock = clock
        self._stall_s = stall_s

    @property
    def abilities(self) -> Abilities:
        """Return the limits that the engine was built with."""
        return self._files.abilities

    async def prepare(self, request: Request) -> Prepared:
        """Return the prompt's ids, by the model's own template and tokenizer."""
        text = self._files.template.text(request)
        if len(text) > LONG_PROMPT_CHARS:
            ids = await asyncio.to_thread(self._ids, text)
        else:
            ids = self._ids(text)
        if not ids:
            raise InvalidRequest("the prompt is empty")
        return Prepared(len(ids), tuple(ids))

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it is decoded; one chunk for each response of the engine."""
        request = call.request
        bad = [ids for word in request.sampling.bad for ids in self._spellings(word)]
        end_id = self._files.end_id if request.sampling.end_id is None else request.sampling.end_id
        ends = (end_id, self._files.pad_id)
        message = tensors.infer_request(self._model, call, request.guide, bad, ends)
        answer = AnswerText(self._files.tokenizer, request.sampling.stop)
        decoded, ended = 0, False
        stream = self._stub.ModelStreamInfer(timeout=self._left_s(call), metadata=_METADATA)
        stall = _Stall(stream, self._stall_s)
        try:
            await stream.write(message)
            await stream.done_writing()
            async for response in stream:
                stall.seen()
                if response.error_message:
                    raise _said(response.error_message, begun=decoded > 0)
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
                raise _said("it ended the stream before the answer", begun=decoded > 0)
            full = decoded >= call.max_tokens and not answer.stopped and not ended
            yield Chunk(answer.finish(), finish="length" if full else "stop")
        except grpc.aio.AioRpcError as error:
            raise _translated(error, begun=decoded > 0) from error
        except asyncio.CancelledError:
            if not stall.given_up:
                raise
            raise _said(f"it was silent for {self._stall_s:.0f} s", begun=decoded > 0) from None
        finally:
            stall.over()
            stream.cancel()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._files.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _spellings(self, word: str) -> list[list[int]]:
        """Return a word's ids at a text's start and inside it: the space belongs to a token."""
        return [self._ids(word), self._ids(f" {word}")]

    def _left_s(self, call: Call) -> float | None:
        return None if call.deadline_s is None else max(0.0, call.deadline_s - self._clock.now_s())


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


_CLIENTS_FAULT = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)


def _translated(error: grpc.aio.AioRpcError, *, begun: bool) -> ForebayError:
    """Return our error for a status of Triton; `begun` once it has sent a token."""
    code, sentence = error.code(), error.details() or "no reason was given"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed while the engine was answering")
    if code in _CLIENTS_FAULT:
        return InvalidRequest(sentence)
    return _said(sentence, begun=begun)


def _said(sentence: str, *, begun: bool) -> ForebayError:
    """Return our error for what Triton said without a status of its own."""
    if begun:
        return EngineFailed(f"the engine broke off: {sentence}")
    if "queue" in sentence:
        return Overloaded(f"the engine's queue is full: {sentence}", retry_after_s=1.0)
    return EngineUnavailable(f"the engine does not answer: {sentence}")
