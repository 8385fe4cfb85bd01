"""A scenario file: which traces, which classes, which fleet and cloud, and what may go wrong.

Strict, as a policy is: unknown keys and contradictions are errors. Times are milliseconds in the
file, as in a policy, and seconds everywhere else.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forebay.errors import SettingsError
from forebay.lab.engine_sim import EngineLimits
from forebay.lab.step_time import LinearLaw, MaxLaw, Noise, StepLaw
from forebay.policy.admission.model import Coefficients

if TYPE_CHECKING:
    from pathlib import Path

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
_EPS = 1e-6
_COEFFICIENTS = ("a_ms", "b_ms", "c_ms", "d_ms")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TraceFile(_Strict):
    """One trace and the mix that deals its requests their classes; `file` is beside ours."""

    file: str
    mix: str


class Columns(_Strict):
    """Which column holds what."""

    arrival: str
    input: str
    output: str


class SloClass(_Strict):
    """A class's promises; `spill: false` says that its requests may not leave."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    e2e_ms: Positive | None = None
    spill: bool = True

    @model_validator(mode="after")
    def _promises(self) -> SloClass:
        if self.ttft_ms is None and self.e2e_ms is None:
            raise ValueError("a class promises ttft_ms or e2e_ms; nothing to attain otherwise")
        return self


class FleetSpec(_Strict):
    """Equal replicas: their number, limits, and how often their metrics are read."""

    replicas: Count
    kv_tokens: Count
    max_batch: Count
    step_tokens: Count
    scrape_ms: Positive = 200.0

    @model_validator(mode="after")
    def _room(self) -> FleetSpec:
        if self.step_tokens <= self.max_batch:
            raise ValueError(
                "step_tokens must exceed max_batch, or a full batch takes no prompt in"
            )
        return self

    def limits(self) -> EngineLimits:
        """Return what one replica holds."""
        return EngineLimits(self.kv_tokens, self.max_batch, self.step_tokens)


class NoiseSpec(_Strict):
    """What `step_time.Noise` takes. Stalls and bursts only slow a step; `sigma` does either."""

    sigma: Annotated[float, Field(ge=0)] = 0.0
    stall_share: Share = 0.0
    stall_factor: Annotated[float, Field(ge=1)] = 1.0
    burst_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    burst_factor: Annotated[float, Field(ge=1)] = 1.0
    burst_steps: Annotated[float, Field(ge=1)] = 1.0


class LinearEngine(_Strict):
    """Coefficients as numbers, or the `fit` that a real run wrote: JSON with the same names."""

    form: Literal["linear"]
    a_ms: Positive | None = None
    b_ms: Positive | None = None
    c_ms: Positive | None = None
    d_ms: Positive | None = None
    fit: str | None = None
    noise: NoiseSpec = NoiseSpec()

    @model_validator(mode="after")
    def _told_once(self) -> LinearEngine:
        told = [one is not None for one in (self.a_ms, self.b_ms, self.c_ms, self.d_ms)]
        if (self.fit is None) != all(told) or (self.fit is not None and any(told)):
            raise ValueError("give a_ms, b_ms, c_ms and d_ms, or else fit: FILE")
        return self


class MaxEngine(_Strict):
    """The roofline of `step_time.MaxLaw`."""

    form: Literal["max"]
    compute_ms: Positive
    compute_ms_per_token: Positive
    compute_block_tokens: Count
    memory_ms: Positive
    memory_ms_per_kv_token: Positive
    kv_block_tokens: Count
    noise: NoiseSpec = NoiseSpec()


class CloudSpec(_Strict):
    """The spill target: TTFT is lognormal, now and then `slow_ms` longer; TPOT is constant."""

    ttft_median_ms: Positive
    ttft_sigma: Annotated[float, Field(ge=0, le=10)]
    slow_share: Share = 0.0
    slow_ms: Annotated[float, Field(ge=0)] = 0.0
    tpot_ms: Positive
    input_usd_per_million: Positive
    output_usd_per_million: Positive


class Disturbance(_Strict):
    """What goes wrong; each key alone or together.

    From the share `from` of the run on engines slow down, replicas die and prices change; all else
    holds from the first request on. `max_tokens` stands for the scenario's. `foreign` is the share
    of the requests that reach the engines past the router, which knows of them by scrapes alone;
    rows are of the others.
    """

    model_config = ConfigDict(populate_by_name=True)

    start: Annotated[float, Field(ge=0, le=1, alias="from")] = 0.0
    engine_factor: Positive = 1.0
    scrape_ms: Positive | None = None
    prior_factor: Positive = 1.0
    dies: Annotated[int, Field(ge=0)] = 0
    price_factor: Positive = 1.0
    budget_share: Positive | None = None
    heavy_tail: bool = False
    max_tokens: Count | None = None
    routers: Count = 1
    owned: bool = False
    foreign: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def turns(self) -> bool:
        """Whether anything changes at `start`."""
        return self.engine_factor != 1.0 or self.price_factor != 1.0 or self.dies > 0

    @model_validator(mode="after")
    def _later(self) -> Disturbance:
        if self.start and not self.turns:
            raise ValueError(
                "from: goes with engine_factor, dies or price_factor; all else holds from the "
                "first request on"
            )
        return self


class Scenario(_Strict):
    """The whole file."""

    name: str
    traces: Annotated[tuple[TraceFile, ...], Field(min_length=1)]
    columns: Columns
    mixes: dict[str, dict[str, Share]]
    classes: Annotated[dict[str, SloClass], Field(min_length=1)]
    attainment: Annotated[float, Field(gt=0, lt=1)] = 0.99
    max_tokens: Count
    fleet: FleetSpec
    engines: dict[str, Annotated[LinearEngine | MaxEngine, Field(discriminator="form")]]
    engine: str
    cloud: CloudSpec
    disturbances: dict[str, Disturbance] = {}

    @model_validator(mode="after")
    def _names(self) -> Scenario:
        if self.engine not in self.engines:
            raise ValueError(f"engine {self.engine!r} is not among engines")
        if "other" not in self.mixes:
            raise ValueError("mixes needs `other`, for traces that are not named here")
        for name, mix in self.mixes.items():
            strange = [one for one in mix if one not in self.classes]
            if strange:
                raise ValueError(f"mix {name!r} names {strange[0]!r}, which is no class")
            if abs(sum(mix.values()) - 1.0) > _EPS:
                raise ValueError(f"the shares of mix {name!r} add up to {sum(mix.values()):g}")
        for trace in self.traces:
            if trace.mix not in self.mixes:
                raise ValueError(
                    f"trace {trace.file!r} names mix {trace.mix!r}, which is not there"
                )
        return self

    @model_validator(mode="after")
    def _replicas_left(self) -> Scenario:
        replicas = self.fleet.replicas
        for name, wrong in self.disturbances.items():
            if wrong.dies >= replicas:
                raise ValueError(
                    f"disturbance {name!r} lets {wrong.dies} of {replicas} replicas die; "
                    "one must be left"
                )
            if wrong.owned and wrong.routers > replicas:
                raise ValueError(
                    f"disturbance {name!r} shares {replicas} replicas among {wrong.routers} "
                    "routers; each must own one"
                )
        return self


def read_scenario(path: Path) -> Scenario:
    """Return a checked scenario.

    Raises:
        SettingsError: a line for each error: the file, the key, what is wrong.
    """
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
        return Scenario.model_validate(said)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors()
        )
        raise SettingsError("\n".join(lines)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path}: is no YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML in which no key is there twice: the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own shape
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is here twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


def law_of(scenario: Scenario, form: str, beside: Path) -> tuple[StepLaw, Noise]:
    """Return the step law and the noise of one of the scenario's engines.

    `beside` is the directory that a `fit` file is relative to.

    Raises:
        SettingsError: no such engine, or its fit cannot be read.
    """
    spec = scenario.engines.get(form)
    if spec is None:
        raise SettingsError(f"no engine {form!r}; the scenario has {', '.join(scenario.engines)}")
    noise = Noise(**spec.noise.model_dump())
    if isinstance(spec, MaxEngine):
        return MaxLaw(
            spec.compute_ms / 1e3,
            spec.compute_ms_per_token / 1e3,
            spec.compute_block_tokens,
            spec.memory_ms / 1e3,
            spec.memory_ms_per_kv_token / 1e3,
            spec.kv_block_tokens,
        ), noise
    told = _fitted(beside / spec.fit) if spec.fit else spec.model_dump()
    return LinearLaw(Coefficients(*(told[name] / 1e3 for name in _COEFFICIENTS))), noise


def _fitted(path: Path) -> dict[str, float]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        fit = {name: float(told[name]) for name in _COEFFICIENTS}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: is no fit with a_ms, b_ms, c_ms and d_ms: {error}") from None
    if fit["a_ms"] <= 0.0 or not all(0.0 <= one < math.inf for one in fit.values()):
        raise SettingsError(f"{path}: no such engine: a_ms must be above 0, none below, all finite")
    return fit
