"""What is the same for every provider: one stream is opened, read within bounds, and closed.

A provider's official SDK sends the request and retries nothing. The stream is read in `wire`: the
SDKs take lines of any length, and do not tell a stream that ended from one that was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import orjson

from forebay.edges.cloud import prompts, wire
from forebay.edges.cloud.faults import Faults, retry_after_s
from forebay.edges.cloud.keys import NoKey
from forebay.edges.cloud.parts import Malformed
from forebay.edges.cloud.sse import TooLong
from forebay.errors import DeadlineExceeded, ForebayError, Overloaded
from forebay.values import Abilities, Prepared

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    import httpx2

    from forebay.edges.cloud.keys import Key
    from forebay.edges.cloud.parts import Answer
    from forebay.policy.rules import Cloud
    from forebay.ports import Clock
    from forebay.values import Call, Chunk, Request

UNTOLD = Abilities(max_input_tokens=1 << 20, max_seq_tokens=1 << 21)
"""Above any provider's context: theirs is not told by the API, and their refusal names it."""

STALL_S = 60.0
"""A provider that sends nothing for so long is given up; reasoning models think in silence."""

IDLE_S = 600.0
"""One that sends signs of life and nothing of the answer is given up after so long."""

TAIL_S = 2.0
"""How long an answer that is whole waits for its usage."""

END_S = 0.05
"""How long it waits, after the last event, for the end that lets the connection serve again."""

HEAD_BYTES = 1 << 20
TOKEN_BYTES = 4 << 10
"""A stream may be `HEAD_BYTES` long, and this for each token that was asked for."""


class Watch(Protocol):
    """Is told what the end of a call does not tell of its provider."""

    def full(self, target: str, later_s: float, sent_s: float) -> None:
        """Note that a provider said to a call sent at `sent_s`: full, come back in `later_s`."""
        ...

    def silent(self, target: str, sent_s: float) -> None:
        """Note that a call sent at `sent_s` was cut short before anything of an answer came."""
        ...


class Unwatched:
    """Takes no note."""

    def full(self, target: str, later_s: float, sent_s: float) -> None:
        """Take no note."""

    def silent(self, target: str, sent_s: float) -> None:
        """Take no note."""


class ProviderEngine:
    """An `Engine` over a provider's stream of events, on one connection for each answer.

    Closing `generate` closes that connection, which is how the provider learns of it. No guide
    counts as enforced: a provider enforces some schemas, a server that speaks its API may ignore
    them all, and a verifier that trusted either would fail open.
    """

    def __init__(
        self,
        target: str,
        cloud: Cloud,
        key: Key | None,
        clock: Clock,
        *,
        abilities: Abilities = UNTOLD,
        stall_s: float = STALL_S,
        first_s: float | None = None,
        idle_s: float = IDLE_S,
        watch: Watch | None = None,
    ) -> None:
        """Know a model at a provider; nothing is connected yet.

        Args:
            target: Its name in the policy, for errors.
            cloud: Where it is.
            key: What opens it; None where nothing has to.
            clock: The corridor's clock.
            abilities: The context it has.
            stall_s: How long it may be silent inside an answer.
            first_s: How long before it; by default the same.
            idle_s: How long it may add nothing to an answer, silent or not.
            watch: Who is told of a provider that is full or silent.
        """
        self.abilities = abilities
        self._target = target
        self._watch = watch or Unwatched()
        first_s = stall_s if first_s is None else first_s
        self._waits = wire.Waits(first_s, stall_s, max(idle_s, first_s))
        self._faults = Faults(target, key)
        self._model = cloud.model
        self._compatible = cloud.base_url is not None
        self._key = key
        self._clock = clock
        self._connect(cloud.base_url)

    # ---- what each provider says for itself -------------------------------------------------

    def _connect(self, base_url: str | None) -> None:
        """Make the SDK's client; no connection is opened yet."""
        raise NotImplementedError

    def _suits(self, request: Request) -> None:
        """Raise `InvalidRequest` where the provider cannot be told a part of the request."""
        raise NotImplementedError

    def _answer(self, request_id: str) -> Answer:
        """Return what reads an answer's events."""
        raise NotImplementedError

    async def _send(self, call: Call) -> httpx2.Response:
        """Return the response whose body is the stream; it is not read yet.

        Raises:
            Refusal: the response is an error.
            NoKey: there is none.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    # ---- the port ---------------------------------------------------------------------------

    async def prepare(self, request: Request) -> Prepared:
        """Return an estimate of the prompt's tokens, and no ids."""
        self._suits(request)
        return Prepared(prompts.estimated_tokens(request))

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer as it comes, one chunk for each of the provider's.

        Raises:
            Declined: the provider or its model would not answer this.
        """
        patience = wire.Patience(self._faults, self._clock, call.deadline_s, self._waits)
        patience.check()
        answer, said = self._answer(call.request.id), 0
        with self._telling(patience):
            async with self._stream(call, patience) as stream:
                while answer.finish is None and (events := await stream.next()) is not None:
                    for name, data in events:
                        if answer.finish is not None:
                            _after(answer, data)
                            continue
                        chunk = answer.feed(data, failed=name == b"error")
                        self._check(answer, patience)
                        if chunk is not None:
                            patience.moved()
                            said += chunk.tokens
                            spent = answer.spent(said)
                            yield chunk if spent is None else replace(chunk, usage=spent)
                await _tail(stream, answer)
            yield answer.last()

    @contextmanager
    def _telling(self, patience: wire.Patience) -> Iterator[None]:
        """Translate what breaks an answer, and tell the watch what it should know."""
        try:
            yield
        except (Malformed, TooLong) as error:
            why = str(error) or "it sent more than an answer can be"
            raise self._faults.broke(why, begun=patience.begun) from None
        except Overloaded as full:
            self._watch.full(self._target, full.retry_after_s or 0.0, patience.began_s)
            raise
        except (asyncio.CancelledError, DeadlineExceeded):
            if not patience.begun:
                self._watch.silent(self._target, patience.began_s)
            raise

    @asynccontextmanager
    async def _stream(self, call: Call, patience: wire.Patience) -> AsyncIterator[wire.EventStream]:
        """Yield the stream that answers a call; the connection is closed if it is left early."""
        try:
            response = await patience.within(self._send(call))
        except wire.Refusal as refusal:
            raise self._refused(refusal) from None
        except NoKey as error:
            raise self._faults.unavailable(str(error)) from None
        async with aclosing(response):
            kind = response.headers.get("content-type", "")
            if kind and not kind.startswith("text/event-stream"):
                raise self._faults.unavailable(f"it sent {kind[:60]} in place of a stream")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise self._faults.unavailable("it compressed the stream, though asked not to")
            yield wire.EventStream(response, patience, HEAD_BYTES + TOKEN_BYTES * call.max_tokens)

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


def hushed(name: str) -> None:
    """Let an SDK log nothing below errors: its debug lines hold prompts, one of them the key.

    Each SDK has a variable that turns them on; a variable must not undo what a policy promises.
    """
    logging.getLogger(name).setLevel(logging.ERROR)


def _after(answer: Answer, data: bytes) -> None:
    """Take in what comes after an answer's end: its usage; a whole answer stays whole."""
    with contextlib.suppress(Malformed):
        answer.feed(data)


async def _tail(stream: wire.EventStream, answer: Answer) -> None:
    """Read the usage and the end, which frees the connection."""
    loop = asyncio.get_running_loop()

    def over() -> bool:
        return stream.done or answer.done

    with contextlib.suppress(TimeoutError, ForebayError, TooLong):
        async with asyncio.timeout(END_S if over() else TAIL_S) as timer:
            while (events := await stream.next()) is not None:
                for _, data in events:
                    _after(answer, data)
                if over():
                    timer.reschedule(loop.time() + END_S)
