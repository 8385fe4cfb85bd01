"""One engine as the router knows it: its own requests exactly, others' as last scraped."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from forebay.policy.admission.affinity import PrefixCache
from forebay.policy.admission.line import PromptLine
from forebay.policy.admission.model import Sample, Speed, fit, steps_to_first_token
from forebay.policy.health import Health

if TYPE_CHECKING:
    from forebay.policy.admission.terms import Outcome, ReplicaSpec, Ticket
    from forebay.values import Scrape

STALE_S = 5.0
"""Scraped load older than this says nothing of now: it is unknown, not full."""

WINDOW = 1500
"""Steps that the fit looks at."""

REFIT_EVERY = 64
"""New steps before the fit is worth doing again."""

ARRIVALS_S = 6.0
"""Over how long the rate of prompt tokens is averaged."""

BUSIEST = 0.9
"""A share of prefill above this would make the decoding rate meaningless."""

GUESSED_PROMPT = 256
"""Tokens assumed of a prompt that waits in the engine and is not ours."""

HANDOVER = 0.1
"""A prompt that was sent less than this share of a step before one began came too late for it, as
do all that are placed on the news of a step's end: their way there takes time, as news does."""

LAG_STEP = 0.05
MAX_LAG_S = 1.0

SPREAD_STEP = 0.05
"""How fast the size of a prediction's error follows what was seen."""

WORST_S, WORST_SHARE = 10.0, 1.0
"""The largest error of a TTFT and of a TPOT that counts: a client that reads slowly, or a pause of
the machine, is not how an engine is."""

SILENT_S = 1.0
"""A stream that brought no token for so long does not time its engine's steps: another one does,
or the clock. Its client may be slow to read."""

SILENT, SILENT_LEAST_S = 3.0, 1.0
"""A first token is overdue after so many times what was expected, which is so much at least."""

FORGET_S = 30.0
"""An engine that was not called for so long, while requests were held to be too late there, is
thought better of, halfway to how it was described: one that seems too slow for every promise is
never called, and could never disprove it. Where nobody asks nothing is forgotten."""


class View(NamedTuple):
    """One engine at one moment, as every request that looks at it then finds it.

    `inside` requests, `used` tokens of KV cache promised, `backlog` prompt tokens to take in;
    a step begins after `begins_s`, takes `step_s` and has `room` for prompt tokens; with one more
    stream it takes `alone_s`, without its context and without the prompts that come between,
    `prompts_per_s` of late. With them, but for its own prompt, a stream has a TPOT of at least
    `floor_s` and `slope_s` for each token of its context. No TPOT may be predicted above
    `tightest_s`, or a stream inside loses its promise. One that `empties` takes nobody who may
    leave.
    """

    inside: int
    used: int
    backlog: float
    begins_s: float
    step_s: float
    room: float
    alone_s: float
    c_s: float
    d_s: float
    prompts_per_s: float
    floor_s: float
    slope_s: float
    tightest_s: float
    ttft_spread_s: float
    tpot_spread: float
    empties: bool

    def taking_in(self, prompts: float) -> tuple[float, float]:
        """Return the steps that take in so many prompt tokens, and their seconds."""
        steps = max(1.0, math.ceil(prompts / self.room))
        return steps, steps * self.step_s + self.d_s * prompts

    def ahead_s(self, prompt_tokens: int, prefill: int) -> tuple[float, float]:
        """Return TTFT and TPOT from now on of one more prompt, `prefill` of it not cached."""
        _, took_s = self.taking_in(self.backlog + prefill)
        ttft_s = self.begins_s + took_s
        share = min(BUSIEST, (self.prompts_per_s + prefill / ARRIVALS_S) * self.d_s)
        return ttft_s, (self.alone_s + self.c_s * prompt_tokens) / (1.0 - share)


class Replica:
    """The load of one engine, its speed, and what a further request would find there.

    `tightest_s` is the strictest TPOT that a prediction must keep for the requests inside, and
    `doubted_s` when a request was last held not to be answered in time there.
    """

    __slots__ = (
        "_arrivals",
        "_at_s",
        "_fresh",
        "_heard_s",
        "_idle_s",
        "_iterations",
        "_mark",
        "_mute_s",
        "_mute_until_s",
        "_samples",
        "_tight",
        "cache",
        "coefficients",
        "doubted_s",
        "foreign",
        "foreign_kv",
        "foreign_waiting",
        "health",
        "kept_for",
        "kv",
        "lag_s",
        "learnt",
        "line",
        "ours",
        "probe",
        "reserved",
        "running",
        "scrape",
        "spec",
        "tightest_s",
        "tpot_spread",
        "ttft_spread_s",
    )

    def __init__(self, spec: ReplicaSpec, now_s: float) -> None:
        self.spec = spec
        self.cache = PrefixCache(spec.kv_tokens)
        self.line = PromptLine()
        self.running: dict[Ticket, None] = {}
        self.kv = 0
        self.reserved = 0
        self.health = Health()
        self.ours = True
        self.learnt = False
        self.scrape: Scrape | None = None
        self.doubted_s = -math.inf
        self._iterations = 0
        self.foreign = self.foreign_kv = self.foreign_waiting = 0
        self._at_s = self._idle_s = now_s
        self._arrivals = (0.0, now_s)
        self.probe: Ticket | None = None
        self.kept_for: Ticket | None = None
        self._mark = 0.0
        self._mute_s, self._mute_until_s = 0.0, now_s
        self._heard_s = now_s
        self._samples: deque[Sample] = deque(maxlen=WINDOW)
        self._fresh = 0
        self._tight: Counter[float] = Counter()
        self.tightest_s = math.inf
        self.begin(spec.known or Speed(spec.prior))

    def begin(self, speed: Speed) -> None:
        """Take the engine to be as fast as told."""
        self.coefficients, self.lag_s = speed.step, speed.lag_s
        self.ttft_spread_s, self.tpot_spread = speed.ttft_spread_s, speed.tpot_spread

    @property
    def speed(self) -> Speed:
        """How fast the engine has turned out to be."""
        return Speed(self.coefficients, self.lag_s, self.ttft_spread_s, self.tpot_spread)

    # ---- what is inside ----------------------------------------------------------------

    @property
    def own(self) -> int:
        """Our own requests in the engine."""
        return len(self.line.pending) + len(self.running)

    @property
    def inside(self) -> int:
        """All requests in the engine, ours and others'."""
        return len(self.line.pending) + len(self.running) + self.foreign

    def scraped(self, scrape: Scrape, own_at_poll: int) -> None:
        """Take in what the engine's metrics said; what is not ours is somebody else's.

        One that has made fewer steps than before was started anew.
        """
        if scrape.iterations is not None:
            if scrape.iterations < self._iterations:
                self.cache = PrefixCache(self.spec.kv_tokens)
            self._iterations = scrape.iterations
        self.scrape = scrape
        self.foreign = max(0, scrape.active - own_at_poll)
        waiting = scrape.waiting - len(self.line.pending)
        self.foreign_waiting = max(0, waiting) if self.foreign else 0
        used = scrape.kv_used * self.spec.kv_tokens
        self.foreign_kv = max(0, int(used) - self.kv) if self.foreign else 0

    def age(self, now_s: float) -> None:
        """Forget a scrape that has grown too old."""
        if self.scrape is not None and now_s - self.scrape.at_s > STALE_S:
            self.scrape = None
            self.foreign = self.foreign_kv = self.foreign_waiting = 0

    def able(self, now_s: float) -> bool:
        """Return whether the replica may be called, as usual or to find out whether it works."""
        return self.ours and (self.health.takes(now_s) or self.health.may_probe(now_s))

    def judged(self, ticket: Ticket, outcome: Outcome, now_s: float) -> None:
        """Take in how a call ended, for the replica's health.

        One that ended without a word, whoever ended it, is the replica's fault when a first token
        was due long before, to it or to those before it that were cut short: what hangs answers no
        probe of ours either, and draws calls for ever.
        """
        due_s = SILENT * max(SILENT_LEAST_S, ticket.expected_s - ticket.placed_s)
        if outcome == "declined":
            self._heard_s = now_s
        wordless = ticket.first_s is None and self._muted(ticket, now_s) > due_s
        if outcome == "served":
            self.answered(now_s, ticket.placed_s)
        elif outcome == "failed" or wordless:
            self.health = self.health.failed(now_s, ticket.placed_s)
        else:
            self.health = self.health.abandoned(ticket.placed_s)

    def answered(self, now_s: float, began_s: float) -> None:
        """Take in that a call begun at `began_s` was answered whole.

        An engine that comes back from an ejection may have been started anew: what it had cached
        is taken for gone.
        """
        ejected = self.health.opened_s is not None
        self.health = self.health.served(now_s, began_s)
        if ejected and self.health.opened_s is None:
            self.cache = PrefixCache(self.spec.kv_tokens)

    @property
    def empties(self) -> bool:
        """Whether it takes nobody who may leave, until one who may not has found room."""
        return self.kept_for is not None and self.kept_for.state == "waiting"

    def backlog(self, now_s: float) -> float:
        """Return prompt tokens that the engine has still to take in, ours and others'."""
        self._advance(now_s)
        return self.line.left + self.foreign_waiting * GUESSED_PROMPT

    # ---- what a further request would find ---------------------------------------------

    def view(self, now_s: float) -> View:
        """Return what any further request would find here at `now_s`."""
        self.age(now_s)
        self._advance(now_s)
        c, line, streams = self.coefficients, self.line, len(self.running) + self.foreign
        inside, kv = streams + len(line.pending), self.kv + self.foreign_kv
        step_s = c.a_s + c.b_s * streams + c.c_s * kv
        alone_s = c.a_s + c.b_s * (inside + 1) + c.c_s * (kv + line.prompt_tokens)
        tokens_per_s, at_s = self._arrivals
        prompts_per_s = tokens_per_s * math.exp((at_s - now_s) / ARRIVALS_S)
        decoding = 1.0 - min(BUSIEST, prompts_per_s * c.d_s)
        return View(
            inside=inside,
            used=self.reserved + self.foreign_kv,
            backlog=line.left + self.foreign_waiting * GUESSED_PROMPT,
            begins_s=self.lag_s + (0.5 * step_s if streams else 0.0),
            step_s=step_s,
            room=max(1.0, float(self.spec.step_tokens - streams)),
            alone_s=alone_s,
            c_s=c.c_s,
            d_s=c.d_s,
            prompts_per_s=prompts_per_s,
            floor_s=alone_s / decoding,
            slope_s=c.c_s / decoding,
            tightest_s=self.tightest_s,
            ttft_spread_s=self.ttft_spread_s,
            tpot_spread=self.tpot_spread,
            empties=self.kept_for is not None and self.empties,
        )

    @property
    def strains(self) -> bool:
        """Whether a step full of prompt tokens is longer than a pace that is kept for a stream."""
        c = self.coefficients
        return c.a_s + c.d_s * self.spec.step_tokens > self.tightest_s

    def breaks(self, view: View, prefill: int, now_s: float, *, fair: bool) -> bool:
        """Return whether a stream would lose its pace while `prefill` more tokens are taken in.

        Meanwhile each step brings it a token and takes as long as the prompts in it do. What was
        faster before makes up for that, so that a stream can bear the longer prompts the more
        tokens it has had; an answer that ended with the token after that would have kept its
        promise, and one that has not begun with its last of those. With `fair` the
        promise is what counts, and else what is kept of it for errors. One that has lost its pace
        already, or whose client reads slowly, has nothing to lose.
        """
        if self.tightest_s == math.inf:
            return False
        steps, took_s = view.taking_in(view.backlog + prefill)
        if took_s <= steps * self.tightest_s:
            return False
        for ticket in self.running:
            promised_s, kept_s, first_s = ticket.ask.terms.tpot_s, ticket.tight_s, ticket.first_s
            if promised_s is None or kept_s is None or first_s is None:
                continue
            had, pace_s = ticket.tokens, promised_s if fair else kept_s
            bears = now_s - first_s + took_s + view.step_s <= pace_s * (had + steps)
            if not bears and now_s - first_s <= promised_s * had:
                return True
        for ticket in self.line.pending:
            limit_s = ticket.ask.terms.tpot_s if fair else ticket.tight_s
            if limit_s is None:
                continue
            steps, took_s = view.taking_in(self.line.sent - ticket.mark + prefill)
            if took_s > limit_s * steps:
                return True
        return False

    def idle(self, prompt_tokens: int) -> tuple[float, float]:
        """Return TTFT and TPOT that a prompt would find were nobody else there."""
        c = self.coefficients
        steps = steps_to_first_token(prompt_tokens, 0, self.spec.step_tokens)
        ttft_s = self.lag_s + steps * c.a_s + c.d_s * prompt_tokens
        return ttft_s, c.a_s + c.b_s + c.c_s * prompt_tokens

    # ---- what happens -------------------------------------------------------------------

    def place(self, ticket: Ticket, prefill: int, margin: float, now_s: float) -> None:
        """Count a request from now on; `prefill` of its prompt is not cached.

        `margin` is by how much its class distrusts predictions of TPOT: whoever comes later is
        held against its promise by the same measure.
        """
        ask = ticket.ask
        if not self.health.takes(now_s):
            self.health = self.health.probing(now_s)
        backlog = self.backlog(now_s)
        tokens_per_s, at_s = self._arrivals
        faded = tokens_per_s * math.exp((at_s - now_s) / ARRIVALS_S)
        self._arrivals = (faded + prefill / ARRIVALS_S, now_s)
        self.line.put(ticket, prefill)
        self.reserved += ask.prompt_tokens + ask.max_tokens
        ticket.alone = backlog < 1.0 and not self.running and not self.foreign
        if ask.terms.tpot_s is not None:
            ticket.tight_s = ask.terms.tpot_s / max(1.0, margin)
            self._tight[ticket.tight_s] += 1
            self.tightest_s = min(self.tightest_s, ticket.tight_s)
        self.cache.remember(ask.blocks)

    def first(self, ticket: Ticket, count: int, now_s: float) -> None:
        """Note a first token and those that came with it: the prompt was taken in."""
        self._advance(now_s)
        self.line.took(ticket)
        if ticket.alone and not self.line.pending:
            self._timed(ticket, now_s)
        self.running[ticket] = None
        self.kv += ticket.ask.prompt_tokens + count - 1
        if self.probe is None:
            self._times(ticket)
        self._heard_s = now_s
        miss_s = now_s - ticket.expected_s
        self.ttft_spread_s += SPREAD_STEP * (min(abs(miss_s), WORST_S) - self.ttft_spread_s)
        self.lag_s += LAG_STEP * max(-self.lag_s, min(MAX_LAG_S - self.lag_s, miss_s))

    def paced(self, ticket: Ticket, tpot_s: float) -> None:
        """Note the TPOT of an answer that has ended."""
        over = tpot_s / ticket.expected_tpot_s - 1.0 if ticket.expected_tpot_s else 0.0
        self.tpot_spread += SPREAD_STEP * (min(max(over, 0.0), WORST_SHARE) - self.tpot_spread)

    def later(self, ticket: Ticket, count: int, now_s: float) -> None:
        """Note further tokens of a running stream; one stream of each engine times its steps."""
        self.kv += count
        self._heard_s = now_s
        if ticket is not self.probe:
            if self._silent(now_s):
                self._times(ticket)
            return
        running = float(len(self.running) + self.foreign)
        kv = float(self.kv + self.foreign_kv)
        taken = self._taken(ticket.last_s, count, running, kv)
        self._sample((now_s - ticket.last_s) / count, running, kv, taken / count)
        self._at_s = now_s

    def remove(self, ticket: Ticket, now_s: float) -> None:
        """Forget a request that ended, wherever it stood."""
        ask = ticket.ask
        self._advance(now_s)
        if ticket in self.line.pending:
            before = self.line.taken
            self.line.gone(ticket)
            self._mark += self.line.taken - before  # no step took it in
        else:
            self.running.pop(ticket)
            self.kv -= ask.prompt_tokens + max(0, ticket.tokens - 1)
        if self.probe is ticket:
            self.probe = next(reversed(self.running), None)
        self.reserved -= ask.prompt_tokens + ask.max_tokens
        if ticket.tight_s is not None:
            self._loosen(ticket.tight_s)
        self._idle_s = now_s

    # ---- how fast it is -----------------------------------------------------------------

    def _times(self, ticket: Ticket) -> None:
        """Let a stream time the engine's steps from now on."""
        self.probe, self._mark = ticket, self.line.taken

    def _taken(self, begun_s: float, count: int, running: float, kv: float) -> float:
        """Return the prompt tokens taken in by the `count` steps since `begun_s`, and move on.

        First tokens have proved some of them; of the rest, as many as had come by then and as the
        steps have room for.
        """
        late_s = HANDOVER * self.coefficients.step_s(running, kv, 0.0)
        room = max(0.0, self.spec.step_tokens - running)
        reached = min(self._mark + room * count, self.line.sent_by(begun_s - late_s))
        self.line.move(reached - self.line.taken)
        taken = self.line.taken - self._mark
        self._mark = self.line.taken
        return max(0.0, taken)

    def _timed(self, ticket: Ticket, now_s: float) -> None:
        """Learn from a prompt that the engine took in alone; no stream's step would show it."""
        streams = len(self.running) + self.foreign
        steps = steps_to_first_token(ticket.prefill, streams, self.spec.step_tokens)
        step_s = (now_s - ticket.placed_s - self.lag_s) / steps
        kv = float(self.kv + self.foreign_kv)
        self._sample(step_s, float(streams), kv, ticket.prefill / steps)

    def _sample(self, step_s: float, streams: float, kv: float, prefill: float) -> None:
        """Take in one step; tokens that came at once say nothing of the time between them."""
        if step_s > 0.0:
            self._samples.append((step_s, streams, kv, prefill))
            self._fresh += 1

    def refit(self, now_s: float) -> bool:
        """Learn the engine's speed anew where enough steps were seen; return whether it did."""
        if not self.own and now_s - self._idle_s >= FORGET_S and self.doubted_s > self._idle_s:
            self._idle_s, self._fresh = now_s, 0
            self._samples.clear()
            self.begin(self.speed.halfway(self.spec.prior))
            return True
        if self._fresh < REFIT_EVERY:
            return False
        self._fresh, self.learnt = 0, True
        self.coefficients = fit(self._samples, self.coefficients, self.spec.prior)
        return True

    def _loosen(self, tpot_s: float) -> None:
        self._tight[tpot_s] -= 1
        if not self._tight[tpot_s]:
            del self._tight[tpot_s]
            if tpot_s == self.tightest_s:
                self.tightest_s = min(self._tight, default=math.inf)

    # ---- what goes on by itself ---------------------------------------------------------

    def _muted(self, ticket: Ticket, now_s: float) -> float:
        """Return how long a call heard nothing, or it and those before it that should have.

        Of those only what came after their first tokens were due counts. It begins anew with each
        word to anybody: an engine that talks to others does not hang.
        """
        if self._heard_s > self._mute_until_s:
            self._mute_s, self._mute_until_s = 0.0, self._heard_s
        self._mute_s += max(0.0, now_s - max(ticket.expected_s, self._mute_until_s))
        self._mute_until_s = now_s
        return max(now_s - max(ticket.placed_s, self._heard_s), self._mute_s)

    def _silent(self, now_s: float) -> bool:
        """Return whether no stream times the engine's steps now."""
        return self.probe is None or now_s - self.probe.last_s > SILENT_S

    def _advance(self, now_s: float) -> None:
        """Let the engine take prompts in as its speed says, where no stream times its steps."""
        if now_s == self._at_s:
            return
        left = self.line.left
        if left > 0.0 and self._silent(now_s):
            running = len(self.running) + self.foreign
            chunk = min(left, max(1.0, self.spec.step_tokens - running))
            step_s = self.coefficients.step_s(running, self.kv + self.foreign_kv, chunk)
            self.line.move(chunk * (now_s - self._at_s) / step_s)
        self._at_s = now_s
