"""What admission is told: a class's promises, a target's limits, one request, one replica.

All latencies are seconds, all prices USD; None means "nothing was said".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from forebay.policy.admission.model import UNKNOWN, Coefficients, Speed

if TYPE_CHECKING:
    from forebay.policy.admission.replica import Replica
    from forebay.values import Placement, Reason


Outcome = Literal["served", "failed", "declined", "cancelled"]
"""How a call went for its replica: an answer, its own fault, a no for an answer, or nothing yet."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a class is promised, and where its requests may go when the promise is at risk.

    `at_risk` is whether a predicted miss is reason enough to leave, or only a limit that is met.
    `promised` is False where no latency is promised at all. `wait_s` bounds the wait for a
    replica, beside what the promise itself does. `elsewhere` is True where this call may not
    spill, and others of its class may: its client named the target, or it has spilled already.

    `stays` is whether it is of a class that was promised what only its own engines may keep. Such
    a class goes first; a call that merely has no way out has no claim to that, or each client
    could make one by naming a target.
    """

    route: str
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.99
    at_risk: bool = True
    wait_s: float | None = None
    spill_to: str | None = None
    spill_max_usd: float | None = None
    downgrade_to: str | None = None
    max_inflight: int | None = None
    max_usd: float | None = None
    promised: bool = True
    elsewhere: bool = False
    stays: bool = field(init=False)

    def __post_init__(self) -> None:
        """Tell once what each decision asks."""
        stays = self.promised and self.spill_to is None and not self.elsewhere
        object.__setattr__(self, "stays", stays)

    @property
    def promises(self) -> int:
        """How many kinds of latency are promised that may be missed one without the other."""
        first, rest = self.ttft_s is not None, self.tpot_s is not None or self.e2e_s is not None
        return max(1, first + rest)


@dataclass(frozen=True, slots=True)
class Place:
    """A target as admission sees it. Targets of one `pool` share its replicas and its queue.

    A cloud is a place without replicas: `pool` is empty, and `expect_*` is its latency's p99
    until enough of it was seen; where it is only assumed, and not stated, it bars no spill.
    """

    target: str
    pool: str = ""
    max_inflight: int | None = None
    max_waiting: int = 1 << 30
    kv_ceiling: float = 1.0
    input_usd: float = 0.0
    output_usd: float = 0.0
    expect_ttft_s: float = 1.5
    expect_tpot_s: float = 0.05
    expect_stated: bool = True

    def usd(self, prompt_tokens: float, output_tokens: float) -> float:
        """Return what an answer costs; prices are for one token."""
        return prompt_tokens * self.input_usd + output_tokens * self.output_usd


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One engine: how much it holds, how it takes prompts in, and what is known of its speed.

    `step_tokens` bounds streams plus prompt tokens of one step (`max_num_tokens`). `prior` is what
    its build says of its speed, `known` what an earlier life of this router found.
    """

    name: str
    pool: str
    kv_tokens: int = 1 << 40
    max_batch: int = 1 << 20
    step_tokens: int = 8192
    prior: Coefficients = UNKNOWN
    known: Speed | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request before one rung of its ladder.

    `room_tokens` is the longest prompt the target takes, `weaker_room_tokens` that of the one the
    class may step down to; `whole` is False where counting ended once the first was passed.
    `blocks` are hashes of the prompt's blocks, each of all before it. `spent_usd` is what the
    request has cost already, on other rungs. `avoid` are replicas that broke under it: it is
    not placed there again.
    """

    id: str
    terms: Terms
    target: str
    prompt_tokens: int
    max_tokens: int
    arrived_s: float
    room_tokens: int = 1 << 40
    whole: bool = True
    deadline_s: float | None = None
    tier: str = ""
    blocks: tuple[int, ...] = ()
    spent_usd: float = 0.0
    avoid: frozenset[str] = frozenset()
    weaker_room_tokens: int = 1 << 40


@dataclass(frozen=True, slots=True)
class Offer:
    """What would be decided on an ask, and about what its answer would cost there."""

    placement: Placement
    usd: float


@dataclass(slots=True, eq=False)
class Ticket:
    """One ask on its way: it waits, is placed at a replica or a cloud, and is gone.

    `leave_s` is when it waits no longer, `expected_s` when its first token is expected and
    `expected_tpot_s` how fast those after it, `mark` where its prompt ends on its replica's line of
    prompt tokens, `prefill` how many of them are its own, `tight_s` the TPOT that those who come
    later must leave it, `alone` whether no other prompt stood before them. `target` is who answers,
    `kept_at` the replica that empties for it while it waits.
    """

    ask: Ask
    number: int
    leave_s: float = 0.0
    target: str = ""
    state: Literal["waiting", "placed", "gone"] = "waiting"
    why: Reason | None = None
    replica: Replica | None = None
    kept_at: Replica | None = None
    placed_s: float = 0.0
    expected_s: float = 0.0
    expected_tpot_s: float = 0.0
    mark: float = 0.0
    prefill: int = 0
    tight_s: float | None = None
    alone: bool = False
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0
