"""What the batcher needs of an engine that decodes in steps. `pipeline.py` is the real one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from generation import Generation


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one step added to one sequence. Log-probs are natural logarithms."""

    sequence: int
    tokens: list[int]
    log_probs: list[float]
    last: bool


class Running(Protocol):
    """A request inside the engine, which works on it until it is over."""

    def decoded(self) -> Iterable[Decoded]:
        """Return what has been decoded since the last call, in order."""

    def over(self) -> bool:
        """Return whether the engine has stopped working on it, for whatever reason."""

    def cancel(self) -> None:
        """Ask the engine to drop it at its next step."""


class Engine(Protocol):
    """The engine itself, for one thread."""

    def add(self, key: int, asked: Generation, guide: str | None) -> Running:
        """Put a request in; it joins the batch at the next step.

        Raises:
            RuntimeError: if the engine refuses its parameters; nothing else is harmed.
        """

    def step(self) -> None:
        """Decode one token of every running sequence, and a chunk of every waiting prompt.

        Raises:
            RuntimeError: if the engine is broken; everything inside it is lost.
        """

    def busy(self) -> bool:
        """Return whether a step would do anything."""

    def scheduled(self) -> int:
        """Return how many requests the last step worked on."""

    def used_blocks(self) -> int:
        """Return how many cache blocks the last step's sequences held."""
