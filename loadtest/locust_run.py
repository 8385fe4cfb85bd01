"""One run as Locust's process knows it: outcomes so far, and how each door's generator ended."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from loadtest.report import percentiles, report

if TYPE_CHECKING:
    import subprocess

    from loadtest.outcome import Outcome
    from loadtest.plan import Plan
    from loadtest.report import Report

WRONG_USE = 2
_log = logging.getLogger("loadtest")


class Run:
    """What this Locust process knows of the run that goes on."""

    def __init__(self) -> None:
        self.waiting = True
        """Whether Locust has not yet told that the test starts: it asks the shape first."""
        self.plan: Plan | None = None
        self.outcomes: list[Outcome] = []
        self.loop_late_ms: dict[str, list[float]] = {}
        """By door: each has a generator of its own."""
        self.busy: float | None = None
        self.arguments: list[str] = []
        self.generators: dict[str, subprocess.Popen[str]] = {}
        self.ready: set[str] = set()
        self.told: set[str] = set()
        """Doors whose generators have said their last line."""
        self.ended: set[str] = set()
        self.broken_off: list[str] = []
        self.wrong_use = False
        self.zero_s: float | None = None
        self.stopped_s: float | None = None
        """Seconds from the zero at which somebody stopped the run."""

    def clear(self) -> None:
        """Forget the last run."""
        self.__init__()  # type: ignore[misc]

    def now_s(self) -> float:
        """Return the seconds since the run's zero; none before it."""
        return 0.0 if self.zero_s is None else max(time.monotonic() - self.zero_s, 0.0)

    def close(self, door: str, status: int, complaint: str) -> None:
        """Note that a door's generator has ended, and whether that was its own end."""
        if status or door not in self.told:
            why = complaint.strip().rpartition("\n")[2] or f"exit status {status}"
            self.broken_off.append(f"{door}: {why}".rstrip("."))
            _log.error("%s: %s", door, complaint.strip() or why)
        self.wrong_use |= status == WRONG_USE
        self.ended.add(door)

    def report(self, until_s: float | None) -> Report | None:
        """Return the report of what is answered, of what was due before a moment."""
        if self.plan is None:
            return None
        latest = max(self.loop_late_ms.values(), key=_p99, default=[])
        return report(
            self.plan.through(self.generators.keys()),
            self.outcomes,
            loop_late_ms=latest,
            busy=self.busy,
            until_s=until_s,
            broken_off=self.broken_off,
        )


def _p99(late_ms: list[float]) -> float:
    return percentiles(late_ms)["p99"] or 0.0
