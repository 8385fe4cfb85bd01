"""One run: requests arrive, a dispatcher places them, engines and a cloud answer, time passes.

The stage owns the simulated clock and nothing else decides: what happens at equal times happens
in the order in which it was scheduled, so that a run is the same every time. Everything drawn is
drawn beforehand, by request or by step; what a policy does cannot change another's luck.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from forebay.values import Scrape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job, SimulatedEngine
    from forebay.lab.surroundings import Cloud, Dispatcher, Promise, Turn

_SEGMENT, _WAKE, _SCRAPE, _CLOUD_FIRST, _CLOUD_END, _TURN, _UNANSWERED = range(7)

DEAD_S = 0.05
"""How long it takes until a call to a dead replica has failed."""

Entry = tuple[float, int, int, int, "Job | None"]


class Stage:
    """The clock, the fleet and the cloud; `dispatchers[n]` gets the requests of router n.

    The last of them gets those that are foreign. `missed`, `refused` and what is charged are of
    the others.
    """

    def __init__(
        self,
        engines: list[SimulatedEngine],
        cloud: Cloud,
        promises: Sequence[Promise],
        *,
        scrape_s: float = inf,
        turns: Sequence[Turn] = (),
    ) -> None:
        self.now_s = 0.0
        self.engines = engines
        self.cloud = cloud
        self.promises = promises
        self.scrape_s = scrape_s
        self.price_factor = 1.0
        self.missed = 0
        self.refused = 0
        self.spent_usd = 0.0
        self.open = 0
        self.turns = turns
        self._heap: list[Entry] = []
        self._order = 0
        self._versions = [-1] * len(engines)
        self._wakes: list[float] = []
        self._routers: list[Dispatcher] = []
        self._router_of: Sequence[int] = ()

    def run(
        self,
        jobs: Sequence[Job],
        dispatchers: Sequence[Dispatcher],
        router_of: Sequence[int] = (),
        *,
        missed_max: float = inf,
        usd_max: float = inf,
    ) -> bool:
        """Play everything to its end; return False once a limit was passed and it was given up.

        Jobs are in order of arrival; `router_of[job.number]` is the router that it reaches.
        """
        self._routers = list(dispatchers)
        self._router_of = router_of
        self._wakes = [inf] * len(self._routers)
        self.open = len(jobs)
        for number, turn in enumerate(self.turns):
            self._push(turn.at_s, _TURN, number)
        if self.scrape_s < inf:
            for replica in range(len(self.engines)):
                self._push(self.scrape_s * replica / len(self.engines), _SCRAPE, replica)
        heap, coming = self._heap, iter(jobs)
        job = next(coming, None)
        while self.open:
            if self.missed > missed_max or self.spent_usd > usd_max:
                return False
            if job is not None and (not heap or job.arrived_s <= heap[0][0]):
                self.now_s = job.arrived_s
                self._router(job).arrived(self, job)
                job = next(coming, None)
            elif heap:
                self._happen(heappop(heap))
            else:
                raise AssertionError(f"{self.open} requests are held by nobody")
        return self.missed <= missed_max and self.spent_usd <= usd_max

    def charged_usd(self, job: Job) -> float:
        """Return what a request is charged, once all is over: what oracles minimise and bound.

        That is what the cloud was paid; for a miss that the cloud was not paid for, its price at
        the time of arrival, times the `miss_factor` of its class.
        """
        promise = self.promises[job.label]
        if job.where == -1:
            return job.usd
        if job.foreign:
            return 0.0
        if job.ended == "served" and promise.kept(job):
            return 0.0
        factor = 1.0
        for turn in self.turns:
            if turn.at_s < job.arrived_s:
                factor = turn.price_factor
        return self.cloud.usd(job) * factor * promise.miss_factor

    # ---- what a dispatcher may do ----------------------------------------------------------

    def submit(self, job: Job, replica: int) -> None:
        """Send a request to a replica; it refuses one that never fits, and any while it is full.

        To a replica that died a call fails, and its dispatcher is told so.
        """
        engine = self.engines[replica]
        job.where = replica
        if not engine.alive:
            self._push(self.now_s + DEAD_S, _UNANSWERED, replica, job)
            return
        if engine.full or not engine.fits(job):
            self.refuse(job)
            return
        engine.submit(job, self.now_s)
        self._schedule(replica)

    def spill(self, job: Job) -> None:
        """Send a request to the cloud."""
        assert self.promises[job.label].may_spill, "a class that may not leave was spilled"
        job.where = -1
        job.usd = self.cloud.usd(job) * self.price_factor
        self.spent_usd += job.usd
        self._push(self.now_s + self.cloud.ttft_s[job.number], _CLOUD_FIRST, 0, job)

    def refuse(self, job: Job) -> None:
        """Turn a request away: a miss of its class."""
        job.ended = "refused"
        self.refused += not job.foreign
        self._over(job)

    def give_up(self, job: Job) -> None:
        """Leave a replica that lets a request wait too long; what it has begun goes on."""
        assert job.where is not None, "a request was given up that is nowhere"
        if self.engines[job.where].withdraw(job, self.now_s):
            self._schedule(job.where)
            job.ended = "failed"
            self._over(job)

    def wake(self, dispatcher: Dispatcher, at_s: float) -> None:
        """Call `dispatcher.woken` at a time, unless it is to be woken earlier anyway."""
        number = self._routers.index(dispatcher)
        if at_s < self._wakes[number]:
            self._wakes[number] = at_s
            self._push(max(at_s, self.now_s), _WAKE, number)

    def scrape_of(self, replica: int) -> Scrape:
        """Return a replica's metrics as its server tells them now."""
        engine = self.engines[replica]
        limits = engine.limits
        return Scrape(
            at_s=self.now_s,
            active=engine.active,
            waiting=engine.active - engine.scheduled,
            scheduled=engine.scheduled,
            max_requests=limits.max_batch,
            kv_used=min(1.0, engine.kv_used_tokens() / limits.kv_tokens),
            generating=engine.running,
            iterations=engine.steps,
        )

    # ---- what happens ----------------------------------------------------------------------

    def _router(self, job: Job) -> Dispatcher:
        if job.foreign:
            return self._routers[-1]
        return self._routers[self._router_of[job.number] if self._router_of else 0]

    def _push(self, at_s: float, kind: int, number: int, job: Job | None = None) -> None:
        self._order += 1
        heappush(self._heap, (at_s, self._order, kind, number, job))

    def _schedule(self, replica: int) -> None:
        engine = self.engines[replica]
        if engine.version != self._versions[replica]:
            self._versions[replica] = engine.version
            if engine.next_s < inf:
                # The entry's own order is its version: one that was replaced finds another.
                self._push(engine.next_s, _SEGMENT, replica)
                engine.order = self._order

    def _happen(self, entry: Entry) -> None:
        at_s, order, kind, number, job = entry
        if kind == _SEGMENT:
            engine = self.engines[number]
            if engine.alive and engine.order == order:
                self.now_s = at_s
                self._segment(number)
            return
        self.now_s = at_s
        if kind == _WAKE:
            if self._wakes[number] <= at_s:
                self._wakes[number] = inf
                self._routers[number].woken(self)
        elif kind == _SCRAPE:
            self._scrape(number)
        elif kind == _TURN:
            self._turn(self.turns[number])
        else:
            assert job is not None
            if kind == _UNANSWERED:
                self._failed(job)
            else:
                self._cloud(kind, job)

    def _segment(self, replica: int) -> None:
        firsts, ended = self.engines[replica].end_segment()
        self._schedule(replica)
        for dispatcher in self._routers:
            dispatcher.stepped(self, replica)
        for job in firsts:
            self._router(job).first_token(self, job)
        for job in ended:
            job.ended = "served"
            self._over(job)

    def _cloud(self, kind: int, job: Job) -> None:
        if kind == _CLOUD_FIRST:
            job.first_s = self.now_s
            last_s = self.now_s + self.cloud.tpot_s * (job.output_tokens - 1)
            self._push(last_s, _CLOUD_END, 0, job)
            self._router(job).first_token(self, job)
        else:
            job.end_s, job.ended = self.now_s, "served"
            self._over(job)

    def _over(self, job: Job) -> None:
        self.open -= 1
        assert self.open >= 0, "a request ended twice"
        if job.ended != "served" or not self.promises[job.label].kept(job):
            self.missed += not job.foreign
        self._router(job).ended(self, job)

    def _scrape(self, replica: int) -> None:
        if not self.engines[replica].alive:
            return
        scrape = self.scrape_of(replica)
        for dispatcher in self._routers:
            dispatcher.scraped(self, replica, scrape)
        self._push(self.now_s + self.scrape_s, _SCRAPE, replica)

    def _turn(self, turn: Turn) -> None:
        self.price_factor = turn.price_factor
        for replica, engine in enumerate(self.engines):
            engine.change_pace(turn.engine_factor, self.now_s)
            self._schedule(replica)
        for dispatcher in self._routers:
            dispatcher.repriced(self, turn.price_factor)
        for replica in range(turn.dies):
            inside = self.engines[replica].die()
            for dispatcher in self._routers:
                dispatcher.died(self, replica)
            for job in inside:
                self._failed(job)

    def _failed(self, job: Job) -> None:
        """Let a request be placed anew that has no token yet; another one is over."""
        if job.first_s is None:
            job.where = None
            self._router(job).failed(self, job)
        else:
            job.ended = "failed"
            self._over(job)
