"""An engine and a verifier that do what a test tells them, when it tells them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forebay.testing import ABILITIES, FakeEngine
from forebay.values import Chunk, Outcome, Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


class Told(FakeEngine):
    """An engine that says what a test tells it, and waits in between; it enforces no form."""

    def __init__(self) -> None:
        super().__init__(abilities=replace(ABILITIES, guides=frozenset()))
        self._told: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self._waits = asyncio.Event()

    async def generate(self, call):
        self.calls.append(call)
        self.running += 1
        try:
            while True:
                self._waits.set()
                said = await self._told.get()
                if isinstance(said, Exception):
                    raise said
                yield said
                if said.finish:
                    return
        finally:
            self.running -= 1

    async def say(self, *pieces: str) -> None:
        """Say these, and return once the router has come back for more."""
        for piece in pieces:
            await self._waits.wait()
            self._waits.clear()
            self._told.put_nowait(Chunk(piece, 1))
        await self._waits.wait()

    def end(self) -> None:
        """Say that the answer is whole."""
        self._told.put_nowait(Chunk(finish="stop"))

    def fail(self, error: Exception) -> None:
        """Break."""
        self._told.put_nowait(error)


@dataclass
class Judge:
    """A verifier that judges as a test says, and notes what has left by then.

    At `window` it holds back the last `TAIL` characters. `wrong` is given what it would return of
    the piece with number `at`, or with its verdict where that is 0, and returns something else.
    """

    release: Release
    outcome: Outcome = "passed"
    name: str = "grounding"
    wrong: Callable[[Any], Any] | None = None
    at: int = 0
    look: Callable[[], bytes] = bytes
    seen: bytes | None = None
    _held: str = ""
    _fed: int = 0

    TAIL = 6

    def feed(self, text: str) -> Any:
        self._fed += 1
        held = self._held + text
        cut = max(len(held) - self.TAIL, 0) if self.release is Release.WINDOW else len(held)
        self._held = held[cut:]
        return self.wrong(held[:cut]) if self.wrong and self._fed == self.at else held[:cut]

    def finish(self) -> Any:
        self.seen = self.look()
        said = self._held, Verdict(self.name, self.outcome)
        return self.wrong(said) if self.wrong and not self.at else said
