"""The baselines: what people run in front of engines today.

Classes that may not leave are placed first in, first out, whatever the policy would have liked.
A replica that died takes no more; what it had not begun is placed anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.engine_sim import Job
    from forebay.lab.stage import Stage
    from forebay.values import Scrape


class Baseline:
    """What all baselines share: they look at counts of their own, and keep no request.

    Of the fleet's `replicas` one uses those that it `may`, by number; all by default.
    """

    def __init__(self, replicas: int, may: Sequence[int] | None = None) -> None:
        self.inflight = [0] * replicas
        self.alive = list(range(replicas) if may is None else may)

    def arrived(self, stage: Stage, job: Job) -> None:
        """Place a request at once; each baseline says where."""
        raise NotImplementedError

    def stepped(self, stage: Stage, replica: int) -> None:
        """Baselines do not time steps."""

    def first_token(self, stage: Stage, job: Job) -> None:
        """Baselines ask nothing of a stream."""

    def ended(self, stage: Stage, job: Job) -> None:  # noqa: ARG002 - the port's own shape
        """Free its place."""
        if job.where is not None and job.where >= 0:
            self.inflight[job.where] -= 1

    def failed(self, stage: Stage, job: Job) -> None:
        """Place it anew."""
        self.arrived(stage, job)

    def died(self, stage: Stage, replica: int) -> None:  # noqa: ARG002 - the port's own shape
        """Never choose it again."""
        if replica in self.alive:
            self.alive.remove(replica)

    def scraped(self, stage: Stage, replica: int, scrape: Scrape) -> None:
        """Most baselines read no metrics."""

    def woken(self, stage: Stage) -> None:
        """Baselines wait for nothing."""

    def repriced(self, stage: Stage, factor: float) -> None:
        """Baselines do not look at prices."""

    def place(self, stage: Stage, job: Job, replica: int) -> None:
        """Send a request to a replica and count it."""
        self.inflight[replica] += 1
        stage.submit(job, replica)

    def least(self) -> int:
        """Return the replica with the fewest requests of ours, the first among equals."""
        return min(self.alive, key=self.inflight.__getitem__)


class Fifo(Baseline):
    """Every request to the replica with the fewest requests; nothing leaves, nothing is refused."""

    def arrived(self, stage: Stage, job: Job) -> None:
        """Send it to the least loaded replica."""
        self.place(stage, job, self.least())


class RoundRobin(Baseline):
    """Every request to the next replica."""

    turn = 0

    def arrived(self, stage: Stage, job: Job) -> None:
        """Send it to the next replica."""
        self.turn += 1
        self.place(stage, job, self.alive[self.turn % len(self.alive)])


class Cap(Baseline):
    """At most `cap` requests of ours at a replica; what is beyond goes to the cloud.

    Classes that may not leave wait here, first in first out, for the next free place. `reached`
    says whether the cap ever stood in anybody's way.
    """

    def __init__(self, replicas: int, cap: int, may: Sequence[int] | None = None) -> None:
        super().__init__(replicas, may)
        self.cap = cap
        self.reached = False
        self._waiting: list[Job] = []

    def arrived(self, stage: Stage, job: Job) -> None:
        """Send it to the least loaded replica with a place free, or away."""
        replica = self.least()
        if self.inflight[replica] < self.cap:
            self.place(stage, job, replica)
            return
        self.reached = True
        if stage.promises[job.label].may_spill:
            stage.spill(job)
        else:
            self._waiting.append(job)

    def ended(self, stage: Stage, job: Job) -> None:
        """Give its place to who waits longest."""
        super().ended(stage, job)
        while self._waiting and self.inflight[replica := self.least()] < self.cap:
            self.place(stage, self._waiting.pop(0), replica)


class Threshold(Baseline):
    """Saturated is a replica whose queue exceeds 5 or whose KV use exceeds 0.8 when last read.

    The rule of the Gateway API's inference extension. Among replicas that are not saturated the
    one with the fewest requests of ours; when all are, what may leave goes to the cloud.
    """

    queue_max = 5
    kv_max = 0.8

    def __init__(self, replicas: int, may: Sequence[int] | None = None) -> None:
        super().__init__(replicas, may)
        self._score = [0.0] * replicas

    def arrived(self, stage: Stage, job: Job) -> None:
        """Send it to the least saturated replica, or away."""
        free = [one for one in self.alive if self._score[one] <= 1.0]
        if free:
            self.place(stage, job, min(free, key=self.inflight.__getitem__))
        elif stage.promises[job.label].may_spill:
            stage.spill(job)
        else:
            self.place(stage, job, self.least())

    def scraped(self, stage: Stage, replica: int, scrape: Scrape) -> None:  # noqa: ARG002
        """Take in queue and KV use; above 1 is saturated."""
        self._score[replica] = max(scrape.waiting / self.queue_max, scrape.kv_used / self.kv_max)
