"""The gRPC user: `forebay.v1.Router/Generate`, every event noted at the moment it is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc import aio

from forebay.v1 import router_pb2 as pb
from loadtest.outcome import Move
from loadtest.watch import Watch, watched

if TYPE_CHECKING:
    from loadtest.generator import RunClock
    from loadtest.outcome import Outcome
    from loadtest.work import Job

METHOD = "/forebay.v1.Router/Generate"
CHANNELS = 4
"""One HTTP/2 connection would make all streams share one flow-control window."""

LOCAL = ("grpc.use_local_subchannel_pool", 1)
SLOW = [LOCAL, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
"""Slow readers have a connection with a window of 1 KiB for each stream: the router is held up."""

REFUSED = "RESOURCE_EXHAUSTED"
PREDICTIONS = ("predicted_ttft_ms", "predicted_tpot_ms")


class GrpcSender:
    """Sends jobs to one router; use it as an asynchronous context."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channels: list[aio.Channel] = []
        self._calls: list[Any] = []

    async def __aenter__(self) -> Self:
        """Open the channels."""
        for options in (*[[LOCAL]] * CHANNELS, SLOW):
            channel = aio.insecure_channel(self._address, options=options)
            self._channels.append(channel)
            self._calls.append(
                channel.unary_stream(
                    METHOD,
                    request_serializer=pb.GenerateRequest.SerializeToString,
                    response_deserializer=pb.GenerateEvent.FromString,
                )
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    async def ready(self, within_s: float = 10.0) -> bool:
        """Return whether every channel connects within the time."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        except TimeoutError:
            return False
        return True

    async def send(self, job: Job, clock: RunClock) -> Outcome:
        """Return the outcome of one job."""
        message = request(job)
        watch = Watch(job, clock)
        which = CHANNELS if job.gap_s else job.number % CHANNELS
        call = self._calls[which](message, timeout=job.patience_s)
        return await watched(watch, self._read(call, watch))

    async def _read(self, call: Any, watch: Watch) -> Outcome:
        done, error = False, None
        try:
            while (event := await call.read()) is not aio.EOF:
                kind = event.WhichOneof("event")
                if kind == "token":
                    if watch.came(event.token.tokens):
                        return watch.outcome("hung_up")
                    if watch.job.gap_s:
                        await asyncio.sleep(watch.job.gap_s)
                elif kind == "done":
                    done = True
                    _finish(watch, event.done)
                elif kind == "error":
                    error = event.error
                else:
                    _note(watch, kind, event)
        except aio.AioRpcError as failure:
            return _failed(watch, failure, error)
        finally:
            if not call.done():
                call.cancel()
        if done:
            return watch.outcome("served")
        return watch.outcome("failed", "NO_END", "the stream ended without done or error")


def request(job: Job) -> pb.GenerateRequest:
    """Return the message of a job; `min_tokens` keeps its answer at the length that was drawn."""
    sampling = pb.Sampling(max_tokens=job.max_tokens, temperature=0)
    if job.exact:
        sampling.min_tokens = job.max_tokens
    made = pb.GenerateRequest(model=job.model, sampling=sampling)
    made.messages.add(role="user", content=job.prompt)
    for label, value in job.labels.items():
        setattr(made.context.labels, label, value)
    if job.deadline_ms is not None:
        made.context.deadline_ms = job.deadline_ms
    return made


def _note(watch: Watch, kind: str | None, event: Any) -> None:
    if kind != "decision":
        return
    said = event.decision
    watch.moves.append(Move(said.move, said.target, said.reason))
    watch.prompt_tokens = said.prompt_tokens or watch.prompt_tokens
    told = {name: getattr(said, name) for name in PREDICTIONS if said.HasField(name)}
    watch.predicted = {"queued_ms": said.queued_ms, **told}


def _finish(watch: Watch, done: Any) -> None:
    watch.prompt_tokens = done.prompt_tokens or watch.prompt_tokens
    watch.tokens = done.completion_tokens or watch.tokens
    if done.HasField("ttft_ms"):
        watch.router_ttft_ms = done.ttft_ms


def _failed(watch: Watch, failure: aio.AioRpcError, error: Any) -> Outcome:
    code = failure.code().name
    reason = error.reason if error is not None else ""
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return watch.outcome("refused", code, reason)
    return watch.outcome("failed", code, reason)
