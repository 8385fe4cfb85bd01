"""The targets of a policy as engines that can be called, and the pools behind them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from forebay.edges import cloud, learnt
from forebay.edges.admission import LoopAdmission
from forebay.edges.ownership import Ownership
from forebay.edges.triton import EngineFiles, Prompts, ReplicatedEngine
from forebay.errors import SettingsError
from forebay.policy.admission import CloudBreakers, Controller
from forebay.policy.admission.book import places
from forebay.policy.admission.memory import remembered
from forebay.policy.replicas import ReplicaAddress
from forebay.wiring import pools
from forebay.wiring.pools import Pool
from forebay.wiring.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forebay.policy.admission.memory import Memory
    from forebay.policy.choose import Policy
    from forebay.policy.ownership import Holding
    from forebay.policy.rules import Triton
    from forebay.ports import Clock, Engine
    from forebay.wiring.settings import Settings

LOOPBACK = "127.0.0.1"


class Engines:
    """The targets that this version can call, admission in front of them, and what watches."""

    def __init__(self, settings: Settings, policy: Policy, clock: Clock) -> None:
        """Read every engine's files; nothing is connected before `watch`.

        Raises:
            SettingsError: an engine directory is missing or broken, or not said.
        """
        self._settings = settings
        self._clock = clock
        local = {t: rule.triton for t, rule in policy.targets.items() if rule.triton is not None}
        away = {t: rule for t, rule in policy.targets.items() if rule.adapter in cloud.ADAPTERS}
        self.pool_of = dict.fromkeys(away, "") | {t: self._name(r) for t, r in local.items()}
        tiers = {name: tier.weight for name, tier in policy.document.tiers.items()}
        self.breakers = CloudBreakers()
        known = places(policy, self.pool_of)
        controller = Controller(known, tiers=tiers, outside=self.breakers)
        self.admission = LoopAdmission(controller, clock)
        self.clouds = {
            target: made
            for target, rule in away.items()
            if (made := cloud.engine(target, rule, clock, os.environ, self.admission)) is not None
        }
        self._learnt = settings.home / "learnt.json"
        self._memory = controller.state.memory = learnt.load(self._learnt)
        self.pools: dict[str, Pool] = {}
        self.by_target: dict[str, Engine] = dict(self.clouds)
        for target, rule in local.items():
            files = EngineFiles.read(self._directory(target, rule))
            name = self.pool_of[target]
            if name not in self.pools:
                static = self._static(rule)
                pool = Pool(name, rule, static, files, self.admission, clock)
                pool.known = self._memory.speed(pool.build)
                self.pools[name] = pool
            pool = self.pools[name]
            self.by_target[target] = ReplicatedEngine(Prompts(files), pool.engines)

    async def watch(self) -> None:
        """Keep pools and admission fresh until cancelled; raises if any watcher breaks."""
        async with asyncio.TaskGroup() as watchers:
            for pool in self.pools.values():
                watchers.create_task(pool.watch())
            watchers.create_task(self.admission.learn())
            watchers.create_task(learnt.keep(self._learnt, self._remembered))
            if self._settings.owners is not None:
                watchers.create_task(self._share(self._settings.owners))

    async def close(self) -> None:
        """Close every connection."""
        for pool in self.pools.values():
            await pool.close()
        for provider in self.clouds.values():
            await provider.close()

    def unready(self) -> str | None:
        """Return what the router waits for before it can serve, or None."""
        return pools.unready(self.pools.values())

    def triton(self) -> GRPCInferenceServiceStub | None:
        """Return the stub of a Triton server, to ask what it serves; None where there is none."""
        members = [member for pool in self.pools.values() for member in pool.members.values()]
        answering = (m for m in members if m.replica.health.takes(self._clock.now_s()))
        first = next(answering, members[0] if members else None)
        return None if first is None else GRPCInferenceServiceStub(first.channel)

    def _remembered(self) -> Memory:
        state, now_s = self.admission.controller.state, self._clock.now_s()
        builds = {name: pool.build for name, pool in self.pools.items()}
        return remembered(state, builds, self._memory, now_s)

    async def _share(self, owners: Path) -> None:
        """Divide the replicas among the routers that name the same file, over and over."""
        ownership = Ownership(
            owners,
            self._settings.router,
            self._clock,
            pools=lambda: {name: pool.healthy() for name, pool in self.pools.items()},
            changed=self._held,
        )
        try:
            await ownership.run()
        finally:
            ownership.close()

    def _held(self, holdings: Mapping[str, Holding]) -> None:
        for name, holding in holdings.items():
            self.pools[name].held(holding)

    # ---- what a rule says --------------------------------------------------------------------

    def _static(self, rule: Triton) -> tuple[ReplicaAddress, ...]:
        """Return the replicas that are known from the start: said, or those of the stack itself."""
        if rule.static or rule.lookup is not None:
            return tuple(self._scraped(one) for one in rule.static)
        return (self._scraped(ReplicaAddress(self._local)),)

    @property
    def _local(self) -> str:
        return f"{LOOPBACK}:{self._settings.triton_grpc_port}"

    def _scraped(self, replica: ReplicaAddress) -> ReplicaAddress:
        """A server elsewhere has a page of its own; without its address, load is unknown."""
        if replica.metrics is not None or replica.address != self._local:
            return replica
        page = f"http://{LOOPBACK}:{self._settings.triton_metrics_port}/metrics"
        return ReplicaAddress(replica.address, page)

    def _name(self, rule: Triton) -> str:
        """Return the name of a rule's pool: where its replicas are found, and which model."""
        lookup = rule.lookup
        if lookup is not None:
            where = lookup.file or f"{lookup.dns}:{lookup.port}"
        else:
            where = ",".join(one.address for one in self._static(rule))
        return f"{where}/{rule.model}"

    def _directory(self, target: str, rule: Triton) -> Path:
        if rule.engine is not None:
            return CHECKOUT / rule.engine
        if rule.address is not None:
            raise SettingsError(
                f"target {target} has an address of its own and no engine; "
                "say `engine:`, the directory with that engine's tokenizer and limits"
            )
        return self._settings.repository / rule.model / "1" / "engine"
