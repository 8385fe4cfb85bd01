"""Our own admission, told the future: how long each answer will be, and how late each of a cloud's.

It binds, queues and predicts as the router does; what it is told takes its doubts away. So what it
is charged says what not knowing costs, and nothing of how good the rule itself is: for that there
is `clairvoyant.Hindsight`, which shares nothing with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.lab.forebay_dispatcher import CLOUD, Forebay
from forebay.policy.admission.cloud import CloudLatency
from forebay.policy.admission.exits import LIKELY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.forebay_dispatcher import Known
    from forebay.lab.stage import Stage

_GUARD_S = 0.002
"""A request leaves so much before the last moment."""


def tell_lengths(jobs: Sequence[Job]) -> None:
    """Let each request ask for as many tokens as its answer will have."""
    for job in jobs:
        job.max_tokens = job.output_tokens


class Foretold(Forebay):
    """One router that knows a cloud's latency before it calls; its requests tell their lengths."""

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._latency = _Told(known.cloud.expect_tpot_s)
        self.controller.state.exits.clouds[CLOUD] = self._latency

    def _ask(self, stage: Stage, job: Job, target: str) -> None:
        self._latency.first_s = stage.cloud.ttft_s[job.number] + _GUARD_S
        super()._ask(stage, job, target)


class _Told(CloudLatency):
    """The latency of the request that asks; nobody is sent away because it may be too slow."""

    def __init__(self, tpot_s: float) -> None:
        super().__init__(0.0, tpot_s)
        self.first_s = 0.0

    def ttft_s(self, share: float = 0.99) -> float:
        """Return it; as what is merely likely, nothing."""
        return self.first_s if share > LIKELY else 0.0
