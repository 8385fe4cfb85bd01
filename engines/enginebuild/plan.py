"""The capacity plan of a model on a SKU: what fits, under which limits, and how fast it is.

`plan` is the one entry. It reads specs and computes; it touches no GPU and no clock, so two
plans of the same question are the same byte for byte.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from enginebuild import capacity, fits, goals, workshop
from enginebuild.ask import Ask, Refusal
from enginebuild.capacity import Memory
from enginebuild.goals import Goal
from enginebuild.measured import Case
from enginebuild.performance import Point, Workload, batches
from enginebuild.precision import PRECISIONS
from enginebuild.roofline import Roofline
from enginebuild.rules import machine_refusals, refusals
from enginebuild.spec import SPECS, Model, Sku, load_model, load_sku

# What is planned where no precision is asked for: the fastest that costs little accuracy,
# then what else fits.
PREFERRED = (
    "fp8",
    "w4a8_mxfp4",
    "w4a16_mxfp4",
    "bf16",
    "int8_wo",
    "w4a8_awq",
    "int4_awq",
    "nvfp4",
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks. None leaves the choice to the plan, which says what it chose."""

    model: str
    sku: str
    precision: str | None = None
    goal: Goal = "balanced"
    gpus: int = 1
    tp: int | None = None
    pp: int | None = None
    output: str | None = None
    workload: Workload = field(default_factory=Workload)
    max_seq_len: int | None = None
    host_memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine would be built and served with. Lengths in tokens."""

    max_batch_size: int
    max_num_tokens: int
    max_input_len: int
    max_seq_len: int
    kv_fraction: float
    tokens_per_block: int


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV cache on each GPU. `longest_tokens` is one sequence alone, as trained."""

    bytes_per_token: int
    blocks: int
    tokens: int
    longest_tokens: int


@dataclass(frozen=True, slots=True)
class Curve:
    """What one precision does at each batch that fits it."""

    precision: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A build that works on paper. Bytes are of one GPU, tokens a second of the replica.

    `step_s` are seconds of a step as `Roofline.linear` says them.
    """

    model: str
    sku: str
    sku_name: str
    precision: str
    output: str
    goal: Goal
    gpus: int
    tp: int
    pp: int
    workload: Workload
    limits: Limits
    memory: Memory
    cache: Cache
    points: tuple[Point, ...]
    curves: tuple[Curve, ...]
    step_s: tuple[float, ...]
    host_bytes: int
    build_refusals: tuple[Refusal, ...]

    @property
    def chosen(self) -> Point:
        """What the engine does with its batch full."""
        return self.points[-1]


@dataclass(frozen=True, slots=True)
class Refused:
    """An ask that cannot work, and every reason."""

    model: str
    sku: str
    precision: str
    gpus: int
    refusals: tuple[Refusal, ...]


def plan(question: Question, specs: Path = SPECS) -> Plan | Refused:
    """Return the plan, or every reason why there is none.

    Raises:
        SpecError: if the model or the SKU is not known, or its file is wrong.
    """
    model, sku = load_model(question.model, specs), load_sku(question.sku, specs)
    ask = _ask(question, model, sku)
    told = machine_refusals(ask)
    if not told:
        ask = goals.limited(ask, question.goal, question.workload, question.max_seq_len)
        told = refusals(ask)
        if not told and ask.max_seq_len < question.workload.tokens:
            told = (_request_too_long(ask, question.workload),)
    if told:
        return _refused(ask, question, told, specs)
    return _plan(ask, question)


def case(found: Plan) -> Case:
    """Return the deployment that is planned, as another estimator is asked about it."""
    return Case(
        found.model,
        found.sku,
        found.precision,
        found.tp,
        found.pp,
        found.limits.max_batch_size,
        found.workload,
    )


def _ask(question: Question, model: Model, sku: Sku) -> Ask:
    """Return the question with its gaps filled: layout, output, precision."""
    pp = question.pp or max(1, question.gpus // question.tp if question.tp else 1)
    flow = "engine" if model.engine_flow else "llmapi"
    ask = Ask(
        model_id=question.model,
        model=model,
        sku_id=question.sku,
        sku=sku,
        precision=question.precision or "",
        gpus=question.gpus,
        tp=question.tp or max(1, question.gpus // pp),
        pp=pp,
        output=question.output or flow,
    )
    return ask if question.precision else replace(ask, precision=_precision(ask, question))


def _precision(ask: Ask, question: Question) -> str:
    """Return the first preferred precision that works; else the first the machine can run."""
    runs = [replace(ask, precision=one) for one in PREFERRED if one in ask.sku.precisions]
    if ask.sku.gpu is None or not runs:
        return ask.sku.precisions[0]
    for one in runs:
        if fits.works(one, question.goal, question.workload):
            return one.precision
    able = [one for one in runs if not machine_refusals(one)]
    return (able or runs)[0].precision


def _refused(ask: Ask, question: Question, told: tuple[Refusal, ...], specs: Path) -> Refused:
    """Return the refusals; one that only says that it is too large names what is not."""
    if any(not refusal.nearest for refusal in told):
        nearest = fits.smallest_fits(ask, question.goal, question.workload, specs)
        told = tuple(one if one.nearest else replace(one, nearest=nearest) for one in told)
    return Refused(ask.model_id, ask.sku_id, ask.precision, ask.gpus, told)


def _request_too_long(ask: Ask, workload: Workload) -> Refusal:
    """Return why one request of the workload does not fit: the model, the pool, or the ask."""
    trained = ask.model.architecture.context_length
    source = (
        f"engines/models/{ask.model_id}.yaml" if ask.max_seq_len == trained else "--max-seq-len"
    )
    if ask.max_seq_len == goals.longest_sequence(ask) < trained:
        source = "engines/enginebuild/capacity.py"
    return Refusal(
        "request-length",
        f"a request of {workload.input_tokens} tokens in and {workload.output_tokens} out is "
        f"longer than the max_seq_len of {ask.max_seq_len}",
        source,
        f"Ask for requests of {ask.max_seq_len} tokens" if ask.max_seq_len == trained else "",
    )


def _plan(ask: Ask, question: Question) -> Plan:
    deployment = ask.deployment()
    held = capacity.memory(
        deployment,
        max_num_tokens=ask.max_num_tokens,
        max_batch_size=ask.max_batch_size,
        kv_fraction=ask.kv_fraction,
    )
    blocks = capacity.blocks(deployment, held.kv_pool)
    sizes = batches(ask.max_batch_size)
    return Plan(
        model=ask.model_id,
        sku=ask.sku_id,
        sku_name=ask.sku.name,
        precision=ask.precision,
        output=ask.output,
        goal=question.goal,
        gpus=ask.gpus,
        tp=ask.tp,
        pp=ask.pp,
        workload=question.workload,
        limits=_limits(ask),
        memory=held,
        cache=Cache(
            capacity.kv_bytes_per_token(deployment),
            blocks,
            blocks * capacity.TOKENS_PER_BLOCK,
            goals.longest_sequence(ask),
        ),
        points=goals.points(ask, question.workload, sizes),
        curves=_curves(ask, question),
        step_s=tuple(
            float(f"{one:.4g}") for one in Roofline(deployment).linear(ask.max_num_tokens)
        ),
        host_bytes=workshop.needed(ask).host_bytes,
        build_refusals=workshop.workshop_refusals(ask, question.host_memory_gib),
    )


def _limits(ask: Ask) -> Limits:
    return Limits(
        max_batch_size=ask.max_batch_size,
        max_num_tokens=ask.max_num_tokens,
        max_input_len=ask.max_input_len,
        max_seq_len=ask.max_seq_len,
        kv_fraction=ask.kv_fraction,
        tokens_per_block=capacity.TOKENS_PER_BLOCK,
    )


def _curves(ask: Ask, question: Question) -> tuple[Curve, ...]:
    """Return the curve of each precision that works there, the asked one among them."""
    found: list[Curve] = []
    for precision in PRECISIONS:
        if precision not in ask.sku.precisions:
            continue
        other = replace(ask, precision=precision)
        if not fits.works(other, question.goal, question.workload):
            continue
        wide = goals.limited(other, "throughput", question.workload, question.workload.tokens)
        sizes = batches(wide.max_batch_size)
        found.append(Curve(precision, goals.points(wide, question.workload, sizes)))
    return tuple(found)
