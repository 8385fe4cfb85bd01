"""What became of one request, as its client saw it; one JSON line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from loadtest.plan import Slo

Ended = Literal["served", "hung_up", "refused", "failed", "unfinished"]
"""`hung_up`: the client left on purpose, as planned. `unfinished`: the run ended first."""


@dataclass(frozen=True, slots=True)
class Move:
    """One decision that the router told: which target, by what move, for what reason."""

    move: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One offered request.

    `scheduled_s` and `sent_s` count from the run's start. `ttft_ms` and `e2e_ms` count from the
    scheduled moment, so that a late generator or a full socket cannot hide in them. `itl_ms` are
    the gaps between events that carried tokens. `slow` clients read late on purpose.
    `asked_tokens` is how long the answer had to be, exactly; 0 where no length was asked for.
    """

    number: int
    klass: str
    door: str
    scheduled_s: float
    sent_s: float
    ended: Ended
    mode: str = ""
    tier: str = ""
    code: str = ""
    reason: str = ""
    moves: tuple[Move, ...] = ()
    prompt_tokens: int = 0
    asked_tokens: int = 0
    completion_tokens: int = 0
    ttft_ms: float | None = None
    e2e_ms: float = 0.0
    itl_ms: tuple[float, ...] = ()
    slow: bool = False
    router_ttft_ms: float | None = None
    predicted_ttft_ms: float | None = None
    predicted_tpot_ms: float | None = None
    queued_ms: float | None = None

    @property
    def target(self) -> str:
        """Who answered last, or was to."""
        return self.moves[-1].target if self.moves else ""

    @property
    def spilled(self) -> bool:
        """Whether the router sent it elsewhere for want of capacity."""
        return any(move.move == "spill" for move in self.moves)

    @property
    def elsewhere(self) -> bool:
        """Whether it was answered elsewhere than at its first target, and by no weaker one."""
        moved = len(self.moves) > 1 and self.moves[-1].move != "downgrade"
        return self.spilled or (moved and self.target != self.moves[0].target)

    @property
    def tpot_ms(self) -> float | None:
        """(E2E - TTFT) / (n - 1); None for fewer than two tokens.

        Of a client that left, E2E is its last token: what it waited for afterwards is no gap.
        """
        if self.ttft_ms is None or self.completion_tokens < 2:  # noqa: PLR2004 - two ends of a gap
            return None
        if self.ended == "hung_up":
            return sum(self.itl_ms) / (self.completion_tokens - 1)
        return (self.e2e_ms - self.ttft_ms) / (self.completion_tokens - 1)

    def missed(self, slo: Slo) -> str:
        """Return the first thing it missed (how it ended, or an SLO by name); empty if none.

        An answer without a token is `empty`, one that is not as long as was asked `length`.
        A client that left as planned is content when what it saw was in time, and when nothing
        was late yet: the token that it was waiting for is late once its TPOT no longer holds with
        it. A slow reader sets its own pace, so only its TTFT is judged.
        """
        if self.ended not in ("served", "hung_up"):
            return self.ended
        if self.ended == "served":
            if self.ttft_ms is None or not self.completion_tokens:
                return "empty"
            if self.asked_tokens not in (0, self.completion_tokens):
                return "length"
        waited_ms = self.e2e_ms if self.ttft_ms is None else self.ttft_ms
        took = [("ttft", waited_ms, slo.ttft_ms)]
        if not self.slow:
            took += [("tpot", self._pace_ms(), slo.tpot_ms), ("e2e", self.e2e_ms, slo.e2e_ms)]
        late = (name for name, ms, most in took if most is not None and ms > most)
        return next(late, "")

    def _pace_ms(self) -> float:
        """Return its TPOT; of a client that left, as if the next token had come as it did."""
        seen_ms = self.tpot_ms or 0.0
        if self.ended != "hung_up" or self.ttft_ms is None:
            return seen_ms
        return max(seen_ms, (self.e2e_ms - self.ttft_ms) / max(self.completion_tokens, 1))


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON, times rounded to microseconds."""
    said = asdict(outcome)
    kept = {name: value for name, value in said.items() if value not in (None, "", ())}
    if not outcome.asked_tokens:
        del kept["asked_tokens"]
    return {name: _rounded(value, 6 if name.endswith("_s") else 3) for name, value in kept.items()}


def of_json(said: dict[str, Any]) -> Outcome:
    """Return the outcome that `to_json` wrote."""
    moves = tuple(Move(**move) for move in said.get("moves", ()))
    return Outcome(**{**said, "moves": moves, "itl_ms": tuple(said.get("itl_ms", ()))})


def _rounded(value: object, digits: int) -> object:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, tuple | list):
        return [_rounded(one, digits) for one in value]
    return value
