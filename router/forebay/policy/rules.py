"""The policy as an operator writes it: one strict document, frozen once read.

The short form of each key keeps its meaning beside the rich one (`fallback: x` is a ladder of
one rung). Names are checked against each other in `policy.check`, where a whole document is at
hand; here is only what one key may hold.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from forebay.policy.harm import CATEGORIES
from forebay.policy.replicas import PORT_MAX, ReplicaAddress
from forebay.values import Release  # noqa: TC001 - pydantic reads it at run time

HUMAN = "human_review_queue"
"""The last rung that is a person. Always known, never a spill target."""

DEVICE = "device"
"""The residency of an edge target: a server on a device or in an office."""

VERIFIERS = (
    "json_schema",
    "pii_redaction",
    "tool_call_schema",
    "citations_required",
    "grounding",
    "policy_rules",
    "refusal",
    "safety",
)
"""Every verifier a policy may name, built or not (`policy.verify` knows which are)."""


class Rule(BaseModel):
    """What all parts of a policy share: immutable, and no key that is not known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def _listed(value: object) -> object:
    """Read a single name as a list of one."""
    return (value,) if isinstance(value, str) else value


Name = Annotated[str, Field(min_length=1, max_length=128)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Sensitivity = Literal["low", "medium", "high"]
# Strict: `true` is no number, and "12" in quotes is a mistake worth telling.
Millis = Annotated[int, Field(strict=True, gt=0, le=86_400_000)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Count = Annotated[int, Field(strict=True, gt=0)]
Usd = Annotated[float, Field(strict=True, ge=0)]


class Match(Rule):
    """Which requests a route takes: every key said must hold; a list means any of it."""

    task: Names = ()
    sensitivity: Annotated[tuple[Sensitivity, ...], BeforeValidator(_listed)] = ()
    tier: Names = ()
    language: Names = ()
    mode: Names = ()
    structure: Names = ()
    difficulty: Names = ()


class AnyOf(Rule):
    """Several first choices; the best that is predicted to meet the SLO is taken."""

    any_of: Annotated[tuple[Name, ...], Field(min_length=2)]
    prefer: Literal["cost", "latency", "quality"] = "cost"


class Constraints(Rule):
    """Limits of a class. `max_latency_ms` is an E2E SLO with attainment 0.99.

    `max_wait_ms` bounds the wait in the router's queue; a class that is promised no latency
    waits only if this says so.
    """

    max_latency_ms: Millis | None = None
    max_wait_ms: Millis | None = None
    max_inflight: Count | None = None
    max_cost_usd: Usd | None = None


class Slo(Rule):
    """The latency that a class is promised, and to what share of its requests."""

    ttft_ms: Millis | None = None
    tpot_ms: Millis | None = None
    e2e_ms: Millis | None = None
    attainment: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.99


class Spill(Rule):
    """Where a class goes when capacity is gone.

    `slo_at_risk`: when its target is predicted to break the class's promise, or a limit is met;
    `saturated`: only when a limit is met.
    """

    to: str
    when: Literal["saturated", "slo_at_risk"] = "slo_at_risk"
    max_cost_usd: Usd | None = Field(
        default=None, validation_alias=AliasChoices("max_cost", "max_cost_usd")
    )


class Budget(Rule):
    """What a class may spend on clouds in a window."""

    usd: Usd
    per: Literal["hour", "day", "month"] = "day"


class Hedge(Rule):
    """A second attempt beside a slow first one."""

    after_ms: Millis
    to: str


class Retention(Rule):
    """How long the records of a class are kept."""

    days: Count


def _of_every(value: object) -> object:
    """Read one act as the act for every category."""
    return dict.fromkeys(CATEGORIES, value) if isinstance(value, str) else value


Acts = Annotated[dict[Name, Literal["block", "flag", "human"]] | None, BeforeValidator(_of_every)]


class Safety(Rule):
    """What a class does about each category, of what is asked and of what is answered.

    A side that is not said blocks every category; of one that is said, only those it names count.
    """

    input: Acts = None
    output: Acts = None


class Route(Rule):
    """One route class: what it takes, who answers, what is checked, where it goes next."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")] | None = None
    match: Match = Match()
    model: str | AnyOf
    constraints: Constraints = Constraints()
    slo: Slo = Slo()
    spill: Literal["never"] | Spill | None = None
    downgrade: Name | None = None
    fallback: Names = ()
    verify: Names = ()
    tools: Names = ()
    rules: Names = ()
    safety: Safety = Safety()
    json_schema: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("schema", "json_schema")
    )
    stream: Release | None = None
    repair: Annotated[int, Field(strict=True, ge=0, le=1)] = 0
    hedge: Hedge | None = None
    budget: Budget | None = None
    residency: Names = ()
    retention: Retention | None = None
    on_exhausted: Literal["refuse", "flag", "human"] = "refuse"


class Limits(Rule):
    """What a target is never asked beyond. `kv_ceiling` is the share of KV cache in use.

    `context_tokens`, prompt and answer together, is for clouds: an engine's own is known.
    """

    max_inflight: Count | None = None
    max_waiting: Annotated[int, Field(strict=True, ge=0)] | None = None
    max_output_tokens: Count | None = None
    context_tokens: Annotated[int, Field(strict=True, gt=1)] | None = None
    kv_ceiling: Fraction = 0.95


Port = Annotated[int, Field(strict=True, gt=0, le=PORT_MAX)]


class Replica(Rule):
    """One server of several; the short form is its `host:port` alone."""

    address: Name
    metrics: Name | None = None


class Lookup(Rule):
    """Replicas that are looked up: a name of DNS, or a file; exactly one of the two.

    `port`, `metrics_port` and `family` belong to `dns`; `metrics_port: null` scrapes nothing.
    """

    dns: Name | None = None
    port: Port = 8001
    metrics_port: Port | None = 8002
    family: Literal["any", "ipv4", "ipv6"] = "any"
    file: Annotated[str, Field(min_length=1)] | None = None


def _addressed(value: object) -> object:
    """Read `host:port` as a replica that has nothing but an address."""
    return {"address": value} if isinstance(value, str) else value


def _looked_up(value: object) -> str:
    return "by lookup" if isinstance(value, dict | Lookup) else "by list"


Listed = Annotated[tuple[Annotated[Replica, BeforeValidator(_addressed)], ...], Field(min_length=1)]
# The branch is chosen by shape, so that only its own errors are told.
Replicas = Annotated[
    Annotated[Lookup, Tag("by lookup")] | Annotated[Listed, Tag("by list")],
    Discriminator(_looked_up),
]


class Triton(Rule):
    """An engine in a Triton server; unset, `address` and `engine` are those of the stack itself.

    `address` with `metrics` is the short form of one static replica; `replicas` are several.
    """

    model: str = "tensorrt_llm"
    engine: str | None = None
    address: str | None = None
    metrics: str | None = None
    replicas: Replicas | None = None

    @property
    def static(self) -> tuple[ReplicaAddress, ...]:
        """The replicas that the policy itself lists; none where they are looked up or unsaid."""
        if isinstance(self.replicas, tuple):
            return tuple(ReplicaAddress(r.address, r.metrics) for r in self.replicas)
        return () if self.address is None else (ReplicaAddress(self.address, self.metrics),)

    @property
    def lookup(self) -> Lookup | None:
        """How its replicas are looked up, where they are."""
        return self.replicas if isinstance(self.replicas, Lookup) else None


class Cloud(Rule):
    """A model behind a provider's API; the key is named, never written."""

    model: str
    base_url: str | None = None
    key: Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")] | None = None


class Price(Rule):
    """What a target costs for a million tokens."""

    input_usd_per_mtok: Usd = 0.0
    output_usd_per_mtok: Usd = 0.0
    cached_usd_per_mtok: Usd | None = None


class Expect(Rule):
    """A cloud's latency, the slowest of a hundred, until the router has seen enough of it."""

    ttft_ms: Millis = 1500
    tpot_ms: Millis = 50


class Tier(Rule):
    """A user tier: its share of the engines while others wait, against the others' weights."""

    weight: Annotated[float, Field(strict=True, gt=0, le=1000)] = 1.0


class Target(Rule):
    """One entry of `models:`: exactly one adapter, and what is promised about it."""

    triton: Triton | None = None
    openai: Cloud | None = None
    anthropic: Cloud | None = None
    google: Cloud | None = None
    limits: Limits = Limits()
    price: Price = Price()
    expect: Expect = Expect()
    residency: str | None = None
    quality: Fraction | None = None
    refuses: Names = ()
    requires: dict[str, Names] = Field(default_factory=dict)

    @property
    def adapter(self) -> str:
        """The name of the one adapter that is set; empty where none or several are."""
        said = [name for name in ADAPTERS if getattr(self, name) is not None]
        return said[0] if len(said) == 1 else ""

    @property
    def is_engine(self) -> bool:
        """Whether it is an engine in Triton, whose load is known and which keeps to a form."""
        return self.adapter == "triton"

    @property
    def is_edge(self) -> bool:
        """Whether it is a server of the operator's own, small and near, behind a provider's API."""
        return not self.is_engine and self.residency == DEVICE

    @property
    def is_cloud(self) -> bool:
        """Whether what it is asked leaves the house: for any but an engine and an edge target."""
        return not (self.is_engine or self.is_edge)


ADAPTERS = ("triton", "openai", "anthropic", "google")


class ToolRule(Rule):
    """One entry of `tools:`: what a model is told of a tool."""

    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class ContentRule(Rule):
    """One entry of `rules:`: a CEL expression over request and answer for `policy_rules`.

    `block` and `flag` act where it does not hold; where an `allow` holds, no later rule is asked.
    """

    expression: str
    action: Literal["allow", "block", "flag"] = "block"
    message: str = ""


class When(Rule):
    """What a classification rule looks for in the text; every key said must hold."""

    words: Names = ()
    pattern: str | None = None


class Set(Rule):
    """What a classification rule says of a request it fires on."""

    task: str | None = None
    sensitivity: Sensitivity | None = None
    tier: str | None = None
    language: str | None = None
    mode: str | None = None


class Classify(Rule):
    """A classification rule. The first that sets a label wins; sensitivity only rises."""

    when: When
    set: Set


class Document(Rule):
    """A whole policy file."""

    models: dict[str, Target]
    routes: tuple[Route, ...] = ()
    default: Route | None = None
    classify: tuple[Classify, ...] = ()
    tiers: dict[str, Tier] = Field(default_factory=dict)
    tools: dict[str, ToolRule] = Field(default_factory=dict)
    rules: dict[str, ContentRule] = Field(default_factory=dict)
