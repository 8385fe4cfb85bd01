"""One point of a sweep, offered to the simulator instead of a stack, and judged by the same report.

The router is the real one as far as it decides: its policy file, its admission, what it had
learnt. Simulated are the engine, the cloud and time. What lies between a client and the engine
is one constant delay.
"""

from __future__ import annotations

import random
import tempfile
from argparse import ArgumentParser
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from forebay.edges.triton.engine import STALL_S
from forebay.edges.triton_metrics import PERIOD_S
from forebay.errors import SettingsError
from forebay.lab.engine_sim import Job, SimulatedEngine
from forebay.lab.forebay_dispatcher import CLOUD, LOCAL, Forebay, Known
from forebay.lab.stage import Stage
from forebay.lab.step_time import LinearLaw
from forebay.lab.surroundings import Cloud, Promise
from forebay.policy.admission.book import places, terms
from forebay.policy.admission.terms import Place, ReplicaSpec
from forebay.policy.choose import Chosen, choose
from forebay.values import Labels, Request, Text
from forebay.wiring import read_policy
from loadtest.cloud_stub.server import Pace as CloudPace
from loadtest.outcome import Move, Outcome
from loadtest.plan import PlanError
from loadtest.report import report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import EngineLimits
    from forebay.lab.step_time import Noise
    from forebay.policy.admission.memory import Memory
    from forebay.policy.admission.model import Coefficients, Speed
    from forebay.policy.admission.terms import Terms
    from forebay.policy.choose import Policy
    from loadtest.engine_fit import Pace
    from loadtest.plan import Class, Plan
    from loadtest.report import Report
    from loadtest.work import Job as Offer


PATIENCE_S = 2 * STALL_S
"""An engine that has said nothing is given up after two periods of silence."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The simulated engine, and how long requests take to reach it."""

    law: Coefficients
    noise: Noise
    pace: Pace
    delay_s: float


@dataclass(frozen=True, slots=True)
class Router:
    """What the router is told: its policy, its engine as it was built, and what it had learnt."""

    policy: Policy
    limits: EngineLimits
    prior: Coefficients
    memory: Memory

    def speed(self) -> Speed | None:
        """Return how fast it had found its engine to be, where it had met one."""
        engine = next(iter(self.memory.engines.values()), None)
        return None if engine is None else engine.speed()


@dataclass(frozen=True, slots=True)
class Offered:
    """A point's requests: the plan, its schedule, each prompt's tokens, and the cloud's pace."""

    plan: Plan
    schedule: Sequence[Offer]
    prompt_tokens: Sequence[int]
    cloud: CloudPace


def policy_of(text: str) -> Policy:
    """Return the policy of a text, if its targets are those that the simulator has.

    Raises:
        PlanError: they are others, or the text is no policy.
    """
    with tempfile.TemporaryDirectory(prefix="forebay-fitted-") as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            policy = read_policy(path)
        except SettingsError as error:
            raise PlanError(str(error)) from error
    engines = {name for name, target in policy.targets.items() if target.triton is not None}
    if engines != {LOCAL} or policy.targets.keys() - engines - {CLOUD}:
        raise PlanError(
            f"the simulator knows the targets {LOCAL} and {CLOUD}; the policy has "
            f"{', '.join(policy.targets)}"
        )
    return policy


def cloud_pace(flags: Sequence[str]) -> CloudPace:
    """Return the pace of a stub that was started with these flags."""
    parser = ArgumentParser()
    usual = asdict(CloudPace())
    for name, value in usual.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    said, _ = parser.parse_known_args(list(flags))
    return CloudPace(**{name: getattr(said, name) for name in usual})


def play(offered: Offered, router: Router, fit: Fit, seed: int) -> Report:
    """Return the report of a point as played; `seed` draws the engine's noise and the cloud's."""
    plan, jobs = offered.plan, _jobs(offered, fit.delay_s)
    every = [_terms(router.policy, one) for one in plan.classes]
    stage = Stage(
        [SimulatedEngine(router.limits, LinearLaw(fit.law), fit.noise.factors((seed,)))],
        _cloud(offered.cloud, len(jobs), seed),
        [Promise(one.route, inf, inf, inf, one.spill_to is not None) for one in every],
        scrape_s=PERIOD_S,
        turns=fit.pace.turns(plan.duration_s + plan.drain_s),
    )
    stage.run(jobs, [_dispatcher(router, every)])
    pairs = zip(offered.schedule, jobs, strict=True)
    return report(plan, [_outcome(plan, asked, job) for asked, job in pairs])


def _jobs(offered: Offered, delay_s: float) -> list[Job]:
    """Return the requests as they reach the engine; answers have the length that was asked for."""
    labels = {one.name: at for at, one in enumerate(offered.plan.classes)}
    return [
        Job(
            asked.number,
            labels[asked.klass],
            asked.at_s + delay_s,
            prompt_tokens,
            min(asked.max_tokens, asked.hang_up_after or asked.max_tokens),
            asked.max_tokens,
        )
        for asked, prompt_tokens in zip(offered.schedule, offered.prompt_tokens, strict=True)
    ]


def _terms(policy: Policy, one: Class) -> Terms:
    """Return what the policy promises a class of the plan."""
    labels = Labels(**{str(name): said for name, said in one.labels.items()})
    chosen = choose(policy, Request("", one.model, Text(""), 0.0, labels=labels))
    if not isinstance(chosen, Chosen):
        raise PlanError(f"class {one.name}: {chosen}")
    return terms(chosen.of, chosen.spill_to)


def _cloud(pace: CloudPace, count: int, seed: int) -> Cloud:
    dice = random.Random(seed)  # noqa: S311 - a pace, no secret
    return Cloud([pace.draw_s(dice) for _ in range(count)], pace.tpot_s, 0.0, 0.0)


def _dispatcher(router: Router, every: Sequence[Terms]) -> Forebay:
    """Return the router with the limits of its policy and what it had learnt."""
    limits = router.limits
    spec = ReplicaSpec(
        "engine",
        LOCAL,
        kv_tokens=limits.kv_tokens,
        max_batch=limits.max_batch,
        step_tokens=limits.step_tokens,
        prior=router.prior,
        known=router.speed(),
    )
    pool_of = {name: LOCAL if name == LOCAL else "" for name in router.policy.targets}
    known = {place.target: place for place in places(router.policy, pool_of)}
    cloud = known.get(CLOUD, Place(CLOUD))
    made = Forebay(Known(every, [(0, spec)], cloud, patience_s=PATIENCE_S))
    state = made.controller.state
    state.memory = router.memory
    state.places.update(known)
    return made


def _outcome(plan: Plan, asked: Offer, job: Job) -> Outcome:
    """Return what its client would have seen of a request."""
    move = Move("spill", CLOUD, "simulated") if job.where == -1 else Move("first", LOCAL, "")
    told = Outcome(
        asked.number,
        asked.klass,
        asked.door,
        asked.at_s,
        asked.at_s,
        "refused",
        mode=asked.labels.get("mode", ""),
        tier=asked.labels.get("tier", ""),
        moves=(move,),
        prompt_tokens=job.input_tokens,
        slow=asked.gap_s > 0,
    )
    if job.first_s is None or job.end_s is None:
        return replace(told, ended="failed") if job.ended == "failed" else told
    late = job.end_s - asked.at_s > asked.timeout_s or job.end_s > plan.duration_s + plan.drain_s
    return replace(
        told,
        ended="unfinished" if late else "served",
        completion_tokens=job.output_tokens,
        ttft_ms=(job.first_s - asked.at_s) * 1000,
        e2e_ms=(job.end_s - asked.at_s) * 1000,
    )
