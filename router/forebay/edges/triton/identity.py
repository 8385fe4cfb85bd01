"""Whether the engine behind a connection is the one whose files the router reads.

The router may share no disk with Triton, so it asks over ModelConfig: the builder put what the
manifest says into the model's parameters. It asks on each new connection, and now and then on one
that stands, since Triton can load another engine without closing it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import structlog
from tritonclient.grpc import service_pb2, service_pb2_grpc

from forebay.edges.triton.manifest import DIGEST, READ
from forebay.errors import DeadlineExceeded, EngineUnavailable, ForebayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.edges.triton.manifest import Stated
    from forebay.ports import Clock

AGAIN_S = 2.0
"""How long an answer holds on one connection. Asking takes 1 to 2 ms."""

ANSWER_S = 5.0
"""How long Triton may take to answer; it does so beside its engines and not behind them."""

REFUSED = "the engine is not the one this router was given; /readyz of the router says what differs"
"""What a client is told; paths and addresses are the operator's."""

_OURS = "engine_"
_HASHES = ("digest", "sha256")
_NO_GPU = {"engine_sm": "none"}
_SHOWN = 12
_NAMED = 5

_log = structlog.get_logger("forebay.engines")


class Identity:
    """What one model of one Triton server is, against what a manifest states."""

    def __init__(
        self, channel: grpc.aio.Channel, model: str, where: str, stated: Stated | None, clock: Clock
    ) -> None:
        """Compare the model with `stated`; `where` is the server's address, for sentences."""
        self._channel = channel
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._model = model
        self._where = where
        self._stated = stated
        self._clock = clock
        self._asked_s: float | None = None
        self._asking: asyncio.Task[ForebayError | None] | None = None
        self.wrong: str | None = None
        """Why the engine must not be called, for an operator; None while nothing says so."""

    async def require(self, left_s: float | None = None) -> None:
        """Pass if the engine is the stated one; asks Triton unless it has just answered.

        Args:
            left_s: How long the caller can wait, in seconds.

        Raises:
            EngineUnavailable: it is another engine, or Triton does not answer.
            DeadlineExceeded: the caller could not wait for the answer.
        """
        if not self._known():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._ask())
            try:
                # All who wait share one question; one who gives up does not take it back.
                error = await asyncio.wait_for(asyncio.shield(self._asking), left_s)
            except TimeoutError:
                raise DeadlineExceeded("the deadline passed before the engine was known") from None
            if error is not None:
                raise error
        if self.wrong is not None:
            raise EngineUnavailable(REFUSED)

    def _known(self) -> bool:
        """Return whether Triton answered on this very connection, and not long ago."""
        if self._asked_s is None or self._clock.now_s() - self._asked_s > AGAIN_S:
            return False
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def _ask(self) -> ForebayError | None:
        """Learn what Triton serves; returns why it could not be learnt, and never raises."""
        self._asked_s = None
        request = service_pb2.ModelConfigRequest(name=self._model)
        served: Mapping[str, str] = {}
        try:
            answer = await self._stub.ModelConfig(request, timeout=ANSWER_S)
            found = answer.config.parameters
            served = {name: found[name].string_value for name in found if name.startswith(_OURS)}
        except grpc.aio.AioRpcError as error:
            # A server that has no ModelConfig is like one that names no engine.
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                self._note(None)
                return EngineUnavailable(f"the engine does not answer: {error.details()}")
        except (grpc.aio.BaseError, grpc.aio.UsageError):
            return EngineUnavailable("the router is closing its connection to the engine")
        self._asked_s = self._clock.now_s()
        self._note(mismatch(self._model, self._where, self._stated, served))
        return None

    def _note(self, wrong: str | None) -> None:
        if wrong is not None and wrong != self.wrong:
            _log.error("engine refused", reason=wrong)
        self.wrong = wrong


def mismatch(
    model: str, where: str, stated: Stated | None, served: Mapping[str, str]
) -> str | None:
    """Return why the served engine is not the stated one, or None where nothing says so.

    Args:
        model: The model's name in Triton.
        where: Triton's address.
        stated: What the manifest that the router reads says; None without a manifest.
        served: The parameters `engine_*` of the model's configuration.
    """
    if DIGEST not in served:
        if stated is None:
            return None  # made by other means: the operator vouches for its tokenizer and limits
        return (
            f"{model} at {where} does not say which engine it is (its config.pbtxt has no "
            f"{DIGEST}), and the router was given {stated.digest[:_SHOWN]} in {stated.folder}. "
            "Serve a repository that `forebay engines build` installed; for an engine made by "
            f"other means, take manifest.json out of {stated.folder}"
        )
    if stated is None:
        return (
            f"{model} at {where} is engine {served[DIGEST][:_SHOWN]}, and the router's directory "
            "for it has no manifest.json to compare it with. Copy it from that engine's directory "
            "and restart the router"
        )
    said, served = {**_NO_GPU, **stated.parameters}, {**_NO_GPU, **served}
    differ = [name for name in said if name in served and served[name] != said[name]]
    if not differ:
        return None
    told = "; ".join(
        f"{name.removeprefix(_OURS)} is {_short(name, served[name])} there and "
        f"{_short(name, said[name])} here"
        for name in (*differ[:_NAMED], *differ[_NAMED:][-1:])
    )
    return (
        f"{model} at {where} is another engine than the one in {stated.folder}: {told}. Install "
        "this engine where that Triton loads its models and restart Triton, or copy "
        f"manifest.json, {', '.join(READ)} from that engine's directory into this one and restart "
        "the router"
    )


def _short(name: str, value: str) -> str:
    return value[:_SHOWN] if name.endswith(_HASHES) else value
