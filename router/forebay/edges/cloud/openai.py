"""A model behind OpenAI's API, or behind a server that speaks it, as an `Engine`.

The official SDK sends the request; it retries nothing. The body is passed to its `post` whole:
`create` walks it against types for each message, which stops the event loop for a long chat. The
stream is read in `wire`: the SDK takes lines of any length, and does not tell a stream that ended
from one that was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, cast

import httpx2
import orjson
from openai import APIConnectionError, AsyncOpenAI, AsyncStream, Omit

from forebay.edges.cloud import asked, wire
from forebay.edges.cloud.answer import Answer, Malformed
from forebay.edges.cloud.faults import Faults, retry_after_s
from forebay.edges.cloud.keys import NoKey
from forebay.edges.cloud.sse import TooLong
from forebay.errors import ForebayError
from forebay.values import Abilities, Chunk, Prepared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from forebay.edges.cloud.keys import Key
    from forebay.policy.rules import Cloud
    from forebay.ports import Clock
    from forebay.values import Call, Request

OPENAI_URL = "https://api.openai.com/v1"
"""Said outright: the SDK would take another from a variable of its own."""

ABILITIES = Abilities(max_input_tokens=1 << 20, max_seq_tokens=1 << 21)
"""Above any provider's context: theirs is not told by the API, and their refusal names it.

No guide counts as enforced. OpenAI enforces some schemas; a server that speaks its API may
ignore `response_format` altogether, and a verifier that trusted it would fail open.
"""

STALL_S = 60.0
"""A provider that sends nothing for so long is given up; reasoning models think in silence."""

TAIL_S = 2.0
"""How long an answer that is whole waits for its usage."""

END_S = 0.05
"""How long it waits, after `[DONE]`, for the end that lets the connection serve again."""

HEAD_BYTES = 1 << 20
TOKEN_BYTES = 4 << 10
"""A stream may be `HEAD_BYTES` long, and this for each token that was asked for."""


class OpenAIEngine:
    """Calls one model by chat completions, on one connection for each answer under way.

    Closing `generate` closes that connection, which is how the provider learns of it.
    """

    def __init__(
        self, target: str, cloud: Cloud, key: Key | None, clock: Clock, *, stall_s: float = STALL_S
    ) -> None:
        self._faults = Faults(target, key)
        self._model = cloud.model
        self._compatible = cloud.base_url is not None
        self._key = key
        self._clock = clock
        self._stall_s = stall_s
        url = cloud.base_url or OPENAI_URL
        # The key is none: each request brings its own, read when it is sent.
        self._sdk = _Sdk(api_key="-", base_url=url, max_retries=0, http_client=wire.client(url))

    @property
    def abilities(self) -> Abilities:
        """Return limits that no provider's model exceeds, and no guide."""
        return ABILITIES

    async def prepare(self, request: Request) -> Prepared:
        """Return an estimate of the prompt's tokens, and no ids."""
        asked.response_format(request)
        return Prepared(asked.estimated_tokens(request))

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it comes, one chunk for each of the provider's.

        Raises:
            Declined: the provider or its model would not answer this.
        """
        patience = wire.Patience(self._faults, self._clock, call.deadline_s, self._stall_s)
        patience.check()
        answer = Answer(call.request.id)
        try:
            async with self._stream(call, patience) as stream:
                while answer.finish is None and (events := await stream.next()) is not None:
                    for name, data in events:
                        chunk = answer.feed(data, failed=name == b"error")
                        self._check(answer, patience)
                        if chunk is not None:
                            patience.begun = True
                            yield chunk
                await _tail(stream, answer)
            yield answer.last()
        except (Malformed, TooLong) as error:
            why = str(error) or "it sent more than an answer can be"
            raise self._faults.broke(why, begun=patience.begun) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    @asynccontextmanager
    async def _stream(self, call: Call, patience: wire.Patience) -> AsyncIterator[wire.EventStream]:
        """Yield the stream that answers a call; the connection is closed if it is left early."""
        opening = self._sdk.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            body=asked.params(call, self._model, compatible=self._compatible),
            options={"headers": {"Authorization": self._authorization()}},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        try:
            # `cast_to` makes it a response, whatever the SDK's types say of a stream.
            response = cast("httpx2.Response", await patience.within(opening))
        except wire.Refusal as refusal:
            raise self._refused(refusal) from None
        except APIConnectionError as error:
            raise self._faults.unavailable(wire.reason(error)) from None
        async with aclosing(response):
            kind = response.headers.get("content-type", "")
            if kind and not kind.startswith("text/event-stream"):
                raise self._faults.unavailable(f"it sent {kind[:60]} in place of a stream")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise self._faults.unavailable("it compressed the stream, though asked not to")
            yield wire.EventStream(response, patience, HEAD_BYTES + TOKEN_BYTES * call.max_tokens)

    def _authorization(self) -> str | Omit:
        if self._key is None:
            return Omit()
        try:
            return f"Bearer {self._key.value()}"
        except NoKey as error:
            raise self._faults.unavailable(str(error)) from None

    def _check(self, answer: Answer, patience: wire.Patience) -> None:
        """Raise what the stream itself says against the answer."""
        if answer.declined is not None:
            raise self._faults.declined(answer.declined)
        if answer.error is None:
            return
        told = self._faults.told(0, answer.error)
        if patience.begun:
            raise self._faults.broke(told.sentence or "it sent an error", begun=True)
        raise self._faults.refused(told)

    def _refused(self, refusal: wire.Refusal) -> ForebayError:
        try:
            said: object = orjson.loads(refusal.body)
        except orjson.JSONDecodeError:
            said = None  # some proxy's page: its markup tells nobody anything
        later_s = retry_after_s(refusal.headers, self._clock.wall_s())
        return self._faults.refused(self._faults.told(refusal.status, said, later_s))


class _Sdk(AsyncOpenAI):
    """The SDK without what it adds of the environment: OPENAI_* variables and the platform."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        """Return the headers of every request."""
        return {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": self.user_agent,
        }


async def _tail(stream: wire.EventStream, answer: Answer) -> None:
    """Read the usage and the end, which frees the connection; a whole answer stays whole."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, ForebayError, Malformed, TooLong):
        async with asyncio.timeout(END_S if stream.done else TAIL_S) as timer:
            while (events := await stream.next()) is not None:
                for _, data in events:
                    answer.feed(data)
                if stream.done:
                    timer.reschedule(loop.time() + END_S)
