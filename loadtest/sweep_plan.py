"""A sweep as one strict YAML file: which plan, at which loads, under which router policies."""

from __future__ import annotations

import hashlib
from string import Template
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from enginebuild.errors import SpecError
from enginebuild.strict import Strict, read_file
from loadtest import plan as plans
from loadtest.plan import ROOT, Count, PlanError, PositiveSeconds, Price, Seconds, Share
from loadtest.prompts import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadtest.plan import Plan

CODE = ("router", "loadtest", "model_repository", "engines")
"""Folders whose Python serves a point, offers it or judges it."""

PROBED = "gsm8k_even"
"""The corpus that the probe's prompts are cut from."""

ENGINE = ROOT / "model_repository" / "tensorrt_llm" / "1" / "engine" / "engine.json"
"""What was built: the manifest has the hashes of all of it."""

Load = Annotated[float, Field(gt=0)]
_NOT_OF_A_POINT = {"name", "loads", "policies", "repetitions"}
_DIGITS = 16


class Configuration(Strict):
    """One way to run the router: a policy file, and what replaces `${NAME}` in it.

    `loads` are those of the sweep's at which it runs; by default all.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    policy: str
    set: dict[str, str | int | float] = Field(default_factory=dict)
    cloud: bool = True
    loads: tuple[Load, ...] | None = None


class Capacity(Strict):
    """How 1x is found: so many clients in a closed loop under one of the policies."""

    policy: str
    clients: Count = 24
    for_s: PositiveSeconds = 60.0
    requests_per_s: Annotated[float, Field(gt=0)] | None = None


class Probe(Strict):
    """The fixed burst that tells whether the bare engine is as fast as it was."""

    clients: Count = 8
    requests: Count = 24
    prompt_tokens: Count = 41
    output_tokens: Count = 32
    may_move: Share = 0.15
    reruns: Annotated[int, Field(ge=0)] = 1


class Cores(Strict):
    """Which CPU runs the engine, and which runs router, stub and generator."""

    engine: Annotated[int, Field(ge=0)] = 0
    rest: Annotated[int, Field(ge=0)] = 1


class Cloud(Strict):
    """The paced stub: flags for `python -m loadtest.cloud_stub`, and what its targets cost."""

    flags: tuple[str, ...] = ()
    prices: dict[str, Price] = Field(default_factory=dict)


class Sweep(Strict):
    """All points: every load under every policy, repeated, interleaved.

    Each repetition begins with a measurement of capacity, for days and machines differ. The
    plan's SLOs are those of an engine that answers `slo_rps` requests/s at most; for another
    they are stretched by how much slower it is.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    plan: str
    loads: Annotated[tuple[Load, ...], Field(min_length=1)]
    policies: Annotated[tuple[Configuration, ...], Field(min_length=1)]
    repetitions: Count = 3
    point_s: PositiveSeconds = 300.0
    warmup_s: Seconds = 15.0
    slo_rps: Annotated[float, Field(gt=0)] | None = None
    capacity: Capacity
    probe: Probe = Probe()
    cores: Cores = Cores()
    cloud: Cloud = Cloud()

    @model_validator(mode="after")
    def _agrees(self) -> Sweep:
        names = [one.name for one in self.policies]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the policy {twice} is here twice")
        if self.capacity.policy not in names:
            raise ValueError(
                f"capacity.policy is {self.capacity.policy}; the policies are {', '.join(names)}"
            )
        if self.by_name[self.capacity.policy].cloud and self.capacity.requests_per_s is None:
            raise ValueError(
                f"capacity.policy is {self.capacity.policy}, which has a cloud: what that answers "
                "is no capacity of the engine; name one with cloud: false"
            )
        said = {load for one in self.policies for load in one.loads or ()}
        if odd := said - set(self.loads):
            raise ValueError(f"a policy runs at {min(odd):g}, which is not among the loads")
        return self

    @property
    def by_name(self) -> dict[str, Configuration]:
        """The configurations by name."""
        return {one.name: one for one in self.policies}

    def points(self) -> list[Point]:
        """Return every point; all policies at one load stand beside each other in time.

        Every second load is taken in reverse, so that no policy always follows the same one.
        """
        made = []
        for repetition in range(1, self.repetitions + 1):
            for turn, load in enumerate(self.loads):
                order = self.policies if (repetition + turn) % 2 else self.policies[::-1]
                made += [
                    Point(policy=one.name, load=load, repetition=repetition)
                    for one in order
                    if one.loads is None or load in one.loads
                ]
        return made


class Point(Strict):
    """One load under one policy, once."""

    policy: str
    load: Load
    repetition: Count

    @property
    def key(self) -> str:
        """The point's name in files."""
        return f"{self.policy}-{self.load:g}x-{self.repetition}"

    @property
    def luck(self) -> int:
        """The cloud's seed: the same under all policies, another at each load and repetition."""
        return 1_000_000 * self.repetition + round(1000 * self.load)


def version(said: Sweep, one: Configuration) -> str:
    """Return a hash of all that a point under a policy depends on, but its load and its seed.

    That is the plan with its traces and prompts, the policy, the engine as it was built, and the
    code of all that serves, offers and judges a point.
    """
    content = hashlib.sha256(said.model_dump_json(exclude=_NOT_OF_A_POINT).encode())
    content.update(one.model_dump_json(exclude={"loads"}).encode())
    plan = plans.load(ROOT / said.plan)
    texts = sorted({PROBED, *(kind.prompts for kind in plan.classes)})
    offered = [*(ROOT / path for path in plan.traces), *(FOLDER / f"{one}.jsonl" for one in texts)]
    code = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in (ROOT / said.plan, ROOT / one.policy, ENGINE, *offered, *code):
        if path.is_file():
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            content.update(name.as_posix().encode() + path.read_bytes())
    return content.hexdigest()[:_DIGITS]


def load(path: Path) -> Sweep:
    """Return the sweep of a file.

    Raises:
        PlanError: it cannot be read, or is wrong: `FILE:LINE:COL: what; did you mean NAME?`
    """
    try:
        said = read_file(path, Sweep)
    except SpecError as error:
        raise PlanError(str(error)) from error
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    missing = [one for one in (said.plan, *(p.policy for p in said.policies)) if not _is_there(one)]
    if missing:
        raise PlanError(f"{path}: no file {missing[0]} (paths are relative to the checkout)")
    plans.load(ROOT / said.plan).changed(duration_s=said.point_s, warmup_s=said.warmup_s)
    return said


def _is_there(path: str) -> bool:
    return (ROOT / path).is_file()


def promises(plan: Plan) -> dict[str, str]:
    """Return what a policy may call the plan's SLOs by: `${CLASS_ttft_ms}` and so on."""
    return {
        f"{one.name}_{name}": f"{limit:.0f}"
        for one in plan.classes
        for name, limit in one.slo.model_dump().items()
        if name != "attainment" and limit is not None
    }


def policy_text(one: Configuration, values: Mapping[str, str]) -> str:
    """Return the policy of a configuration, with its own values and these in place.

    Raises:
        PlanError: the file names a value that is not set.
    """
    values = {**values, **{name: str(value) for name, value in one.set.items()}}
    try:
        return Template((ROOT / one.policy).read_text(encoding="utf-8")).substitute(values)
    except KeyError as error:
        raise PlanError(
            f"{one.policy} has ${{{error.args[0]}}}, which policy {one.name} does not set; "
            f"add it under set:"
        ) from error
    except ValueError as error:
        raise PlanError(f"{one.policy}: {error}; write $$ for a dollar sign") from error
