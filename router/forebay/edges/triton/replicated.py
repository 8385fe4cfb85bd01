"""Several replicas of one engine as one `Engine`: admission names the one that answers."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from forebay.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from forebay.edges.triton.engine import TritonEngine
    from forebay.edges.triton.prompts import Prompts
    from forebay.values import Abilities, Call, Chunk, Prepared, Request


class ReplicatedEngine:
    """A target's engine; `replicas` changes while it serves."""

    def __init__(self, prompts: Prompts, replicas: Mapping[str, TritonEngine]) -> None:
        """Answer with whichever of `replicas` a call names."""
        self._prompts = prompts
        self._replicas = replicas

    @property
    def abilities(self) -> Abilities:
        """Return the limits that the engine was built with."""
        return self._prompts.abilities

    async def prepare(self, request: Request) -> Prepared:
        """Return the prompt's ids; they are the same for every replica."""
        return await self._prompts.prepare(request)

    async def generate(self, call: Call) -> AsyncGenerator[Chunk, None]:
        """Yield the answer of the replica that admission chose.

        Raises:
            EngineUnavailable: it has been taken out meanwhile.
        """
        engine = self._replicas.get(call.replica)
        if engine is None:
            raise EngineUnavailable(f"replica {call.replica} was taken out before it was called")
        async with aclosing(engine.generate(call)) as chunks:
            async for chunk in chunks:
                yield chunk
