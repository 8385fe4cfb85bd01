"""Plays rows: one load, one policy, one seed each, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from forebay.lab import clairvoyant, lp_bound
from forebay.lab.dispatchers import Cap, Fifo, RoundRobin, Threshold
from forebay.lab.forebay_dispatcher import CLOUD, LOCAL, Forebay, Known
from forebay.lab.scenario import Disturbance
from forebay.lab.shelf import ADMISSION, code_version, setting_version
from forebay.policy.admission.outside import Allowance
from forebay.policy.admission.terms import Place, ReplicaSpec, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.setting import Setting
    from forebay.lab.shelf import Shelf
    from forebay.lab.stage import Stage
    from forebay.lab.surroundings import Dispatcher

POLICIES = ("forebay", "cap", "cap_each", "threshold", "fifo", "round_robin")
"""`cap` attains over all requests, `cap_each` in every class."""
SLOT_S = 0.25
_P99_SIGMAS = 2.326
_BUCKET = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """One load, one policy, one seed. Attainment counts all offered requests; dollars are spill's.

    `goodput_rps` counts requests that kept every promise, per second of arrivals. The oracles'
    fields are None where they were not asked for or, for the search, gave nothing.
    """

    load: float
    policy: str
    seed: int
    attainment: float = 0.0
    attainment_by_class: dict[str, float] = field(default_factory=dict)
    spill_usd: float = 0.0
    refused: int = 0
    goodput_rps: float = 0.0
    lp_usd: float | None = None
    clairvoyant_usd: float | None = None
    spilled: int = 0
    requests: int = 0
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """A row, and the requests it is about."""

    row: Row
    jobs: Sequence[Job]


class Rows:
    """All rows of one setting. 1x and the cap of each load are found once and kept."""

    def __init__(self, setting: Setting, shelf: Shelf, *, lp_rounds: int = lp_bound.ROUNDS) -> None:
        self.setting = setting
        self._shelf = shelf
        self._lp_rounds = lp_rounds
        self._key = (code_version(), setting_version(setting))
        self._caps: dict[tuple[float, bool], int] = {}
        self.one_x_rps = self._kept("1x", setting.saturated_rps)

    def span_s(self, load: float) -> float:
        """Return how long the trace takes at a load: 1x asks what the fleet can do at most."""
        return len(self.setting.trace) / (self.one_x_rps * load)

    def row(
        self, load: float, policy: str, seed: int, *, oracles: bool = False, search: int = 0
    ) -> Row:
        """Play one row; with `oracles` and so many rounds of `search` where it was not kept."""
        capped = policy in {"cap", "cap_each"}
        cap = self.cap(load, seed, each=policy == "cap_each") if capped else None
        row = self.play(load, policy, seed, cap=cap).row
        if oracles:
            lp_usd, clairvoyant_usd = self.lp_usd(load, seed), None
            if search:
                clairvoyant_usd = self.clairvoyant_usd(load, seed, search)
            row = replace(row, lp_usd=lp_usd, clairvoyant_usd=clairvoyant_usd)
        return row

    def play(self, load: float, policy: str, seed: int, *, cap: int | None = None) -> Played:
        """Play one row without its oracles; `cap` is the static cap where the policy is one."""
        jobs = self.setting.jobs(self.span_s(load), seed)
        stage = self._stage(load, policy, seed)
        routers = self._routers(load, policy, seed, cap)
        stage.run(jobs, routers, self.setting.routers(seed))
        return Played(self._judged(Row(load, policy, seed, cap=cap), stage, jobs), jobs)

    # ---- policies ----------------------------------------------------------------------------

    def _stage(self, load: float, policy: str, seed: int) -> Stage:
        stage = self.setting.stage(self.span_s(load), seed)
        if policy not in {"forebay", "threshold"}:
            stage.scrape_s = inf
        return stage

    def _routers(self, load: float, policy: str, seed: int, cap: int | None) -> list[Dispatcher]:
        wrong, replicas = self.setting.disturbance, self.setting.scenario.fleet.replicas
        routers: list[Dispatcher] = []
        for router in range(wrong.routers):
            if policy == "forebay":
                may = [n for n in range(replicas) if not wrong.owned or n % wrong.routers == router]
                routers.append(Forebay(self._known(load, seed, may)))
            elif policy in {"cap", "cap_each"}:
                assert cap is not None, "a cap without its number"
                routers.append(Cap(replicas, cap))
            elif policy == "threshold":
                routers.append(Threshold(replicas))
            else:
                routers.append(Fifo(replicas) if policy == "fifo" else RoundRobin(replicas))
        return routers

    def _known(self, load: float, seed: int, may: Sequence[int]) -> Known:
        """Return what an operator would have written down for the router."""
        scenario, wrong = self.setting.scenario, self.setting.disturbance
        fleet, cloud = scenario.fleet, scenario.cloud
        prior = self.setting.manifest().scaled(wrong.prior_factor)
        replicas = [
            (
                number,
                ReplicaSpec(
                    f"replica-{number}",
                    LOCAL,
                    kv_tokens=fleet.kv_tokens,
                    max_batch=fleet.max_batch,
                    step_tokens=fleet.step_tokens,
                    prior=prior,
                ),
            )
            for number in may
        ]
        place = Place(
            CLOUD,
            input_usd=cloud.input_usd_per_million / 1e6,
            output_usd=cloud.output_usd_per_million / 1e6,
            expect_ttft_s=cloud.ttft_median_ms / 1e3 * (1 + _P99_SIGMAS * cloud.ttft_sigma),
            expect_tpot_s=cloud.tpot_ms / 1e3,
        )
        terms = [
            Terms(
                promise.name,
                ttft_s=_said(promise.ttft_s),
                tpot_s=_said(promise.tpot_s),
                e2e_s=_said(promise.e2e_s),
                attainment=scenario.attainment,
                spill_to=CLOUD if promise.may_spill else None,
            )
            for promise in self.setting.promises
        ]
        return Known(terms, replicas, place, self._allowance(load, seed))

    def _allowance(self, load: float, seed: int) -> Allowance | None:
        """Return the budget: a share of what the same row spends when nothing goes wrong."""
        share = self.setting.disturbance.budget_share
        if share is None:
            return None
        calm = Rows(replace(self.setting, disturbance=Disturbance()), self._shelf)
        usd = self._kept(
            ("calm", load, seed), lambda: calm.play(load, "forebay", seed).row.spill_usd
        )
        span_s = self.span_s(load)
        routers = self.setting.disturbance.routers
        return Allowance(usd * share / span_s / routers, hours=_BUCKET * span_s / 3600)

    # ---- the cap that hindsight would have chosen -------------------------------------------

    def cap(self, load: float, seed: int, *, each: bool = False) -> int:
        """Return the cheapest cap of all with which the scenario's attainment is reached.

        That is over all requests, or in `each` class. Searched once per load, on the first seed
        that asks. Every cap from one to the most that a replica can hold is played; one that
        misses too many, or has spent more than the best, is given up at once. If none attains
        it, it is one.
        """
        key = load, each
        if key not in self._caps:
            found = self._kept(
                ("cap", load, seed, each), lambda: float(self._cheapest(load, seed, each=each))
            )
            self._caps[key] = int(found)
        return self._caps[key]

    def _cheapest(self, load: float, seed: int, *, each: bool) -> int:
        best, best_usd = 1, inf
        most = self.setting.scenario.fleet.max_batch
        low, high = 1, most
        while low < high:
            # Not the search itself: a good first cap, so that the others are given up the sooner.
            middle = (low + high + 1) // 2
            usd, _ = self._capped(load, seed, middle, inf, each=each)
            low, high = (low, middle - 1) if usd is None else (middle, high)
        for cap in (*range(low, 0, -1), *range(low + 1, most + 1)):
            usd, reached = self._capped(load, seed, cap, best_usd, each=each)
            if usd is not None and usd < best_usd:
                best, best_usd = cap, usd
            if cap > low and not reached:
                break  # no request met it, so that all higher caps are the same run
        return best

    def _capped(
        self, load: float, seed: int, cap: int, usd_max: float, *, each: bool
    ) -> tuple[float | None, bool]:
        """Return what a cap spends, None if it misses too many or more, and if it was met."""
        missed_max = len(self.setting.trace) * (1.0 - self.setting.scenario.attainment)
        stage = self._stage(load, "cap", seed)
        routers = [
            Cap(self.setting.scenario.fleet.replicas, cap)
            for _ in range(self.setting.disturbance.routers)
        ]
        jobs = self.setting.jobs(self.span_s(load), seed)
        attained = stage.run(
            jobs,
            routers,
            self.setting.routers(seed),
            missed_max=missed_max,
            usd_max=usd_max,
        )
        if attained and each:
            row = self._judged(Row(load, "cap_each", seed), stage, jobs)
            worst = min(row.attainment_by_class.values())
            attained = worst >= self.setting.scenario.attainment
        return stage.spent_usd if attained else None, any(router.reached for router in routers)

    # ---- what came of it ---------------------------------------------------------------------

    def lp_usd(self, load: float, seed: int) -> float:
        """Return the lower bound of a row's spill cost, whatever the policy."""
        return self._kept(
            ("lp", load, seed, SLOT_S, self._lp_rounds), lambda: self._bound(load, seed)
        )

    def clairvoyant_usd(self, load: float, seed: int, rounds: int) -> float:
        """Return what the best router found by hindsight costs, its misses charged.

        Both what our own policy sent away and nothing at all are sets to begin with.
        """

        def play(away: Sequence[bool]) -> tuple[Stage, Sequence[Job]]:
            jobs = self.setting.jobs(self.span_s(load), seed)
            stage = self._stage(load, "clairvoyant", seed)
            stage.run(jobs, [clairvoyant.Hindsight(away)])
            return stage, jobs

        def search() -> float:
            own = [job.where == -1 for job in self.play(load, "forebay", seed).jobs]
            return clairvoyant.cheapest_usd(play, [own, [False] * len(own)], rounds, seed)

        return self._kept(("clairvoyant", load, seed, rounds, code_version(ADMISSION)), search)

    def _bound(self, load: float, seed: int) -> float:
        span_s, fleet = self.span_s(load), self.setting.scenario.fleet
        stage = self.setting.stage(span_s, seed)
        jobs, promises = self.setting.jobs(span_s, seed), self.setting.promises
        limits, replicas = fleet.limits(), fleet.replicas
        bounds = []
        for floor in self.setting.law.floors():
            pooled = lp_bound.Fleet(floor, limits, replicas, stage.turns)
            problem = lp_bound.programme(jobs, promises, pooled, stage.cloud, SLOT_S)
            bounds.append(lp_bound.lower_bound_usd(problem, self._lp_rounds))
        return max(bounds)

    def _judged(self, row: Row, stage: Stage, jobs: Sequence[Job]) -> Row:
        """Return the row with what came of it."""
        promises = self.setting.promises
        offered, kept = [0] * len(promises), [0] * len(promises)
        for job in jobs:
            offered[job.label] += 1
            kept[job.label] += job.ended == "served" and promises[job.label].kept(job)
        return replace(
            row,
            attainment=sum(kept) / len(jobs),
            attainment_by_class={
                promise.name: met / count
                for promise, met, count in zip(promises, kept, offered, strict=True)
                if count
            },
            spill_usd=stage.spent_usd,
            refused=stage.refused,
            goodput_rps=sum(kept) / self.span_s(row.load),
            spilled=sum(job.where == -1 for job in jobs),
            requests=len(jobs),
        )

    def _kept(self, what: object, compute: Callable[[], float]) -> float:
        return self._shelf.kept((*self._key, what), compute)


def _said(seconds: float) -> float | None:
    return None if seconds == inf else seconds
