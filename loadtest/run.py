"""One run of a plan against doors that answer."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from loadtest.arrivals import stream
from loadtest.generator import Span, offer, saturate
from loadtest.grpc_client import GrpcSender
from loadtest.openai_client import OpenAISender
from loadtest.plan import PlanError
from loadtest.work import schedule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from loadtest.generator import Ran, Sender
    from loadtest.outcome import Outcome
    from loadtest.plan import Door, Plan
    from loadtest.work import Job

from contextlib import asynccontextmanager


def address(plan: Plan) -> str:
    """Return where the gRPC door is: as the plan says, else on the port of FOREBAY_GRPC_PORT."""
    return plan.grpc or f"127.0.0.1:{os.environ.get('FOREBAY_GRPC_PORT', '50051')}"


def url(plan: Plan) -> str:
    """Return where the HTTP door is: as the plan says, else on the port of FOREBAY_HTTP_PORT."""
    return plan.http or f"http://127.0.0.1:{os.environ.get('FOREBAY_HTTP_PORT', '8080')}"


@asynccontextmanager
async def senders(plan: Plan, doors: Iterable[str]) -> AsyncIterator[dict[str, Sender]]:
    """Yield a sender for each door named, connected.

    Raises:
        PlanError: nobody answers there.
    """
    async with AsyncExitStack() as stack:
        made: dict[str, Sender] = {}
        for door in doors:
            sender: GrpcSender | OpenAISender
            if door == "grpc":
                sender = await stack.enter_async_context(GrpcSender(address(plan)))
            else:
                sender = OpenAISender(url(plan))
            if not await sender.ready():
                where = address(plan) if door == "grpc" else url(plan)
                raise PlanError(f"no router answers at {where}; start one with `make up`")
            made[door] = sender
        yield made


async def run(
    plan: Plan,
    *,
    door: Door | None = None,
    tell: Callable[[Outcome], None] = lambda _: None,
    begin: Callable[[], Awaitable[float | None]] | None = None,
    stop: asyncio.Event | None = None,
) -> Ran:
    """Offer the plan's requests and return what became of them.

    Args:
        plan: The plan.
        door: Offer only the requests of one door.
        tell: Called with each outcome as it happens.
        begin: Called once all is drawn and connected; returns the run's zero, if it is given.
        stop: Set by whoever wants the run to end early.

    Raises:
        PlanError: the plan cannot be drawn, or nobody answers.
    """
    jobs = [job for job in schedule(plan) if door in (None, job.door)]
    async with senders(plan, _doors(jobs)) as made:
        # Thousands of prompts are looked through before the run's zero, and not again in the run.
        gc.collect()
        gc.freeze()
        try:
            zero_s = await begin() if begin is not None else None
            span = Span(plan.duration_s, plan.drain_s, zero_s, stop or asyncio.Event())
            return await offer(jobs, made, span, tell)
        finally:
            gc.unfreeze()


async def fill(plan: Plan, *, clients: int, duration_s: float) -> Ran:
    """Keep `clients` requests of the plan in flight and return what was answered.

    They are asked in another order than the plan's: the first that a closed loop comes to have
    the mix of the whole plan, though it does not come to the end of it.
    """
    jobs = schedule(plan)
    stream(f"{plan.seed}/fill").shuffle(jobs)
    if not jobs:
        raise PlanError(f"plan {plan.name} offers no request; raise its rate or its duration")
    async with senders(plan, _doors(jobs)) as made:
        return await saturate(jobs, made, clients=clients, duration_s=duration_s)


def _doors(jobs: Iterable[Job]) -> list[str]:
    return sorted({job.door for job in jobs})
