"""One stream, asked for in any of the ways there are, before engines and a verifier of a test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from doors import GRPC, HTTP, Behind, grpc_door, http_door
from raw import End, http_stream
from raw_grpc import generate_stream, kserve_stream

from forebay.policy.verify import check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from forebay.policy.guard import Check
    from forebay.testing import FakeEngine

TARGETS = ("local", "other")

DOORS: dict[str, tuple[Any, Any, Any]] = {
    "http": (http_door, HTTP, http_stream),
    "generate": (grpc_door, GRPC, generate_stream),
    "kserve": (grpc_door, GRPC, kserve_stream),
}
"""Of each way to stream: the door's fake house, its settings, and who asks there."""

UNHURRIED_S = 60.0
"""A verifier's budget where a test is not about it: the machine may be busy."""

REFUSED = End("", whole=False, reason="answer_refused")
"""How a stream ends of which no answer passed."""


@asynccontextmanager
async def standing(
    door: str,
    targets: int = 1,
    route: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    settings: Any = None,
    **kept: Any,
) -> AsyncIterator[Behind]:
    """Yield what stands behind a door; a second target is the fallback of the first."""
    names = TARGETS[:targets]
    document = {
        "models": {name: {"triton": {}, "limits": limits or {}} for name in names},
        "default": {"model": names[0], "fallback": names[1:], **(route or {})},
    }
    opened, usual, _ = DOORS[door]
    async with opened(None, settings or usual, document=document, **kept) as back:
        yield back


@asynccontextmanager
async def asking(
    door: str,
    back: Behind,
    *engines: FakeEngine,
    judge: Check | None = None,
    budget_s: float = UNHURRIED_S,
) -> AsyncIterator[Any]:
    """Yield a stream that was asked for at a door; `judge` is the verifier of its name there."""

    def verifier(name: str, subject: Any) -> Check:
        return judge if judge is not None and name == judge.name else check(name, subject)

    back.engine = engines[0]
    back.corridor._house = replace(
        back.house,
        engines=dict(zip(TARGETS, engines, strict=False)),
        verifier=verifier,
        verifier_budget_s=budget_s,
    )
    async with DOORS[door][2](back) as stream:
        yield stream


@asynccontextmanager
async def asked(
    door: str,
    *engines: FakeEngine,
    judge: Check | None = None,
    budget_s: float = UNHURRIED_S,
    **kept: Any,
) -> AsyncIterator[tuple[Behind, Any]]:
    """Yield both: a door of its own, and a stream there."""
    async with (
        standing(door, len(engines), **kept) as back,
        asking(door, back, *engines, judge=judge, budget_s=budget_s) as stream,
    ):
        yield back, stream
