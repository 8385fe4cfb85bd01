"""What the supervisor must know of a program, and what it tells of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Phase = Literal["starting", "serving", "restarting", "stopping", "stopped"]


class Start(Protocol):
    """How to start a program."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Return the program's path and arguments."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Return its whole environment."""
        ...

    @property
    def python(self) -> str:
        """Return an interpreter that runs in that environment."""
        ...


@dataclass(frozen=True, slots=True)
class State:
    """What a program does from now on, and why."""

    name: str
    phase: Phase
    detail: str = ""
    pid: int | None = None


class Program(Protocol):
    """What the supervisor must know of a program. Its limits are in seconds."""

    @property
    def name(self) -> str:
        """Return the name shown to people."""
        ...

    @property
    def log(self) -> Path:
        """Return the file that takes what the program prints."""
        ...

    @property
    def start_s(self) -> float:
        """Return how long a start may take until the first proper answer."""
        ...

    @property
    def grace_s(self) -> float:
        """Return how long a stop may take until it becomes a kill."""
        ...

    def prepare(self) -> Start:
        """Lay out what the program needs and return how to start it; called before each start."""
        ...

    async def ailment(self) -> str:
        """Return "" when the program answered properly, else what was wrong; never hangs."""
        ...

    def sweep(self) -> None:
        """Remove what an ended life of the program left on this host."""
        ...
