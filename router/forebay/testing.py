"""Fakes of every port, for tests of anything that stands on the corridor.

They keep the ports' promises (the contract suite runs against them too) and add only what a
test needs: scripts, clocks that are moved by hand, counters that can be read.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forebay.errors import DeadlineExceeded, InvalidRequest
from forebay.house import House
from forebay.policy.choose import Policy
from forebay.policy.rules import Document
from forebay.values import Abilities, Chunk, EngineLoad, Prepared, Request, Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence

    from forebay.ports import Clock, Engine, Fleet, Ledger
    from forebay.values import Call, Record

ABILITIES = Abilities(8191, 8192, frozenset({"json", "json_schema", "regex"}))


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.time_s = now_s

    def now_s(self) -> float:
        """Return the time the test has set."""
        return self.time_s

    def wall_s(self) -> float:
        """Return the same, as if the epoch were the start."""
        return self.time_s


class LoopClock:
    """The running event loop's own clock, for tests with real waiting."""

    def now_s(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        """Return the same."""
        return self.now_s()


@dataclass(slots=True)
class FakeEngine:
    """An engine that says its script, a chunk for each word, or raises what it is given.

    Args:
        script: words to say; `finish` comes on a last, empty chunk.
        error: raised after `error_after` words.
        gap_s: real seconds before each word.
        hang: after the script, wait until closed.
    """

    script: Sequence[str] = ("Hello", ",", " world", ".")
    finish: str = "stop"
    error: Exception | None = None
    error_after: int = 0
    gap_s: float = 0.0
    hang: bool = False
    abilities: Abilities = ABILITIES
    calls: list[Call] = field(default_factory=list)
    running: int = 0
    closed: int = 0

    async def prepare(self, request: Request) -> Prepared:
        """Return one id for each word of the prompt."""
        prompt = request.prompt
        parts = [prompt.text] if isinstance(prompt, Text) else [m.content for m in prompt.messages]
        words = " ".join(parts).split()
        if not words:
            raise InvalidRequest("the prompt is empty")
        return Prepared(len(words), tuple(range(len(words))))

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Say the script."""
        self.calls.append(call)
        self.running += 1
        try:
            for said, word in enumerate(self.script[: call.max_tokens]):
                if self.error is not None and said == self.error_after:
                    raise self.error
                await _until(call, asyncio.sleep(self.gap_s))
                yield Chunk(word, 1)
            if self.error is not None:
                raise self.error
            if self.hang:
                await _until(call, asyncio.Event().wait())
            yield Chunk(finish="length" if len(self.script) > call.max_tokens else self.finish)  # type: ignore[arg-type]
        finally:
            self.running -= 1
            self.closed += 1


async def _until(call: Call, waited: Coroutine[Any, Any, object]) -> None:
    """Wait, but no longer than the call's deadline on the loop's clock."""
    try:
        left_s = call.deadline_s and call.deadline_s - asyncio.get_running_loop().time()
        await asyncio.wait_for(waited, left_s)
    except TimeoutError:
        raise DeadlineExceeded("the deadline passed while the engine was answering") from None


@dataclass(slots=True)
class FakeLease:
    """A slot of `FakeFleet`."""

    fleet: FakeFleet
    target: str
    held: bool = True

    def release(self) -> None:
        """Give the slot back."""
        if self.held:
            self.held = False
            self.fleet.held[self.target] -= 1


@dataclass(slots=True)
class FakeFleet:
    """A fleet whose loads a test states; own requests are counted on top."""

    loads: dict[str, EngineLoad] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def load(self, target: str, route: str) -> EngineLoad:  # noqa: ARG002 - one class is enough here
        """Return the stated load plus what is held."""
        stated = self.loads.get(target, EngineLoad())
        own = stated.own + self.held[target]
        return replace(stated, own=own, own_of_class=stated.own_of_class + self.held[target])

    def reserve(self, target: str, route: str) -> FakeLease:  # noqa: ARG002
        """Count a slot."""
        self.held[target] += 1
        return FakeLease(self, target)

    def failed(self, target: str) -> None:
        """Note a failure."""
        self.failures.append(target)

    def served(self, target: str) -> None:
        """Note an answer."""
        self.answers.append(target)


@dataclass(slots=True)
class MemoryLedger:
    """A ledger that can be read."""

    records: list[Record] = field(default_factory=list)

    def append(self, record: Record) -> None:
        """Keep a record."""
        self.records.append(record)


def policy(document: Mapping[str, Any] | None = None) -> Policy:
    """Return a policy of a plain mapping; by default one local target answers everything."""
    return Policy(Document.model_validate(document or DOCUMENT), "test")


DOCUMENT: dict[str, Any] = {
    "models": {"local": {"triton": {}}},
    "default": {"model": "local"},
}


def house(
    engines: Mapping[str, Engine] | None = None,
    document: Mapping[str, Any] | None = None,
    *,
    clock: Clock | None = None,
    fleet: Fleet | None = None,
    ledger: Ledger | None = None,
) -> House:
    """Return a house of fakes, any of which a test may bring itself."""
    return House(
        policy(document),
        {"local": FakeEngine()} if engines is None else engines,
        fleet or FakeFleet(),
        clock or LoopClock(),
        ledger or MemoryLedger(),
    )


def request(text: str = "Say hello", **changed: Any) -> Request:
    """Return a request for `auto`, changed as a test says."""
    made = Request(id="r-1", model="auto", prompt=Text(text), received_s=0.0)
    return replace(made, **changed)
