"""In-flight batching: one thread owns the pipeline, and everything else happens between steps.

A step holds Python's global lock for its whole length, so a lock of our own, or a thread for
each request, would only add waiting. Requests arrive in a queue that is emptied between
steps; a request joins the running batch at the next step if its longest possible answer still
fits the cache (so no running request is ever evicted), and each token goes out as its own
response right after the step that made it.

Only this thread sends. Two threads that send at once brought Triton 24.10 down (bad_alloc in
its python backend) within the first seconds of eight streams.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from generation import Generation, Limits
from metrics import Gauges, Load
from replies import Fault, Reply, Sequence, Times
from stepping import Decoded, Engine, Running
from words import StopWords

WAITING_POLL_S = 1.0


@dataclass(slots=True, eq=False)
class Job:
    """One request from its arrival to its last response. Jobs are themselves, never equal."""

    name: str
    asked: Generation
    reply: Reply
    times: Times
    guide: str | None = None
    running: Running | None = None
    sequences: dict[int, Sequence] = field(default_factory=dict)
    polled_at: float = 0.0

    def sequence(self, index: int) -> Sequence:
        """Return the state of one of its answers."""
        if index not in self.sequences:
            self.sequences[index] = Sequence(index, StopWords(self.asked.stop_words))
        return self.sequences[index]

    def finished(self) -> bool:
        """Return whether every answer it asked for is complete."""
        done = sum(sequence.done for sequence in self.sequences.values())
        return done == self.asked.sequences


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that ends before it began; its sentence goes out between steps like the rest."""

    reply: Reply
    fault: Fault
    sentence: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """A client's wish to stop its running request of that name."""

    name: str
    reply: Reply


class Batcher:
    """Runs requests through the pipeline until closed."""

    def __init__(
        self,
        load: Callable[[], Engine],
        limits: Limits,
        gauges: Gauges,
        *,
        report: Callable[[str], None],
        die: Callable[[], None],
        cancellation_period_s: float,
    ) -> None:
        """Load the pipeline and start stepping.

        Args:
            load: Makes a pipeline; called again when one is broken.
            limits: What the engine accepts.
            gauges: Where the state is published after each step.
            report: Writes a line to the server's log.
            die: Ends the process. Without its stepping thread it would accept requests that
                nobody answers, and Triton would call it ready.
            cancellation_period_s: How often, at most, a running request's client is asked for.
        """
        self._load = load
        self._limits = limits
        self._gauges = gauges
        self._report = report
        self._die = die
        self._period_s = cancellation_period_s
        self._inbox: SimpleQueue[Job | Refused | Stopping | None] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._keys = itertools.count()
        self._iteration = 0
        self._open = True
        self._pipeline = load()
        gauges.fix(
            requests=limits.max_batch_size,
            blocks=limits.kv_blocks,
            tokens_per_block=limits.tokens_per_block,
        )
        self._thread = threading.Thread(target=self._run, name="stepping", daemon=True)
        self._thread.start()

    def submit(self, arrival: Job | Refused | Stopping) -> None:
        """Hand something over from another thread; returns at once."""
        self._inbox.put(arrival)

    def close(self, timeout_s: float) -> None:
        """Tell every request that the engine is going away, and stop stepping."""
        self._open = False
        self._inbox.put(None)
        self._thread.join(timeout=timeout_s)

    def _run(self) -> None:
        try:
            while self._open:
                self._turn()
            self._fail_all("the engine is being unloaded; send it elsewhere")
        except BaseException as error:
            self._report(f"the stepping thread failed: {type(error).__name__}: {error}")
            self._fail_all("the engine failed; send it elsewhere")
            self._die()
            raise

    def _turn(self) -> None:
        """Do what lies between two steps, and one step."""
        self._take_in()
        self._admit()
        if self._pipeline.busy():
            self._step()
        self._drop_cancelled()
        self._publish()

    def _fail_all(self, sentence: str) -> None:
        for job in (*self._running, *self._waiting):
            job.reply.fail(Fault.UNAVAILABLE, sentence)

    def _take_in(self) -> None:
        """Take what has arrived; with nothing to do, sleep until something does."""
        idle = not self._running and not self._waiting and not self._pipeline.busy()
        try:
            arrival = self._inbox.get(block=idle)
            while arrival is not None:
                self._receive(arrival)
                arrival = self._inbox.get_nowait()
        except Empty:
            pass

    def _receive(self, arrival: Job | Refused | Stopping) -> None:
        if isinstance(arrival, Refused):
            arrival.reply.fail(arrival.fault, arrival.sentence)
        elif isinstance(arrival, Stopping):
            self._stop(arrival)
        elif self._queue_full():
            arrival.reply.fail(
                Fault.UNAVAILABLE,
                f"the engine's queue is full: {len(self._waiting)} requests are waiting",
            )
        else:
            self._waiting.append(arrival)

    def _queue_full(self) -> bool:
        """Return whether nobody more may wait, after those who can join have joined."""
        if len(self._waiting) >= self._limits.max_queue_size:
            self._admit()
        return len(self._waiting) >= self._limits.max_queue_size

    def _stop(self, stopping: Stopping) -> None:
        for job in [*self._running, *self._waiting]:
            if stopping.name and job.name == stopping.name:
                self._forget(job)
                job.reply.end()
        stopping.reply.end()

    def _admit(self) -> None:
        """Let waiting requests join, first come first served, while the cache holds them."""
        while self._waiting:
            job = self._waiting[0]
            blocks = job.asked.kv_blocks + sum(other.asked.kv_blocks for other in self._running)
            taken = job.asked.sequences + sum(other.asked.sequences for other in self._running)
            if blocks > self._limits.kv_blocks or taken > self._limits.max_batch_size:
                return
            self._waiting.popleft()
            job.times.first_scheduled_ns = time.monotonic_ns()
            job.polled_at = time.monotonic()
            try:
                job.running = self._pipeline.add(next(self._keys), job.asked, job.guide)
            except RuntimeError as error:
                job.reply.fail(Fault.INVALID, f"the engine refused the request: {error}"[:500])
                continue
            self._running.append(job)

    def _step(self) -> None:
        try:
            self._pipeline.step()
        except RuntimeError as error:
            self._rebuild(error)
            return
        self._iteration += 1
        now = time.monotonic_ns()
        for job in list(self._running):
            self._deliver(job, now)

    def _deliver(self, job: Job, now_ns: int) -> None:
        assert job.running is not None
        over = job.running.over()
        for decoded in job.running.decoded():
            if not job.times.first_token_ns:
                job.times.first_token_ns = now_ns
            job.times.last_token_ns = now_ns
            self._grow(job, decoded)
            if job.finished():
                break
        if job.finished():
            self._forget(job)
            produced = sum(sequence.sent for sequence in job.sequences.values())
            self._gauges.finished(job.asked.prompt.size, produced)
        elif over:
            self._forget(job)
            job.reply.fail(Fault.UNAVAILABLE, "the engine ran out of KV cache for this request")

    def _grow(self, job: Job, decoded: Decoded) -> None:
        """Add a step's tokens to one answer and send what is certain."""
        sequence = job.sequence(decoded.sequence)
        tokens = decoded.tokens
        if decoded.last and tokens and tokens[-1] == job.asked.end_id:
            tokens = tokens[:-1]
        certain: list[int] = []
        for token in tokens:
            certain += sequence.stop.feed(token)
        sequence.done = decoded.last or sequence.stop.found
        if sequence.done and not sequence.stop.found:
            certain += sequence.stop.flush()
        sequence.tokens += certain
        sequence.log_probs += decoded.log_probs
        if sequence.done or (job.asked.wanted.streaming and certain):
            job.reply.tokens(
                job.asked, sequence, job.times, upto=len(sequence.tokens), last=job.finished()
            )

    def _forget(self, job: Job) -> None:
        """Stop working on a request, whose reply is closed or about to be."""
        if job.running is None:
            self._waiting.remove(job)
            return
        if not job.running.over():
            job.running.cancel()
        self._running.remove(job)

    def _drop_cancelled(self) -> None:
        now = time.monotonic()
        for job in [*self._running, *self._waiting]:
            period = WAITING_POLL_S if job.running is None else self._period_s
            if now - job.polled_at >= period:
                job.polled_at = now
                if job.reply.cancelled():
                    self._forget(job)
                    job.reply.end()

    def _rebuild(self, error: Exception) -> None:
        """Replace a pipeline that a step has broken; those inside it are lost and told so."""
        self._report(f"the pipeline failed and is being rebuilt: {error}")
        for job in self._running:
            job.reply.fail(Fault.UNAVAILABLE, "the engine failed and is restarting; try again")
        self._running.clear()
        del self._pipeline
        self._pipeline = self._load()

    def _publish(self) -> None:
        active = len(self._running) + len(self._waiting)
        if not active and not self._pipeline.busy():
            idle = Load(0, 0, 0, 0, 0, self._iteration)
            self._gauges.publish(idle, self._limits.kv_blocks)
            return
        fresh = [job for job in self._running if not job.times.first_token_ns]
        self._gauges.publish(
            Load(
                active=active,
                scheduled=min(self._pipeline.scheduled(), len(self._running)),
                context=len(fresh),
                context_tokens=sum(job.asked.prompt.size for job in fresh),
                used_blocks=self._pipeline.used_blocks(),
                iteration=self._iteration,
            ),
            self._limits.kv_blocks,
        )
