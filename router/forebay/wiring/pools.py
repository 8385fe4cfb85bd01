"""Pools of replicas kept as the world is: found, scraped, proven, owned and taken out again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc

from forebay.edges.replicas import DnsReplicas, FileReplicas, StaticReplicas
from forebay.edges.triton import CHANNEL_OPTIONS, Identity, TritonEngine
from forebay.edges.triton_metrics import MetricsScraper
from forebay.errors import ForebayError
from forebay.policy.admission import Coefficients, ReplicaSpec
from forebay.policy.admission.model import UNKNOWN, Speed
from forebay.values import Call, Request, Sampling, Text
from forebay.wiring.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.edges.admission import LoopAdmission
    from forebay.edges.triton import EngineFiles
    from forebay.policy.admission.replica import Replica
    from forebay.policy.ownership import Holding
    from forebay.policy.replicas import ReplicaAddress
    from forebay.policy.rules import Triton
    from forebay.ports import Clock

PROBE_PERIOD_S = 0.5
PROBE_DEADLINE_S = 5.0
LEAVING_S = 600.0
"""How long answers of a replica that was taken out may still run before its connection closes."""


@dataclass(slots=True)
class Member:
    """One replica of a pool, with all that talks to it."""

    address: ReplicaAddress
    channel: grpc.aio.Channel
    identity: Identity
    engine: TritonEngine
    replica: Replica
    scraping: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Pool:
    """The replicas that serve one engine, found as its rule says.

    `engines` is what targets answer with, by the replica's name; it changes as replicas do.
    `known` is how fast this build was in an earlier life of the router. `_holding` is what other
    routers leave to this one, if there are others.
    """

    name: str
    rule: Triton
    static: tuple[ReplicaAddress, ...]
    files: EngineFiles
    admission: LoopAdmission
    clock: Clock
    known: Speed | None = None
    engines: dict[str, TritonEngine] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    _holding: Holding | None = None
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)

    async def watch(self) -> None:
        """Keep the pool as it is found, and its members proven, until cancelled."""
        found = self._source()
        async with asyncio.TaskGroup() as watchers:
            watchers.create_task(found.run())
            watchers.create_task(self._prove())

    @property
    def build(self) -> str:
        """What is remembered of the engine goes by this: its manifest's digest, else its pool."""
        stated = self.files.stated
        return self.name if stated is None else stated.digest

    async def close(self) -> None:
        """Close every connection."""
        for task in self._leaving:
            task.cancel()
        for member in self.members.values():
            if member.scraping is not None:
                member.scraping.cancel()
            await member.channel.close()

    def unready(self) -> str | None:
        """Return why no member can be called yet, or None where one can."""
        if not self.members:
            return f"no replica of {self.name} has been found yet"
        wrong = next((m.identity.wrong for m in self.members.values() if m.identity.wrong), None)
        if any(m.replica.health.proven and not m.identity.wrong for m in self.members.values()):
            return None
        return wrong or f"the engine {self.name} does not answer yet"

    def held(self, holding: Holding) -> None:
        """Call only the replicas that other routers leave to this one, now and those to come.

        A holding of none means that none could be called when it was settled: until the next
        beat, one that answers meanwhile is shared blindly, or a router that is ready would refuse.
        """
        self._holding = holding
        for name, member in self.members.items():
            member.replica.ours = self._ours(name)
            self.admission.controller.changed(member.replica)
        self.admission.stirred()

    def _ours(self, name: str) -> bool:
        """Return whether a replica is left to this router, as last settled."""
        held = self._holding
        return held is None or not held.replicas or name in held.replicas

    def healthy(self) -> frozenset[str]:
        """Return the replicas that could be called, by name."""
        now_s = self.clock.now_s()
        return frozenset(n for n, m in self.members.items() if m.replica.health.takes(now_s))

    # ---- replicas come and go -------------------------------------------------------------

    def _source(self) -> StaticReplicas | DnsReplicas | FileReplicas:
        lookup = self.rule.lookup
        if lookup is None:
            return StaticReplicas(self.static, self._found)
        if lookup.file is not None:
            return FileReplicas(CHECKOUT / lookup.file, self._found)
        return DnsReplicas(lookup, self._found, self.clock)

    def _found(self, addresses: frozenset[ReplicaAddress]) -> None:
        """Take in who is there now, and let go of who is not."""
        known = {address.address: address for address in addresses}
        for name in [n for n, m in self.members.items() if known.get(n) != m.address]:
            self._leave(name)
        for name in sorted(known.keys() - self.members.keys()):
            self._join(known[name])
        self.admission.stirred()

    def _join(self, address: ReplicaAddress) -> None:
        name, model = address.address, self.rule.model
        channel = grpc.aio.insecure_channel(name, options=CHANNEL_OPTIONS)
        identity = Identity(channel, model, name, self.files.stated, self.clock)
        engine = TritonEngine(channel, model, self.files, self.clock, identity=identity)
        spec = replace(spec_of(name, self.name, self.files), known=self.known)
        replica = self.admission.controller.join(spec, self.clock.now_s())
        replica.ours = self._ours(name)
        member = Member(address, channel, identity, engine, replica)
        if address.metrics is not None:
            scraper = MetricsScraper(
                address.metrics,
                model,
                self.clock,
                own=lambda: replica.own,
                take=functools.partial(self.admission.scraped, replica),
            )
            member.scraping = asyncio.create_task(scraper.run())
        self.members[name], self.engines[name] = member, engine

    def _leave(self, name: str) -> None:
        """Send nothing more; what runs there ends, and then its connection is closed."""
        member = self.members.pop(name)
        del self.engines[name]
        self.admission.controller.leave(member.replica)
        if member.scraping is not None:
            member.scraping.cancel()
        closing = asyncio.create_task(member.channel.close(LEAVING_S))
        self._leaving.add(closing)
        closing.add_done_callback(self._leaving.discard)

    # ---- proof ------------------------------------------------------------------------------

    async def _prove(self) -> None:
        """Ask each replica that has failed, or never answered, for one token; over and over.

        Before that, each is asked whether it is the engine that this router was given, so that
        one that was replaced is not ready even while nobody calls it.
        """
        while True:
            self._still_scraped()
            await asyncio.gather(*(self._proven(m) for m in list(self.members.values())))
            await asyncio.sleep(PROBE_PERIOD_S)

    def _still_scraped(self) -> None:
        """Raise what ended a scraper: without one, load would be unknown for good and unsaid."""
        for member in self.members.values():
            if member.scraping is not None and member.scraping.done():
                member.scraping.result()

    async def _proven(self, member: Member) -> None:
        replica = member.replica
        with contextlib.suppress(ForebayError):
            await member.identity.require()
            if replica.health.proven:
                return
            began_s = self.clock.now_s()
            await self._answers(member.engine)
            replica.health = replica.health.served(self.clock.now_s(), began_s)
            self.admission.controller.changed(replica)
            self.admission.stirred()

    async def _answers(self, engine: TritonEngine) -> None:
        now_s = self.clock.now_s()
        request = Request("probe", "auto", Text("Ready"), now_s, Sampling(max_tokens=1))
        call = Call(request, await engine.prepare(request), 1, now_s + PROBE_DEADLINE_S)
        async for _ in engine.generate(call):
            pass


def spec_of(name: str, pool: str, files: EngineFiles) -> ReplicaSpec:
    """Return what admission is told of a replica, as its engine was built."""
    room = files.room
    return ReplicaSpec(
        name=name,
        pool=pool,
        kv_tokens=room.kv_tokens,
        max_batch=room.max_batch,
        step_tokens=room.step_tokens,
        prior=UNKNOWN if room.step_s is None else Coefficients(*room.step_s),
    )


def unready(pools: Iterable[Pool]) -> str | None:
    """Return what the first pool that cannot be called waits for, or None."""
    return next(filter(None, (pool.unready() for pool in pools)), None)
