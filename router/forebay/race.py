"""One answer from two calls: the second is begun where the first is slow to say anything.

A call is raced only up to its first chunk. Whoever brings that first goes on; the corridor ends
the other and counts what it cost.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from forebay.ports import Lease
    from forebay.values import Call, Chunk
    from forebay.walk import Run, Step


@dataclass(slots=True, eq=False)
class Entrant:
    """One call of one step, with its place, its numbers and the chunks that it will yield.

    `head` is its first chunk, where it was raced; None stands for an answer without any.
    """

    step: Step
    call: Call
    lease: Lease
    run: Run
    chunks: AsyncGenerator[Chunk, None]
    head: asyncio.Task[Chunk | None] | None = None

    def begin(self) -> asyncio.Task[Chunk | None]:
        """Call the target, and return its first chunk to come."""
        self.head = asyncio.create_task(self._first())
        return self.head

    async def _first(self) -> Chunk | None:
        return await anext(self.chunks, None)

    @property
    def error(self) -> BaseException | None:
        """What its first chunk failed with; None while it may still come, or has."""
        if self.head is None or not self.head.done() or self.head.cancelled():
            return None
        return self.head.exception()

    def saw(self, chunk: Chunk, now_s: Callable[[], float]) -> None:
        """Count a chunk, in the numbers of the call and for its place."""
        if chunk.tokens:
            at_s = now_s()
            self.run.saw(chunk.tokens, at_s)
            self.lease.saw(chunk.tokens, at_s)
        if chunk.usage is not None:
            self.run.told = chunk.usage

    def chunks_in_order(self) -> AsyncGenerator[Chunk, None]:
        """Return every chunk, the one that was raced for first."""
        return self.chunks if self.head is None else self._from(self.head)

    async def _from(self, head: asyncio.Task[Chunk | None]) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self.chunks) as chunks:
            if (first := await head) is not None:
                yield first
            async for chunk in chunks:
                yield chunk

    async def close(self) -> None:
        """Cancel the call: its target learns of it now."""
        if self.head is not None and not self.head.done():
            self.head.cancel()
            await asyncio.wait({self.head})
        await self.chunks.aclose()


async def faster(
    first: Entrant, enter: Callable[[], Awaitable[Entrant | None]], after_s: float
) -> Entrant:
    """Return the entrant that goes on: whose first chunk came first, or who is still alive.

    Where both failed it is either, and its answer raises. Entrants stay open; the caller closes
    them.

    Args:
        first: The call that was decided on; it is begun here.
        enter: Gets the second call its place; None where it gets none. It may wait.
        after_s: How long the first is alone.
    """
    began = first.begin()
    await asyncio.wait({began}, timeout=after_s)
    if began.done():
        return first
    second = asyncio.create_task(_begun(enter))
    try:
        await asyncio.wait({began, second}, return_when=asyncio.FIRST_COMPLETED)
        if began.done() and first.error is None:
            return first
        if not second.done():
            return await second or first
        rival = second.result()
        if rival is None or rival.error is not None:
            await asyncio.wait({began})
            return first
        return rival
    finally:
        second.cancel()
        await asyncio.wait({second})


async def _begun(enter: Callable[[], Awaitable[Entrant | None]]) -> Entrant | None:
    """Return a second call once its first chunk came, or failed to."""
    rival = await enter()
    if rival is not None:
        await asyncio.wait({rival.begin()})
    return rival
