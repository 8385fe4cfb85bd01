"""Pools of replicas kept as the world is: found, scraped, proven, owned and taken out again."""

from __future__ import annotations

import asyncio
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
from forebay.policy.health import FAULTS, RULES
from forebay.values import Call, Request, Sampling, Text
from forebay.wiring.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.edges.admission import LoopAdmission
    from forebay.edges.triton import EngineFiles
    from forebay.policy.admission.replica import Replica
    from forebay.policy.health import Health
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
    """One replica of a pool, with all that talks to it.

    `keeping` are the tasks that scrape and prove it; `missed` is how often in a row its server did
    not answer, `away` whether it did not since the engine was last known to.
    """

    address: ReplicaAddress
    channel: grpc.aio.Channel
    identity: Identity
    engine: TritonEngine
    replica: Replica
    keeping: list[asyncio.Task[None]] = field(default_factory=list)
    missed: int = 0
    away: bool = False

    def let_go(self) -> None:
        """Scrape and prove it no more."""
        for task in self.keeping:
            task.cancel()


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
            watchers.create_task(self._still_kept())

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
            member.let_go()
            await member.channel.close()

    def unready(self) -> str | None:
        """Return why no member can be called yet, or None where one can."""
        if not self.members:
            return f"no replica of {self.name} has been found yet"
        used = [m for m in self.members.values() if not m.replica.health.draining]
        if not used:
            return f"every replica of {self.name} is being drained"
        wrong = next((m.identity.wrong for m in used if m.identity.wrong), None)
        if any(m.replica.health.proven and not m.identity.wrong for m in used):
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
        for name, member in list(self.members.items()):
            if name not in known or known[name].metrics != member.address.metrics:
                self._leave(name)
        for name in sorted(known.keys() - self.members.keys()):
            self._join(known[name])
        for name, address in known.items():
            self._drain(self.members[name], drains=address.drain)
        self.admission.stirred()

    def _drain(self, member: Member, *, drains: bool) -> None:
        """Send a replica nothing new while its list says so; it is kept, and known, as it is."""
        health = member.replica.health
        if drains != health.draining:
            member.replica.health = health.drained() if drains else health.resumed()
            self.admission.controller.changed(member.replica)

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
            member.keeping.append(asyncio.create_task(scraper.run()))
        member.keeping.append(asyncio.create_task(self._prove(member)))
        self.members[name], self.engines[name] = member, engine

    def _leave(self, name: str) -> None:
        """Send nothing more; what runs there ends, and then its connection is closed."""
        member = self.members.pop(name)
        del self.engines[name]
        self.admission.controller.leave(member.replica)
        member.let_go()
        closing = asyncio.create_task(member.channel.close(LEAVING_S))
        self._leaving.add(closing)
        closing.add_done_callback(self._leaving.discard)

    # ---- proof ------------------------------------------------------------------------------

    async def _still_kept(self) -> None:
        """Raise what ended a scraper or a prover: load or health would be unknown for good."""
        while True:
            for member in self.members.values():
                for task in member.keeping:
                    if task.done():
                        task.result()
            await asyncio.sleep(PROBE_PERIOD_S)

    async def _prove(self, member: Member) -> None:
        """Ask one replica whether it is as it should be, over and over.

        Its server is asked whether it has the engine that this router was given, so that one that
        died, or was replaced, is found out before a client is sent there; and the engine for one
        token, where it never answered or was ejected.
        """
        while True:
            try:
                await member.identity.require()
            except ForebayError:
                self._missed(member)
            else:
                member.missed = 0
                if member.replica.health.asks_proof(self.clock.now_s(), back=member.away):
                    await self._proven(member.replica, member.engine)
                if member.replica.health.proven:
                    member.away = False
            await asyncio.sleep(PROBE_PERIOD_S)

    def _missed(self, member: Member) -> None:
        """Take in that a server did not answer. One with a wrong engine did, and says so itself."""
        member.away, member.missed = True, member.missed + 1
        if member.identity.wrong is None and member.missed >= RULES.failures:
            health = member.replica.health
            self._found_to_be(member.replica, health.gone(self.clock.now_s()))

    async def _proven(self, replica: Replica, engine: TritonEngine) -> None:
        """Ask for one token, and take in what that tells of the replica."""
        began_s = self.clock.now_s()
        replica.health = replica.health.probing(began_s)
        try:
            await self._answers(engine)
        except ForebayError as error:
            health = replica.health
            if isinstance(error, FAULTS):
                health = health.failed(self.clock.now_s(), began_s)
            self._found_to_be(replica, health.abandoned(began_s))
        else:
            replica.answered(self.clock.now_s(), began_s)
            self._stirred(replica)

    def _found_to_be(self, replica: Replica, health: Health) -> None:
        """Note how a replica is; who waits is told where that decides whether it is called."""
        now_s, before = self.clock.now_s(), replica.health
        replica.health = health
        if before.takes(now_s) is not health.takes(now_s):
            self._stirred(replica)

    def _stirred(self, replica: Replica) -> None:
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
