"""Plays rows: one load, one policy, one seed each, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from forebay.lab import clairvoyant, foretold, lp_bound
from forebay.lab.best_cap import Tried, best_cap
from forebay.lab.dispatchers import Cap, Fifo, RoundRobin, Threshold
from forebay.lab.forebay_dispatcher import Forebay
from forebay.lab.scenario import Disturbance
from forebay.lab.shelf import ADMISSION, code_version, setting_version
from forebay.lab.told import known
from forebay.policy.admission.outside import Allowance

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
BATCHES = 4
"""Caps up to so many full batches are looked at: beyond one, requests wait inside the engine."""
_BUCKET = 0.1
"""The size of a budget's bucket, as a share of what flows into it during a run."""


@dataclass(frozen=True, slots=True)
class Row:
    """One load, one policy, one seed. Attainment counts all offered requests.

    All figures are of the router's own requests, but for the load, which foreign ones are part of.
    `spill_usd` is what the cloud was paid, `charged_usd` that and a charge for every miss
    (`Stage.charged_usd`). `attained` says whether the scenario's attainment was reached, over all
    requests, by `cap_each` in every class. `goodput_rps` counts requests that kept every promise,
    per second of arrivals. `cap` is the static cap that was found for this load and seed.

    The oracles: no policy's `charged_usd` is below `lp_usd`, None without oracles; its
    `spill_usd` may be, where requests are missed. `clairvoyant_usd` is what the best router
    found is charged, None without a search.
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
    charged_usd: float = 0.0
    attained: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """A row, and the requests it is about."""

    row: Row
    jobs: Sequence[Job]


class Rows:
    """All rows of one setting. 1x, caps and what oracles say are found once and kept."""

    def __init__(self, setting: Setting, shelf: Shelf, *, lp_rounds: int = lp_bound.ROUNDS) -> None:
        self.setting = setting
        self._shelf = shelf
        self._lp_rounds = lp_rounds
        self._key = (code_version(), setting_version(setting))
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
        stage.run(jobs, self._routers(load, policy, seed, cap), self.setting.routers(seed))
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
            may = [n for n in range(replicas) if not wrong.owned or n % wrong.routers == router]
            if policy == "forebay":
                allowed = self._allowance(load, seed)
                routers.append(Forebay(known(self.setting, may, allowed)))
            elif policy in {"cap", "cap_each"}:
                assert cap is not None, "a cap without its number"
                routers.append(Cap(replicas, cap, may))
            else:
                kind = {"threshold": Threshold, "fifo": Fifo, "round_robin": RoundRobin}[policy]
                routers.append(kind(replicas, may))
        return [*routers, *self._direct()]

    def _direct(self) -> list[Dispatcher]:
        """Return who sends foreign requests to the engines, where there are some: in turn."""
        wrong, replicas = self.setting.disturbance, self.setting.scenario.fleet.replicas
        return [RoundRobin(replicas)] if wrong.foreign else []

    def _allowance(self, load: float, seed: int) -> Allowance | None:
        """Return the budget: a share of what the same row spends when nothing goes wrong.

        What a full bucket holds at first is part of it.
        """
        wrong = self.setting.disturbance
        if wrong.budget_share is None:
            return None
        usual = Disturbance(
            max_tokens=wrong.max_tokens, heavy_tail=wrong.heavy_tail, foreign=wrong.foreign
        )
        calm = Rows(replace(self.setting, disturbance=usual), self._shelf)
        usd = self._kept(
            ("calm", load, seed, code_version(*ADMISSION)),
            lambda: calm.play(load, "forebay", seed).row.spill_usd,
        )
        span_s = self.span_s(load)
        usd_per_s = usd * wrong.budget_share / wrong.routers / span_s / (1 + _BUCKET)
        return Allowance(usd_per_s, hours=_BUCKET * span_s / 3600)

    def cap(self, load: float, seed: int, *, each: bool = False) -> int:
        """Return the cheapest cap with which the scenario's attainment is reached (`best_cap`).

        That is over all requests, or in `each` class.
        """
        setting, policy = self.setting, "cap_each" if each else "cap"

        def play(cap: int, *, missed_max: float, usd_max: float) -> Tried:
            jobs, stage = setting.jobs(self.span_s(load), seed), self._stage(load, policy, seed)
            routers = self._routers(load, policy, seed, cap)
            through = stage.run(
                jobs, routers, setting.routers(seed), missed_max=missed_max, usd_max=usd_max
            )
            row = self._judged(Row(load, policy, seed), stage, jobs) if through else None
            reached = any(isinstance(one, Cap) and one.reached for one in routers)
            return Tried(None if row is None else _counted(row), stage.spent_usd, reached)

        def search() -> float:
            most = BATCHES * setting.scenario.fleet.max_batch
            offered = len(_ours(setting.jobs(self.span_s(load), seed)))
            return float(best_cap(play, most, setting.scenario.attainment, offered))

        return int(self._kept((policy, load, seed), search))

    # ---- what came of it ---------------------------------------------------------------------

    def lp_usd(self, load: float, seed: int) -> float:
        """Return what no row's `charged_usd` is below, whatever the policy."""
        return self._kept(("lp", load, seed, self._lp_rounds), lambda: self._bound(load, seed))

    def clairvoyant_usd(self, load: float, seed: int, rounds: int) -> float:
        """Return what the best router that knows the future is charged, of those found.

        That is our own policy told the future, or one found by hindsight, where what our own
        policy sent away, told or not, and nothing at all are sets to begin with.
        """

        def play(away: Sequence[bool]) -> tuple[Stage, Sequence[Job]]:
            jobs = self.setting.jobs(self.span_s(load), seed)
            foretold.tell_lengths(jobs)
            stage = self._stage(load, "clairvoyant", seed)
            stage.run(jobs, [clairvoyant.Hindsight(away), *self._direct()])
            return stage, jobs

        def search() -> float:
            told_usd, told = self._foretold(load, seed)
            starts = [self.play(load, "forebay", seed).jobs, told]
            away = [[job.where == -1 for job in jobs] for jobs in starts]
            away.append([False] * len(told))
            return min(told_usd, clairvoyant.cheapest_usd(play, away, rounds, seed))

        return self._kept(("clairvoyant", load, seed, rounds, code_version(*ADMISSION)), search)

    def _foretold(self, load: float, seed: int) -> tuple[float, Sequence[Job]]:
        """Return what our own policy is charged that knows the future, and its requests."""
        jobs, stage = self.setting.jobs(self.span_s(load), seed), self._stage(load, "forebay", seed)
        foretold.tell_lengths(jobs)
        replicas = range(self.setting.scenario.fleet.replicas)
        router = foretold.Foretold(known(self.setting, replicas, None))
        stage.run(jobs, [router, *self._direct()])
        return sum(stage.charged_usd(job) for job in jobs), jobs

    def _bound(self, load: float, seed: int) -> float:
        span_s, fleet = self.span_s(load), self.setting.scenario.fleet
        stage = self.setting.stage(span_s, seed)
        # Foreign work is left out, which only adds room.
        jobs, promises = _ours(self.setting.jobs(span_s, seed)), self.setting.promises
        limits, replicas = fleet.limits(), fleet.replicas
        bounds = []
        for floor in self.setting.law.floors():
            pooled = lp_bound.Fleet(floor, limits, replicas, stage.turns)
            problem = lp_bound.programme(jobs, promises, pooled, stage.cloud, SLOT_S)
            bounds.append(lp_bound.lower_bound_usd(problem, self._lp_rounds))
        return max(bounds)

    def _judged(self, row: Row, stage: Stage, jobs: Sequence[Job]) -> Row:
        """Return the row with what came of it."""
        promises, jobs = self.setting.promises, _ours(jobs)
        offered, kept = [0] * len(promises), [0] * len(promises)
        for job in jobs:
            offered[job.label] += 1
            kept[job.label] += job.ended == "served" and promises[job.label].kept(job)
        judged = replace(
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
            charged_usd=sum(stage.charged_usd(job) for job in jobs),
        )
        return replace(judged, attained=_counted(judged) >= self.setting.scenario.attainment)

    def _kept(self, what: object, compute: Callable[[], float]) -> float:
        return self._shelf.kept((*self._key, what), compute)


def _ours(jobs: Sequence[Job]) -> Sequence[Job]:
    return [job for job in jobs if not job.foreign]


def _counted(row: Row) -> float:
    """Return the attainment that a row is to reach: over all requests, or in its worst class."""
    worst = min(row.attainment_by_class.values())
    return worst if row.policy == "cap_each" else row.attainment
