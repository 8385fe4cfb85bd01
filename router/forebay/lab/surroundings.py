"""What a run is surrounded by: promises, a cloud, what goes wrong when, and who dispatches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.stage import Stage
    from forebay.values import Scrape


FORCED = 20.0
"""Times the cloud's price that a miss is charged where its class may not leave."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A class as it is judged, in seconds; infinite where nothing is promised."""

    name: str
    ttft_s: float
    tpot_s: float
    e2e_s: float
    may_spill: bool

    @property
    def miss_factor(self) -> float:
        """Return how many times the cloud's price a miss is charged."""
        return 1.0 if self.may_spill else FORCED

    def kept(self, job: Job) -> bool:
        """Return whether an answer that came kept all of it."""
        if job.first_s is None or job.end_s is None:
            return False
        decoded = job.output_tokens - 1
        return (
            job.first_s - job.arrived_s <= self.ttft_s
            and job.end_s - job.arrived_s <= self.e2e_s
            and (decoded == 0 or job.end_s - job.first_s <= self.tpot_s * decoded + 1e-9)
        )


@dataclass(frozen=True, slots=True)
class Cloud:
    """The spill target: TTFT by request number, one TPOT, prices of one token."""

    ttft_s: Sequence[float]
    tpot_s: float
    input_usd: float
    output_usd: float

    def usd(self, job: Job) -> float:
        """Return what a request's answer costs there, before any change of price."""
        return job.input_tokens * self.input_usd + job.output_tokens * self.output_usd


@dataclass(frozen=True, slots=True)
class Turn:
    """What changes at `at_s` for good: engines slow down, some die, the cloud's price changes."""

    at_s: float
    engine_factor: float = 1.0
    dies: int = 0
    price_factor: float = 1.0


class Dispatcher(Protocol):
    """A policy under simulation: told what happens, it places requests through the stage.

    No method may keep a request and lose it: each ends once, by an engine, a cloud or `refuse`.
    """

    def arrived(self, stage: Stage, job: Job) -> None:
        """A request came; place it now or keep it."""

    def stepped(self, stage: Stage, replica: int) -> None:
        """A replica's steps brought every stream of it tokens; first tokens and ends follow."""

    def first_token(self, stage: Stage, job: Job) -> None:
        """A request's first token came, from an engine or a cloud."""

    def ended(self, stage: Stage, job: Job) -> None:
        """A request is over: `job.ended` says how, `job.where` where."""

    def failed(self, stage: Stage, job: Job) -> None:
        """A request had no token yet from a replica that is dead; it may be placed again."""

    def died(self, stage: Stage, replica: int) -> None:
        """A replica is gone; what was inside is told afterwards."""

    def scraped(self, stage: Stage, replica: int, scrape: Scrape) -> None:
        """A replica's metrics were read."""

    def woken(self, stage: Stage) -> None:
        """The time that `stage.wake` was asked for has come."""

    def repriced(self, stage: Stage, factor: float) -> None:
        """The cloud's prices are `factor` times what they were at first."""
