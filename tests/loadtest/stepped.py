"""An engine that steps, told plainly: what outcomes look like whose law is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from loadtest.outcome import Move, Outcome

from forebay.lab.engine_sim import EngineLimits
from forebay.policy.admission.model import Coefficients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LIMITS = EngineLimits(kv_tokens=65536, max_batch=32, step_tokens=128)
LAW = Coefficients(0.03, 0.012, 0.0, 0.004)
DELAY_S = 0.03


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    number: int
    at_s: float
    prompt_tokens: int
    tokens: int
    klass: str = "chat"


@dataclass(slots=True)
class _Inside:
    asked: Asked
    left: int
    seen_s: list[float]


def answered(
    asked: Iterable[Asked],
    law: Coefficients = LAW,
    pace: Callable[[float], float] = lambda _: 1.0,
    late: Callable[[], float] = lambda: 0.0,
) -> list[Outcome]:
    """Return the outcomes: first come, first served, in steps of `LIMITS`.

    `pace` is how many times longer a step takes that begins then; `late` by how much a client
    sees a token late.
    """
    coming = sorted((_Inside(one, one.prompt_tokens, []) for one in asked), key=_at_s)
    waiting, inside, done, now_s = coming[::-1], [], [], 0.0
    while waiting or inside:
        if not inside:
            now_s = max(now_s, _at_s(waiting[-1]))
        while waiting and _at_s(waiting[-1]) <= now_s and len(inside) < LIMITS.max_batch:
            inside.append(waiting.pop())
        streams = [one for one in inside if not one.left]
        room = LIMITS.step_tokens - len(streams)
        for one in inside:
            taken = min(one.left, room)
            one.left, room = one.left - taken, room - taken
        prompt_tokens = LIMITS.step_tokens - len(streams) - room
        now_s += law.step_s(len(streams), 0, prompt_tokens) * pace(now_s)
        for one in inside:
            if not one.left:
                one.seen_s.append(now_s)
        done += [one for one in inside if len(one.seen_s) == one.asked.tokens]
        inside = [one for one in inside if len(one.seen_s) < one.asked.tokens]
    return [_outcome(one, late) for one in done]


def _at_s(one: _Inside) -> float:
    return one.asked.at_s + DELAY_S


def _outcome(one: _Inside, late: Callable[[], float]) -> Outcome:
    asked, seen_s = one.asked, [at_s + late() for at_s in one.seen_s]
    gaps_ms = tuple((b - a) * 1000 for a, b in pairwise(seen_s))
    return Outcome(
        asked.number,
        asked.klass,
        "grpc",
        asked.at_s,
        asked.at_s,
        "served",
        moves=(Move("first", "local", "headroom"),),
        prompt_tokens=asked.prompt_tokens,
        completion_tokens=asked.tokens,
        ttft_ms=(seen_s[0] - asked.at_s) * 1000,
        e2e_ms=(seen_s[-1] - asked.at_s) * 1000,
        itl_ms=gaps_ms,
        queued_ms=0.0,
    )
