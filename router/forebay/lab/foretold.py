"""Our own admission, told the future: how long each answer will be, and how late each of a cloud's.

It binds, queues and predicts as the router does; what it is told takes its doubts away. So what it
is charged says what not knowing costs, and nothing of how good the rule itself is: for that there
is `clairvoyant.Hindsight`, which shares nothing with it. Where a cloud will be faster than usual it
leaves no later for that: the longer those wait whom no engine can begin in time any more, the more
of them stand before those whom one can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.lab.forebay_dispatcher import CLOUD, Forebay
from forebay.policy.admission.cloud import LIKELY, CloudLatency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.forebay_dispatcher import Known
    from forebay.lab.stage import Stage
    from forebay.policy.admission.terms import Place


def tell_lengths(jobs: Sequence[Job]) -> None:
    """Let each request ask for as many tokens as its answer will have."""
    for job in jobs:
        job.max_tokens = job.output_tokens


class Foretold(Forebay):
    """One router that knows of each cloud's answer how late it will be."""

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._latency = _Told(known.cloud)
        self.controller.state.exits.clouds[CLOUD] = self._latency

    def _ask(
        self, stage: Stage, job: Job, target: str, avoid: frozenset[str] = frozenset()
    ) -> None:
        self._latency.first_s = stage.cloud.ttft_s[job.number]
        super()._ask(stage, job, target, avoid)


class _Told(CloudLatency):
    """That of the one who asks, where it is beyond the usual; nobody is kept from a slow cloud."""

    def __init__(self, known: Place) -> None:
        super().__init__(known.expect_ttft_s, known.expect_tpot_s)
        self.first_s = 0.0

    def ttft_s(self, share: float = 0.99) -> float:
        """Return the more of the two; as what is merely likely, nothing."""
        return max(self.first_s, super().ttft_s(share)) if share > LIKELY else 0.0

    def likely(self, now_s: float) -> tuple[float, float]:
        """Return the TTFT of nothing, and the TPOT that is."""
        return 0.0, super().likely(now_s)[1]
