"""One simulated engine replica: a batch in flight, step by step, as TensorRT-LLM schedules it.

Requests wait in one FIFO queue. At each step's start the head joins while the batch has a place
and the KV cache room for its prompt and the longest answer it may give (GUARANTEED_NO_EVICT).
A step decodes one token for every running stream and takes in prompt tokens, oldest prompt
first, until streams and prompt tokens fill `step_tokens` (chunked context). The step that takes
in the last of a prompt yields its first token.

Between changes of the batch, steps are only added up: a segment is the boundaries of such steps,
and an event falls at its end. A request that arrives inside a segment ends it at the boundary
that comes next, which is where the engine would have looked.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from forebay.lab.job import EngineLimits, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.lab.step_time import StepLaw

_AHEAD = 64
"""Steps at most that are added up at once: an arrival makes those after it worthless."""


class SimulatedEngine:
    """The state of one replica. `next_s` is when its current segment ends; infinite if idle."""

    def __init__(
        self, limits: EngineLimits, law: StepLaw, factors: Callable[[], list[float]]
    ) -> None:
        self.limits = limits
        self.law = law
        self.factor = 1.0
        self.alive = True
        self.next_s = inf
        self.version = 0
        self.order = -1
        self.waiting: deque[Job] = deque()
        self.taking_in: list[Job] = []
        self.running = 0
        self.reserved_tokens = 0
        self.steps = 0
        self._context = 0
        self._blocks = 0
        self._crossing = [0] * law.block_tokens
        self._ending: list[tuple[int, int, Job]] = []
        self._ends: list[float] = []
        self._taken: list[tuple[Job, int]] = []
        self._draw = factors
        self._noise: list[float] = []
        self._noise_from = 0

    # ---- what others see -------------------------------------------------------------------

    @property
    def streams(self) -> list[Job]:
        """Return the requests that are being decoded, in no order that matters."""
        return [job for _, _, job in self._ending]

    @property
    def active(self) -> int:
        """Return all requests inside, waiting ones included."""
        return len(self.waiting) + len(self.taking_in) + self.running

    @property
    def scheduled(self) -> int:
        """Return the requests that the current step decodes for or takes prompt tokens of."""
        return self.running + len(self._taken)

    def fits(self, job: Job) -> bool:
        """Return whether an empty replica could hold it."""
        return job.reserve_tokens <= self.limits.kv_tokens

    def steps_done(self, now_s: float) -> int:
        """Return the steps that are over at a time inside the current segment."""
        return self.steps + bisect_right(self._ends, now_s)

    def step_ends_s(self, now_s: float) -> float:
        """Return when the step that is under way ends; now where there is none."""
        return self._ends[bisect_left(self._ends, now_s)] if self._ends else now_s

    def emitted(self, job: Job, now_s: float) -> int:
        """Return the tokens of a running stream that have left by then."""
        if job.first_s is None:
            return 0
        return job.output_tokens - (job.last_step - self.steps_done(now_s))

    @property
    def full(self) -> bool:
        """Whether the next request is refused, for as many wait as may."""
        return len(self.waiting) >= self.limits.queue

    def has_room(self, job: Job) -> bool:
        """Return whether it could join at the next step, were nobody waiting."""
        limits = self.limits
        return (
            self.running + len(self.taking_in) < limits.max_batch
            and self.reserved_tokens + job.reserve_tokens <= limits.kv_tokens
        )

    def backlog_tokens(self) -> int:
        """Return the prompt tokens inside that the current step does not take in."""
        inside = sum(job.left_tokens for job in self.taking_in)
        taken = sum(tokens for _, tokens in self._taken)
        return inside - taken + sum(job.input_tokens for job in self.waiting)

    def kv_used_tokens(self) -> int:
        """Return the tokens that fill the KV cache: reserved is more than used."""
        taken = sum(job.input_tokens - job.left_tokens for job in self.taking_in)
        return self._context + taken

    # ---- what happens to it ----------------------------------------------------------------

    def begin(self, now_s: float) -> None:
        """Start on what was put into `waiting` by hand."""
        self._plan(now_s)

    def submit(self, job: Job, now_s: float) -> None:
        """Put a request at the end of the queue; it may join at the next step boundary."""
        self.waiting.append(job)
        if not self._ends:
            self._plan(now_s)
        elif len(self.waiting) == 1 and self.has_room(job):
            self._cut(now_s)

    def withdraw(self, job: Job, now_s: float) -> bool:
        """Take a request out that waits; return whether it did: what was begun goes on.

        Who is first then joins at the next step boundary, if it has room.
        """
        if job not in self.waiting:
            return False
        self.waiting.remove(job)
        if self.waiting and self.has_room(self.waiting[0]):
            self._cut(now_s)
        return True

    def change_pace(self, factor: float, now_s: float) -> None:
        """Let steps that begin from now on take `factor` times what the law says."""
        if factor != self.factor:
            self.factor = factor
            self._cut(now_s)

    def end_segment(self) -> tuple[list[Job], list[Job]]:
        """Come to `next_s`; return the requests with a first token now, and those that ended."""
        now_s = self.next_s
        steps = len(self._ends)
        self.steps += steps
        self._context += self.running * steps
        if self.law.block_tokens > 1:
            self._cross(steps)
        ended = self._finish()
        firsts = self._took_in(now_s, ended)
        for job in ended:
            job.end_s = now_s
        self._plan(now_s)
        return firsts, ended

    def die(self) -> list[Job]:
        """Stop for good; return all that was inside.

        Streams come first, by when they would have ended, then prompts by age.
        """
        inside = [job for _, _, job in sorted(self._ending)] + self.taking_in + [*self.waiting]
        self.waiting.clear()
        self.taking_in, self._ending, self._ends, self._taken = [], [], [], []
        self.running = self.reserved_tokens = 0
        self.alive, self.next_s = False, inf
        self.version += 1
        return inside

    # ---- one segment -----------------------------------------------------------------------

    def _cut(self, now_s: float) -> None:
        """End the segment with the step that is under way."""
        keep = bisect_left(self._ends, now_s) + 1
        if keep < len(self._ends):
            del self._ends[keep:]
            self.next_s = self._ends[-1]
            self.version += 1

    def _plan(self, now_s: float) -> None:
        """Let in who waits, and add up the steps until the batch may change."""
        while self.waiting and self.has_room(self.waiting[0]):
            job = self.waiting.popleft()
            job.left_tokens = job.input_tokens
            self.reserved_tokens += job.reserve_tokens
            self.taking_in.append(job)
        self.version += 1
        if self.taking_in:
            self._ends = self._mixed(now_s, self._chunks())
        elif self.running:
            self._ends = self._decode(now_s, min(self._ending[0][0] - self.steps, _AHEAD))
        else:
            self._ends = []
        self.next_s = self._ends[-1] if self._ends else inf

    def _chunks(self) -> int:
        room = self.limits.step_tokens - self.running
        self._taken = []
        for job in self.taking_in:
            tokens = min(room, job.left_tokens)
            self._taken.append((job, tokens))
            room -= tokens
            if room <= 0:
                break
        return self.limits.step_tokens - self.running - room

    def _decode(self, now_s: float, steps: int) -> list[float]:
        """Return the ends of so many steps without prompts; each adds a token to every stream."""
        streams, kv, law = self.running, self._context, self.law
        blocks = law.block_tokens > 1
        noise = self._factors(self.steps, steps)
        slow, ends = self.factor, []
        for ahead, factor in enumerate(noise):
            if blocks:
                kv = self._blocks_at(ahead) * law.block_tokens
            now_s += law.step_s(streams, kv, 0) * factor * slow
            ends.append(now_s)
            kv += streams
        return ends

    def _mixed(self, now_s: float, prefill: int) -> list[float]:
        """Return the end of one step that takes prompt tokens in."""
        law = self.law
        kv = self._context if law.block_tokens == 1 else self._blocks * law.block_tokens
        step_s = law.step_s(self.running, kv, prefill)
        return [now_s + step_s * self._factors(self.steps, 1)[0] * self.factor]

    def _factors(self, step: int, count: int) -> list[float]:
        """Return the noise of steps `step` and on; a segment that was cut asks for some again."""
        place = step - self._noise_from
        if place + count > len(self._noise):
            self._noise = self._noise[place:] + self._draw()
            self._noise_from, place = step, 0
        return self._noise[place : place + count]

    # ---- its ends --------------------------------------------------------------------------

    def _finish(self) -> list[Job]:
        ended = []
        while self._ending and self._ending[0][0] <= self.steps:
            job = heappop(self._ending)[2]
            self.running -= 1
            self._context -= job.input_tokens + job.output_tokens
            self._release(job)
            if self.law.block_tokens > 1:
                self._crossing[job.residue] -= 1
                self._blocks -= self._blocks_of(job.input_tokens + job.output_tokens)
            ended.append(job)
        return ended

    def _took_in(self, now_s: float, ended: list[Job]) -> list[Job]:
        firsts = []
        for job, tokens in self._taken:
            job.left_tokens -= tokens
            if job.left_tokens:
                continue
            firsts.append(job)
            job.first_s = now_s
            if job.output_tokens == 1:
                self._release(job)
                ended.append(job)
            else:
                self._run(job)
        if firsts:
            # Prompts are taken in oldest first, so those that are through lead the list.
            del self.taking_in[: len(firsts)]
        self._taken = []
        return firsts

    def _run(self, job: Job) -> None:
        job.last_step = self.steps + job.output_tokens - 1
        heappush(self._ending, (job.last_step, job.number, job))
        self.running += 1
        self._context += job.input_tokens + 1
        if self.law.block_tokens > 1:
            # Its context is a multiple of a block at the steps that leave this remainder.
            job.residue = (self.steps - job.input_tokens - 1) % self.law.block_tokens
            self._crossing[job.residue] += 1
            self._blocks += self._blocks_of(job.input_tokens + 1)

    def _release(self, job: Job) -> None:
        self.reserved_tokens -= job.reserve_tokens

    # ---- whole blocks of KV ----------------------------------------------------------------

    def _blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.law.block_tokens)

    def _cross(self, steps: int) -> None:
        """Add the blocks that streams began in the segment that has just been added up."""
        first = self.steps - steps
        size = self.law.block_tokens
        self._blocks += sum(self._crossing[step % size] for step in range(first, self.steps))

    def _blocks_at(self, ahead: int) -> int:
        size = self.law.block_tokens
        begun = sum(self._crossing[(self.steps + n) % size] for n in range(ahead))
        return self._blocks + begun


__all__ = ["EngineLimits", "Job", "SimulatedEngine"]
