"""A GPU build with every gap filled from the capacity plan, and held to every rule.

Pure: the same spec gives the same planned build, and the same bytes when written.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebuild import capacity, plan_text
from enginebuild.ask import Ask, Refusal
from enginebuild.errors import BuildError
from enginebuild.gpu_spec import GpuSpec
from enginebuild.performance import Workload
from enginebuild.plan import Plan, Question, Refused, plan
from enginebuild.precision import PRECISIONS, Precision
from enginebuild.rules import refusals
from enginebuild.spec import SPECS

QUEUE_BATCHES = 4  # requests that may wait, in full batches, where the build does not say


class RefusedBuildError(BuildError):
    """A build that a rule refuses; its text is one sentence for each."""

    def __init__(self, build_id: str, told: tuple[Refusal, ...]) -> None:
        self.refusals = told
        super().__init__("\n".join(f"{build_id}: {one.sentence()}" for one in told))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine is built and served with. Lengths in tokens, the queue in requests."""

    max_batch_size: int
    max_num_tokens: int
    max_input_len: int
    max_seq_len: int
    max_queue_size: int
    kv_fraction: float
    tokens_per_block: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A build that may be made. `kv_tokens` is what the plan expects the KV pool to hold."""

    spec: GpuSpec
    plan: Plan
    limits: Limits
    kv_tokens: int

    @property
    def precision(self) -> Precision:
        """The precision's figures."""
        return PRECISIONS[self.plan.precision]

    @property
    def gpus(self) -> int:
        """Ranks of one replica; each takes one GPU."""
        return self.plan.gpus

    @property
    def sm(self) -> int:
        """The compute capability the engine is compiled for: 90 for 9.0."""
        assert self.spec.sku.gpu is not None, "a plan is made for a GPU only"
        return self.spec.sku.gpu.sm

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "build_id": self.spec.build_id,
            "build": self.spec.build.model_dump(),
            "limits": dataclasses.asdict(self.limits),
            "kv_tokens": self.kv_tokens,
            "plan": plan_text.as_json(self.plan),
        }


def planned(spec: GpuSpec, specs: Path = SPECS) -> Planned:
    """Return the build with its limits, derived from the plan where the spec does not say.

    Raises:
        RefusedBuildError: if a rule refuses the plan, or what the spec says instead of it.
    """
    found = plan(_question(spec), specs)
    if isinstance(found, Refused):
        raise RefusedBuildError(spec.build_id, found.refusals)
    limits = _limits(spec, found)
    ask = _ask(spec, found, limits)
    if told := refusals(ask):
        raise RefusedBuildError(spec.build_id, told)
    deployment = ask.deployment()
    held = capacity.memory(
        deployment,
        max_num_tokens=limits.max_num_tokens,
        max_batch_size=limits.max_batch_size,
        kv_fraction=limits.kv_fraction,
    )
    tokens = capacity.blocks(deployment, held.kv_pool) * capacity.TOKENS_PER_BLOCK
    return Planned(spec, found, limits, tokens)


def _question(spec: GpuSpec) -> Question:
    build = spec.build
    return Question(
        model=build.model,
        sku=build.sku,
        precision=build.precision,
        goal=build.goal,
        gpus=build.gpus,
        tp=build.tp,
        pp=build.pp,
        output="engine" if build.builder == "trtllm" else "llmapi",
        workload=Workload(build.requests.input_tokens, build.requests.output_tokens),
        max_seq_len=build.limits.max_seq_len,
    )


def _limits(spec: GpuSpec, found: Plan) -> Limits:
    said = spec.build.limits
    batch = said.max_batch_size or found.limits.max_batch_size
    seq = said.max_seq_len or found.limits.max_seq_len
    return Limits(
        max_batch_size=batch,
        max_num_tokens=said.max_num_tokens or found.limits.max_num_tokens,
        max_input_len=said.max_input_len or seq - 1,
        max_seq_len=seq,
        max_queue_size=said.max_queue_size or QUEUE_BATCHES * batch,
        kv_fraction=said.kv_fraction or found.limits.kv_fraction,
        tokens_per_block=found.limits.tokens_per_block,
    )


def _ask(spec: GpuSpec, found: Plan, limits: Limits) -> Ask:
    switches = spec.build.switches
    opt = switches.get("opt_num_tokens")
    return Ask(
        model_id=found.model,
        model=spec.model,
        sku_id=found.sku,
        sku=spec.sku,
        precision=found.precision,
        gpus=found.gpus,
        tp=found.tp,
        pp=found.pp,
        output=found.output,
        max_batch_size=limits.max_batch_size,
        max_num_tokens=limits.max_num_tokens,
        max_input_len=limits.max_input_len,
        max_seq_len=limits.max_seq_len,
        kv_fraction=limits.kv_fraction,
        chunked_context=spec.build.chunked_context,
        paged_kv_cache=switches.get("kv_cache_type", "paged") == "paged",
        paged_context_fmha=switches.get("use_paged_context_fmha", "enable") == "enable",
        multiple_profiles=switches.get("multiple_profiles") == "enable",
        opt_num_tokens=int(opt) if opt is not None and opt.isdigit() else None,
        plugins=frozenset(name for name, value in switches.items() if value != "disable"),
    )
