"""An engine's steps, put together again from the answers that its clients saw.

Every stream in a batch gets one token a step, so that answers which ran beside each other show
the same ends of steps, and which prompts were taken in between follows from the engine's rule:
first come, first served, until streams and prompt tokens fill a step. A first token that comes
sooner or later than that rule says marks its step as not sure.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from math import ceil, inf
from statistics import median
from typing import TYPE_CHECKING

from forebay.lab.forebay_dispatcher import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forebay.lab.engine_sim import EngineLimits
    from loadtest.outcome import Outcome

SAME_S = 0.02
"""Tokens of one step are seen within this of each other; a step of its own takes longer."""

NEAR = 2
"""Steps to either side of a first token's that its answer may belong to."""

DELAYS_S = tuple(n / 200 for n in range(21))
"""How long a request may take from the router's decision into the engine's queue."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an engine did in `took_s` from `start_s` on.

    `count` is more than one only where no stream showed the steps' ends between; `streams`,
    `kv_tokens` and `prompt_tokens` are of all of them together. `sure` is whether the first
    tokens at its end are those that the engine's rule expects.
    """

    start_s: float
    took_s: float
    count: int
    streams: int
    kv_tokens: int
    prompt_tokens: int
    sure: bool


@dataclass(slots=True, eq=False)
class _Answer:
    """An answer of the engine: when its request came there, and when its tokens were seen.

    `first` and `last` are the numbers of the steps that ended with those tokens.
    """

    at_s: float
    prompt_tokens: int
    seen_s: list[float]
    first: int = 0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.prompt_tokens

    @property
    def last(self) -> int:
        return self.first + len(self.seen_s) - 1


class Seen:
    """The answers of one engine in one run, on one line of steps."""

    def __init__(self, outcomes: Iterable[Outcome], limits: EngineLimits, hidden: int = 0) -> None:
        """Take the answers that came from the engine; one without a token shows no step.

        The first `hidden` steps are left out: requests may have been inside that nobody told of.
        """
        self._limits = limits
        self._hidden = hidden
        self._answers = [
            _Answer(_handed_s(one), one.prompt_tokens, _seen_s(one))
            for one in outcomes
            if one.target == LOCAL and one.ttft_ms is not None
        ]
        self._ends_s = _line(sorted(self._answers, key=lambda one: one.seen_s[0]))

    def steps(self, delay_s: float) -> list[Step]:
        """Return the steps in order, if requests reach the engine `delay_s` after the decision."""
        batch = _Batch(self._answers, delay_s, self._limits)
        starts_s = [-inf, *self._ends_s[:-1]]
        return [
            batch.step(number, start_s, end_s)
            for number, (start_s, end_s) in enumerate(zip(starts_s, self._ends_s, strict=True))
        ][self._hidden :]


def _handed_s(one: Outcome) -> float:
    """Return when the router sent a request on; it tells how long it was kept."""
    return one.sent_s + (one.queued_ms or 0.0) / 1000


def _seen_s(one: Outcome) -> list[float]:
    assert one.ttft_ms is not None
    seen_s = [one.scheduled_s + one.ttft_ms / 1000]
    for gap_ms in one.itl_ms:
        seen_s.append(seen_s[-1] + gap_ms / 1000)
    return seen_s


def _line(answers: Sequence[_Answer]) -> list[float]:
    """Number the steps that answers show, in order of their first tokens; return the ends.

    A step ended when the first of its tokens was seen: a client may be late, never early.
    """
    ends_s: list[float] = []
    for one in answers:
        one.first = _first(ends_s, one.seen_s)
        for number, seen_s in enumerate(one.seen_s, one.first):
            if number == len(ends_s):
                ends_s.append(seen_s)
            else:
                ends_s[number] = min(ends_s[number], seen_s)
    return ends_s


def _first(ends_s: Sequence[float], seen_s: Sequence[float]) -> int:
    """Return the step that an answer begins with: the one from which its times fit best."""
    if not ends_s or seen_s[0] - ends_s[-1] > SAME_S:
        return len(ends_s)
    near = bisect_left(ends_s, seen_s[0])
    among = range(max(0, near - NEAR), min(len(ends_s), near + NEAR + 1))

    def off_s(first: int) -> float:
        known_s = ends_s[first : first + len(seen_s)]
        return median(abs(a - b) for a, b in zip(known_s, seen_s, strict=False))

    return min(among, key=off_s)


class _Batch:
    """Streams and prompts inside the engine, moved on step by step."""

    def __init__(self, answers: Sequence[_Answer], delay_s: float, limits: EngineLimits) -> None:
        self._limits = limits
        self._delay_s = delay_s
        self._coming = sorted(answers, key=lambda one: one.at_s)[::-1]
        self._prompts: list[_Answer] = []
        self._streams: list[_Answer] = []
        for one in answers:
            one.left = one.prompt_tokens

    def step(self, number: int, start_s: float, end_s: float) -> Step:
        """Take in what a step took in, and return it."""
        self._streams = [one for one in self._streams if one.last >= number]
        self._arrive(start_s)
        if not self._streams and not self._prompts and self._coming:
            start_s = min(end_s, self._coming[-1].at_s + self._delay_s)
            self._arrive(start_s)
        late = self._prove(number)
        streams = list(self._streams)
        count = self._count(number)
        taken, sure = self._take(number, count * (self._limits.step_tokens - len(streams)))
        return Step(
            start_s,
            end_s - start_s,
            count,
            len(streams),
            sum(one.prompt_tokens + number - one.first for one in streams),
            taken,
            sure and not late,
        )

    def _arrive(self, until_s: float) -> None:
        while self._coming and self._coming[-1].at_s + self._delay_s <= until_s:
            self._prompts.append(self._coming.pop())

    def _prove(self, number: int) -> bool:
        """Take in who has a first token at this step all the same; return whether there is one."""
        proven = bool(self._coming) and self._coming[-1].first <= number
        while self._coming and self._coming[-1].first <= number:
            self._prompts.append(self._coming.pop())
        return proven

    def _count(self, number: int) -> int:
        """Return the steps until a first token: one where a stream shows them."""
        if self._streams:
            return 1
        upto = [at for at, one in enumerate(self._prompts, 1) if one.first == number]
        tokens = sum(one.left for one in self._prompts[: upto[-1] if upto else 1])
        return max(1, ceil(tokens / self._limits.step_tokens))

    def _take(self, number: int, room: int) -> tuple[int, bool]:
        """Return the prompt tokens that were taken in, and whether first tokens agree."""
        taken, sure = 0, True
        for one in self._prompts[: self._limits.max_batch - len(self._streams)]:
            chunk = min(one.left, max(room - taken, 0))
            one.left -= chunk
            taken += chunk
        for one in list(self._prompts):
            if one.first <= number:
                sure = sure and not one.left
                taken, one.left = taken + one.left, 0
                self._prompts.remove(one)
                self._streams.append(one)
            elif not one.left:
                sure = False
        return taken, sure
