"""The values that walk the corridor: frozen, slotted, without behaviour that needs a clock.

Units end names: `_s` seconds, `_ms` milliseconds, `_tokens`, `_usd`; fractions run 0-1.
Times named `*_s` on requests and events are on the monotonic clock of `ports.Clock`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from forebay.errors import ForebayError

# ---- what a client asks ----------------------------------------------------------------

SENSITIVITIES = ("low", "medium", "high")
"""From least to most sensitive; a label may raise it and never lower it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of a request, by its client or by classification; None is "not said"."""

    task: str | None = None
    sensitivity: str | None = None
    tier: str | None = None
    language: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A document that the client brings along, to be cited by `id`."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that a model asks for; `arguments` is the JSON text it wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat, in OpenAI's roles: system, user, assistant, tool."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt that still needs the model's own chat template."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt sent to the model as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens; None leaves the choice to the target. `temperature` 0 is greedy.

    `end_id` is the token that ends an answer in place of the model's own.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    logprobs: bool = False
    end_id: int | None = None


@dataclass(frozen=True, slots=True)
class Guide:
    """The form an answer must have: `source` is a JSON Schema or a regular expression."""

    kind: Literal["json", "json_schema", "regex"]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as any door hands it to the corridor.

    `model` is `auto`, a route class or a target. `deadline_s` is absolute on the monotonic
    clock. `tool_choice` is auto, none, required, or the name of one tool. Where not
    `parallel_tool_calls`, an answer holds one call at most.
    """

    id: str
    model: str
    prompt: Chat | Text
    received_s: float
    sampling: Sampling = Sampling()
    guide: Guide | None = None
    labels: Labels = Labels()
    sources: tuple[Source, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    deadline_s: float | None = None
    stream: bool = True
    explain: bool = False
    door: str = "grpc"


# ---- what an engine is and says ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scrape:
    """One engine's own numbers as its server told them at `at_s`; `kv_used` is 0-1.

    `context_tokens` are prompt tokens in the current step and `generating` the streams in it.
    `pending` waits in front of the engine, in its server. `iterations` and `stats_at_us` (wall
    time) say when the engine last wrote; None, and 0 for a count of blocks, is "not told".
    """

    at_s: float
    active: int = 0
    waiting: int = 0
    scheduled: int = 0
    max_requests: int = 0
    kv_used: float = 0.0
    kv_blocks_max: int = 0
    kv_blocks_used: int = 0
    tokens_per_block: int = 0
    context_tokens: int = 0
    generating: int = 0
    iterations: int | None = None
    stats_at_us: int | None = None
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine can take: the longest prompt, prompt plus answer, guides it enforces."""

    max_input_tokens: int
    max_seq_tokens: int
    guides: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt in a target's own terms; `ids` is empty where the target tokenises itself.

    `whole` is False where counting ended once it was sure that the prompt is too long.
    """

    prompt_tokens: int
    ids: tuple[int, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one target: `max_tokens` and `deadline_s` are the corridor's, final.

    `replica` says which of the target's engines admission chose; empty where it has but one.
    `before` and `draft` are for a person: the attempts so far, and the last answer that failed.
    """

    request: Request
    prepared: Prepared
    max_tokens: int
    deadline_s: float | None
    replica: str = ""
    before: tuple[Attempt, ...] = ()
    draft: str = ""


Finish = Literal["stop", "length", "tool_calls", "ticket"]
"""Why an answer ended; `ticket` where there is none yet, because a person will give it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What an engine yields: text as decoded so far, tokens it took, the finish on the last.

    `usage` is what a provider has counted itself so far; the newest stands over our own count.
    `ticket` is all that comes of a person.
    """

    text: str = ""
    tokens: int = 0
    finish: Finish | None = None
    logprobs: tuple[float, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    ticket: Ticket | None = None


# ---- decisions --------------------------------------------------------------------------


class Reason(StrEnum):
    """Why a decision fell as it did; also the `reason` label of metrics and records."""

    ROUTE_MATCHED = "route_matched"
    CLASS_NAMED = "class_named"
    TARGET_NAMED = "target_named"
    DEFAULT_ROUTE = "default_route"
    HEADROOM = "headroom"
    ENGINE_DOWN = "engine_down"
    TARGET_FULL = "target_full"
    CLASS_FULL = "class_full"
    QUEUE_FULL = "queue_full"
    KV_CACHE_FULL = "kv_cache_full"
    PROMPT_TOO_LONG = "prompt_too_long"
    SLO_AT_RISK = "slo_at_risk"
    DEADLINE_AT_RISK = "deadline_at_risk"
    LATE_ANYWAY = "late_anyway"
    PREFILL_AHEAD = "prefill_ahead"
    WAITING_FULL = "waiting_full"
    COST_CAP = "cost_cap"
    BUDGET_SPENT = "budget_spent"
    BREAKER_OPEN = "breaker_open"
    CLOUD_TOO_SLOW = "cloud_too_slow"
    VERDICT_FAILED = "verdict_failed"
    FOR_A_PERSON = "for_a_person"
    SLOW_START = "slow_start"
    DECLINED = "declined"
    ENGINE_FAILED = "engine_failed"
    NOT_BUILT = "not_built"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What admission expected of an answer, in seconds from the request's arrival; TPOT per token.

    None where nothing is known of the target's speed.
    """

    ttft_s: float
    tpot_s: float
    e2e_s: float


@dataclass(frozen=True, slots=True)
class Admit:
    """Call this replica of the target now; a slot is reserved."""

    target: str
    replica: str = ""
    reason: Reason = Reason.HEADROOM
    predicted: Prediction | None = None
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Queue:
    """Wait in the router: `reason` stands against calling the target now; leave after `most_s`."""

    target: str
    reason: Reason
    most_s: float


@dataclass(frozen=True, slots=True)
class Downgrade:
    """A weaker target that the class allows answers now, because nobody better can in time."""

    target: str
    replica: str
    instead_of: str
    reason: Reason
    predicted: Prediction | None = None
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spill:
    """Same quality, elsewhere: capacity at the first choice is gone, for `reason`.

    `usd` is what the answer is expected to cost there.
    """

    target: str
    instead_of: str
    reason: Reason
    usd: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody may serve this now; `limit` says which number was met."""

    target: str
    reason: Reason
    limit: str
    retry_after_s: float
    waited_s: float = 0.0


Placement = Admit | Queue | Downgrade | Spill | Refuse


class Release(StrEnum):
    """When text may leave while verifiers watch; from freest to strictest."""

    TOKEN = "token"  # noqa: S105 - a release rule, no password
    WINDOW = "window"
    FINAL = "final"


Outcome = Literal["passed", "failed", "referred", "flagged", "not_applicable", "redacted"]
"""`failed` and `referred` withhold an answer; `referred` leaves it to a person."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one verifier says of one answer; `spans` are character ranges of the answer."""

    verifier: str
    outcome: Outcome
    reason: str = ""
    spans: tuple[tuple[int, int], ...] = ()


# ---- what a client gets -----------------------------------------------------------------


Move = Literal["first", "spill", "failover", "repair", "escalate", "downgrade", "hedge"]
"""How a step came to its target: capacity spills and downgrades, breakage fails over, quality is
repaired where it failed or escalates, a slow start is hedged."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A rung was placed: which class, which target, by what move, and why."""

    route: str
    target: str
    move: Move
    reason: Reason
    why: str
    labels: Labels
    policy: str
    release: Release
    prompt_tokens: int
    replica: str = ""
    waited_s: float = 0.0
    predicted: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """Text for the client, and how many of the engine's tokens were decoded for it."""

    text: str
    tokens: int = 1
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Something happened that is not text; it does not commit the stream."""

    what: str


TicketState = Literal["waiting", "answered", "rejected"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that waits for a person; `id` is a secret that whoever asks for it must know."""

    id: str
    state: TicketState = "waiting"
    at_wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the answer that was delivered; `cached_tokens` are part of the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """TTFT, TPOT and E2E as the glossary defines them; None where there was no such token."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is whole, or with `finish` "ticket" a person will give it.

    `flagged` when a verdict flagged it, or failed and was let through.
    """

    finish: Finish
    usage: Usage
    timing: Timing
    tool_calls: tuple[ToolCall, ...] = ()
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a whole answer."""

    error: ForebayError


Event = Decided | Token | Progress | Ticket | Verdict | Done | Failed


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a ladder, and where it would be placed were it called now."""

    target: str
    placement: Placement
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision on a request, nothing executed; rungs in the order they would be tried."""

    route: str
    reason: Reason
    why: str
    labels: Labels
    policy: str
    release: Release
    rungs: tuple[Rung, ...]
    verify: tuple[str, ...]


# ---- what remains -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """One target visited, how it was reached and how it ended.

    `waited_s` passed in the router's queue before it; `predicted` is what admission expected;
    `usd` is what the answer cost by the policy's prices, whole or not.
    """

    target: str
    move: str
    reason: str
    outcome: str
    tokens: int = 0
    verdicts: tuple[Verdict, ...] = ()
    replica: str = ""
    waited_s: float = 0.0
    predicted: Prediction | None = None
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """All that is kept of one request; exactly one exists for each. No prompt, no answer.

    `itl_ms` holds the gaps between the engine's tokens, for telemetry; stores leave it out.
    """

    id: str
    at_wall_s: float
    door: str
    route: str
    target: str
    labels: Labels
    policy: str
    status: str
    attempts: tuple[Attempt, ...]
    usage: Usage
    timing: Timing
    stream: bool
    itl_ms: tuple[float, ...] = ()
