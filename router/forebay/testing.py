"""Fakes of every port, for tests of anything that stands on the corridor.

They keep the ports' promises (the contract suite runs against them too) and add only what a
test needs: scripts, clocks that are moved by hand, counters that can be read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forebay.edges.admission import LoopAdmission
from forebay.errors import DeadlineExceeded, InvalidRequest
from forebay.house import House
from forebay.policy.admission import CloudBreakers, Controller, ReplicaSpec
from forebay.policy.admission.book import places
from forebay.policy.choose import Policy
from forebay.policy.rules import HUMAN, Document
from forebay.values import Abilities, Chunk, Prepared, Request, Scrape, Text, Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence

    from forebay.ports import Clock, Engine, Ledger
    from forebay.values import Call, Record

PATIENT_S = 60.0
"""What a verifier may take in a house of fakes: a busy machine is no reason for a verdict."""

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


def admitting(policy: Policy, clock: Clock, busy: Mapping[str, int] | None = None) -> LoopAdmission:
    """Return the router's own admission over one replica for each target that is an engine.

    Args:
        policy: Whose targets and limits.
        clock: The same as the house's.
        busy: How many requests of others are in each target's engine, as if scraped just now.
    """
    pools = {name: name if target.is_engine else "" for name, target in policy.targets.items()}
    controller = Controller(places(policy, pools), outside=CloudBreakers())
    now_s = clock.now_s()
    for pool in filter(None, pools.values()):
        replica = controller.join(ReplicaSpec(pool, pool), now_s)
        controller.scraped(replica, Scrape(now_s, active=(busy or {}).get(pool, 0)), 0)
    return LoopAdmission(controller, clock)


@dataclass(slots=True)
class FakePerson:
    """A person who never comes: each request gets a ticket, and waits."""

    error: Exception | None = None
    abilities: Abilities = ABILITIES
    cases: dict[str, Call] = field(default_factory=dict)

    async def prepare(self, _request: Request) -> Prepared:
        """Return that a person counts no tokens."""
        return Prepared(0)

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Keep the case and give its ticket."""
        if self.error is not None:
            raise self.error
        ticket = Ticket(f"t-{len(self.cases) + 1}")
        self.cases[ticket.id] = call
        yield Chunk(finish="ticket", ticket=ticket)

    async def find(self, ticket_id: str) -> Ticket | None:
        """Return a ticket that was given."""
        return Ticket(ticket_id) if ticket_id in self.cases else None


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
    busy: Mapping[str, int] | None = None,
    ledger: Ledger | None = None,
    person: FakePerson | None = None,
) -> House:
    """Return a house of fakes, any of which a test may bring itself; `busy` as in `admitting`."""
    made, time = policy(document), clock or LoopClock()
    called, person = {"local": FakeEngine()} if engines is None else engines, person or FakePerson()
    return House(
        made,
        {HUMAN: person, **called},
        admitting(made, time, busy),
        time,
        ledger or MemoryLedger(),
        person,
        verifier_budget_s=PATIENT_S,
    )


def held(house: House) -> int:
    """Return how many places admission counts as taken."""
    assert isinstance(house.admission, LoopAdmission)
    return house.admission.controller.state.by_target.total()


def request(text: str = "Say hello", **changed: Any) -> Request:
    """Return a request for `auto`, changed as a test says."""
    made = Request(id="r-1", model="auto", prompt=Text(text), received_s=0.0)
    return replace(made, **changed)
