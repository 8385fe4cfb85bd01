"""What a sweep's folder holds, as the simulator needs it: requests, policies, what was learnt."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from forebay.lab.engine_sim import EngineLimits
from forebay.lab.forebay_dispatcher import LOCAL
from forebay.policy.admission.memory import Memory
from forebay.policy.admission.model import UNKNOWN, Coefficients
from loadtest import plan as plans
from loadtest.outcome import of_json
from loadtest.played import Offered, Router, cloud_pace, policy_of
from loadtest.prompts import splitter
from loadtest.stacks import LEARNT, POLICY
from loadtest.sweep import WARM_UP, plans_at
from loadtest.sweep_plan import Point as Planned
from loadtest.sweep_plan import policy_text, promises
from loadtest.sweep_state import SweepError
from loadtest.work import schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtest.outcome import Outcome
    from loadtest.plan import Plan
    from loadtest.sweep_plan import Sweep
    from loadtest.work import Job

    Row = dict[str, Any]

NOWHERE = "http://127.0.0.1:9/v1"
"""What stands for the cloud's address in a policy: nothing is called."""

SAME_MOMENT_S = 1e-4
"""Moments in files are rounded to microseconds."""


@dataclass(frozen=True, slots=True)
class Point:
    """One sound point: its row, what was offered, to which router, and what became of it.

    `outcomes` are also those of the warm-up where the sweep wrote them: `whole`.
    """

    row: Row
    offered: Offered
    router: Router
    outcomes: Sequence[Outcome]
    whole: bool

    @property
    def repetition(self) -> int:
        """Points of one repetition were run on the machine as it was then."""
        return int(self.row["repetition"])

    @property
    def policy(self) -> str:
        """The configuration's name."""
        return str(self.row["policy"])


def points(said: Sweep, folder: Path, engine: Path) -> list[Point]:
    """Return the sound points of a sweep's folder; `engine` is its engine's `engine.json`.

    Raises:
        SweepError: a file is missing, no point is sound, or the plan offers other requests by now.
        PlanError: a policy or the plan is wrong.
    """
    capacities = _json(folder / "capacity.json")
    ran = {row["point"]: _Ran(row, *_outcomes(folder, row)) for row in _sound(folder)}
    made = []
    for one in ran.values():
        row = one.row
        capacity_rps = capacities[str(row["repetition"])]["requests_per_s"]
        base, plan = _plans(said, row, capacity_rps)
        offers = schedule(plan)
        _agree(row, offers, one.outcomes)
        twin = Planned(policy=said.capacity.policy, load=row["load"], repetition=row["repetition"])
        known = _known(ran.get(twin.key, one).outcomes) | _known(one.outcomes)
        offered = Offered(plan, offers, _prompts(offers, known), cloud_pace(said.cloud.flags))
        router = _router(said, row, base, folder, engine)
        made.append(Point(row, offered, router, one.outcomes, one.whole))
    return made


@dataclass(frozen=True, slots=True)
class _Ran:
    row: Row
    outcomes: Sequence[Outcome]
    whole: bool


def _sound(folder: Path) -> list[Row]:
    rows: list[Row] = [json.loads(line) for line in _text(folder / "rows.jsonl").splitlines()]
    sound = [row for row in rows if not row["void"] and row["attainment"] is not None]
    if not sound:
        raise SweepError(f"{folder}: no point is sound yet")
    return sound


def _outcomes(folder: Path, row: Row) -> tuple[list[Outcome], bool]:
    """Return what became of a point's requests, and whether the warm-up's are among them."""
    place = folder / row["point"] / f"try-{row['try']}"
    files, warm_up = [place / "outcomes.jsonl"], place / WARM_UP
    whole = warm_up.exists()
    if whole:
        files.append(warm_up)
    lines = [line for file in files for line in _text(file).splitlines()]
    return [of_json(json.loads(line)) for line in lines], whole


def _plans(said: Sweep, row: Row, capacity_rps: float) -> tuple[Plan, Plan]:
    """Return the plan with the promises of that capacity, and the plan of the point, as swept."""
    base = plans.load(plans.ROOT / said.plan)
    if said.slo_rps is not None:
        base = base.stretched(said.slo_rps / capacity_rps)
    plan = base.changed(
        name=row["point"],
        seed=row["repetition"],
        duration_s=said.point_s,
        warmup_s=said.warmup_s,
    )
    return base, plans_at(plan, row["load"] * capacity_rps)


def _agree(row: Row, offers: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
    """Raise SweepError where the plan offers other requests than the run did."""
    due = {one.number: one for one in offers}
    for one in outcomes:
        asked = due.get(one.number)
        if (
            asked is None
            or asked.klass != one.klass
            or abs(asked.at_s - one.scheduled_s) > SAME_MOMENT_S
        ):
            raise SweepError(
                f"{row['point']}: request {one.number} is another in the plan as it is now; "
                "take the checkout with which the sweep was run"
            )


def _known(outcomes: Sequence[Outcome]) -> dict[int, int]:
    """Return the prompt tokens that the engine counted: a cloud counts its own."""
    return {
        one.number: one.prompt_tokens
        for one in outcomes
        if one.target == LOCAL and one.prompt_tokens
    }


def _prompts(offers: Sequence[Job], known: Mapping[int, int]) -> list[int]:
    """Return each request's prompt tokens; those that nobody counted by their text.

    A chat template adds the same to each: what it adds to those that were counted.
    """
    tokens = splitter()
    by_text = [len(tokens.pieces(one.prompt)) for one in offers]
    pairs = list(zip(offers, by_text, strict=True))
    added = [known[one.number] - count for one, count in pairs if one.number in known]
    template = round(statistics.median(added)) if added else 0
    return [known.get(one.number, max(1, count + template)) for one, count in pairs]


def _router(said: Sweep, row: Row, base: Plan, folder: Path, engine: Path) -> Router:
    place = folder / row["point"] / f"try-{row['try']}"
    built = _json(engine)
    prior = built.get("step_s")
    return Router(
        policy_of(_policy_text(said, row, base, place)),
        EngineLimits(
            built["kv_blocks"] * built["tokens_per_block"],
            built["max_batch_size"],
            built["max_num_tokens"],
            built["max_queue_size"],
        ),
        UNKNOWN if prior is None else Coefficients(*prior),
        _memory(place / LEARNT),
    )


def _policy_text(said: Sweep, row: Row, base: Plan, place: Path) -> str:
    """Return the policy as the router had it; where none was kept, as it is now."""
    if (place / POLICY).exists():
        return _text(place / POLICY)
    one = said.by_name.get(row["policy"])
    if one is None:
        raise SweepError(
            f"{row['point']}: sweep {said.name} has no policy {row['policy']} any more"
        )
    return policy_text(one, {**promises(base), "cloud_url": NOWHERE})


def _memory(path: Path) -> Memory:
    """Return what the router had learnt before the point."""
    try:
        return Memory.model_validate(_json(path) if path.exists() else {})
    except ValidationError as error:
        raise SweepError(f"{path}: is not what a router learnt: {error}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise SweepError(f"{path}: is no JSON: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SweepError(f"{path}: cannot be read: {error.strerror}") from error
