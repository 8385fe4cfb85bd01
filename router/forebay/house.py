"""What the corridor is built of, and the questions it asks policy about one request.

Nothing here yields, waits for an engine or holds state: each method answers from its arguments
and from what the house knows now.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from forebay.errors import Blocked, DeadlineExceeded, ForebayError, NotBuilt
from forebay.policy import offer, verify
from forebay.policy.admission import Ask, Offer
from forebay.policy.admission.affinity import blocks
from forebay.policy.admission.book import Book
from forebay.policy.admission.prefer import prefer
from forebay.policy.around import lacks, without_refusers
from forebay.policy.choose import choose
from forebay.policy.guard import BUDGET_S
from forebay.policy.known import barred, for_a_person
from forebay.policy.known import known as knowledge
from forebay.policy.retries import RetryBudget
from forebay.policy.rules import HUMAN, AnyOf
from forebay.policy.tools import written
from forebay.policy.verifiers import pii
from forebay.values import Admit, Call, Prepared, Reason, Refuse, Release, Rung
from forebay.walk import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forebay.climb import Setback
    from forebay.policy.choose import Chosen, Policy
    from forebay.policy.guard import Check
    from forebay.ports import Admission, Clock, Engine, Ledger, Tickets
    from forebay.values import Request, Usage
    from forebay.walk import Walk

DEFAULT_MAX_TOKENS = 1024
"""The longest answer where neither the request nor the target says."""


@dataclass(frozen=True, slots=True)
class House:
    """All that the corridor is built of; `engines` holds the targets that can be called.

    A person is one of them, and `tickets` is where what a person was asked is looked up.
    """

    policy: Policy
    engines: Mapping[str, Engine]
    admission: Admission
    clock: Clock
    ledger: Ledger
    tickets: Tickets
    book: Book = field(default_factory=Book)
    retries: RetryBudget = field(default_factory=RetryBudget)
    verifier: Callable[[str, verify.Subject], Check] = verify.check
    verifier_budget_s: float = BUDGET_S

    def choose(self, request: Request) -> Chosen:
        """Return the class that takes a request; raise where nobody does."""
        self.in_time(request)
        chosen = choose(self.policy, request)
        if isinstance(chosen, ForebayError):
            raise chosen
        left = for_a_person(chosen.of.route.verify, knowledge(self.policy, chosen))
        if not left:
            return chosen
        why = f"{chosen.why}; {', '.join(left)} is left to a person"
        return replace(chosen, ladder=(HUMAN,), spill_to=None, reason=Reason.FOR_A_PERSON, why=why)

    def completed(self, request: Request, chosen: Chosen) -> Request:
        """Return the request as its route completes it; raise what is not built yet.

        Raises:
            Blocked: a rule of the policy, or a category that its class blocks, forbids an answer.
        """
        policy, route = self.policy, chosen.of.route
        if (missing := offer.not_built(route, request)) is not None:
            raise NotBuilt(
                f"class {chosen.of.name} uses {missing}, which this version does not have yet"
            )
        known = knowledge(policy, chosen)
        if (verdict := barred(route.verify, request, known)) is not None:
            raise Blocked(f"{verdict.verifier}: {verdict.reason}")
        return offer.completed(request, route, policy.document)

    def in_time(self, request: Request) -> None:
        """Raise where the request's deadline has passed."""
        if request.deadline_s is not None and request.deadline_s <= self.clock.now_s():
            raise DeadlineExceeded("the deadline passed before a target was called")

    def engine(self, target: str) -> Engine:
        """Return the engine of a target; raise where this version cannot call it."""
        engine = self.engines.get(target)
        if engine is None:
            adapter = self.policy.targets[target].adapter
            raise NotBuilt(
                f"target {target} needs the {adapter} adapter, which this version does not have yet"
            )
        return engine

    def gate(self, chosen: Chosen, request: Request, target: str) -> verify.Gate:
        """Return the verifiers that watch an answer of `target`."""
        if target == HUMAN:
            return verify.Gate((), verify.Subject(request, None, enforced=False))
        engine = self.engines.get(target)
        guide = request.guide
        enforced = bool(engine and guide and guide.kind in engine.abilities.guides)
        known = knowledge(self.policy, chosen, target)
        subject = verify.subject(chosen.of.route, request, enforced=enforced, known=known)
        release = chosen.of.route.stream if request.stream else Release.FINAL
        return verify.Gate(
            chosen.of.route.verify,
            subject,
            stream=release,
            now_s=self.clock.now_s,
            budget_s=self.verifier_budget_s,
            make=self.verifier,
        )

    def leaves(self, chosen: Chosen, target: str) -> bool:
        """Return whether what is personal in a request must not reach a target."""
        return self.policy.targets[target].is_cloud and pii.NAME in chosen.of.route.verify

    def may_hedge(self, walk: Walk, chosen: Chosen, target: str) -> bool:
        """Return whether a second call may go to a target.

        Not again, not where it refuses, and not beside a target that the client named.
        """
        tried = {walk.run.target, *(attempt.target for attempt in walk.attempts)}
        rule = self.policy.targets[target]
        if chosen.named or target in tried:
            return False
        return not lacks(rule, target, chosen.of.route, chosen.categories)

    def ask(
        self,
        chosen: Chosen,
        request: Request,
        step: Step,
        prepared: Prepared,
        *,
        spent_usd: float = 0.0,
        broken: frozenset[str] = frozenset(),
    ) -> Ask:
        """Return what admission is asked before a step.

        A promise of latency counts from the request's arrival, also where capacity sends it on;
        after an answer that failed or an engine that broke it counts from now, because that time
        is gone, and only the client's own deadline still binds. Replicas that broke under it are
        not called again where there are others.
        """
        engine = self.engine(step.target)
        fresh = step.move in ("failover", "repair", "escalate")
        spill_to = chosen.spill_to if step.spill else None
        # Where the call beside runs already, a second one has no claim to go first either.
        elsewhere = spill_to is None and (
            step.move == "hedge" or self.policy.spill_target(chosen.of) is not None
        )
        terms = self.book.terms(chosen.of, spill_to, elsewhere=elsewhere)
        return Ask(
            id=request.id,
            terms=without_refusers(chosen, terms, self.policy.targets),
            target=step.target,
            prompt_tokens=prepared.prompt_tokens,
            max_tokens=self.most(request, step.target, prepared),
            arrived_s=self.clock.now_s() if fresh else request.received_s,
            room_tokens=_room_tokens(engine),
            whole=prepared.whole,
            deadline_s=request.deadline_s,
            tier=chosen.labels.tier or "",
            blocks=blocks(prepared.ids),
            spent_usd=spent_usd,
            avoid=self._avoided(step.target, broken),
            weaker_room_tokens=_room_tokens(self.engines.get(terms.downgrade_to or "", engine)),
        )

    def _avoided(self, target: str, broken: frozenset[str]) -> frozenset[str]:
        """Return the replicas that a call does not go to: those that broke, if there are others."""
        return broken if broken and self.admission.others(target, broken) else frozenset()

    async def rung(self, chosen: Chosen, request: Request, target: str) -> Rung:
        """Return where a rung would be placed, were it called now."""
        if target == HUMAN:
            return Rung(target, Admit(target, reason=Reason.FOR_A_PERSON), 0)
        try:
            prepared = await self.engine(target).prepare(request)
        except NotBuilt as error:
            return Rung(target, Refuse(target, Reason.NOT_BUILT, str(error), 0.0), 0)
        step = Step(target, "first", chosen.reason, spill=chosen.spill_to not in (None, target))
        offer = self.admission.offer(self.ask(chosen, request, step, prepared))
        return Rung(target, offer.placement, prepared.prompt_tokens)

    async def ranked(self, chosen: Chosen, request: Request) -> Chosen:
        """Return the class with its equal first choices in the order it prefers now.

        First those that would take the request in time and within its cap, by cost, latency or
        quality; then those that would not, as the policy lists them.
        """
        model = chosen.of.route.model
        if not isinstance(model, AnyOf) or chosen.ladder == (request.model,):
            return chosen
        first = tuple(name for name in model.any_of if name in chosen.ladder)
        offers = [await self._offered(chosen, request, name) for name in first]
        model = model.model_copy(update={"any_of": first})
        order = prefer(model, offers, {n: self.policy.targets[n].quality for n in first})
        return replace(chosen, ladder=(*order, *chosen.ladder[len(order) :]))

    async def _offered(self, chosen: Chosen, request: Request, target: str) -> Offer:
        """Return what one of several first choices would do; not built is as good as full."""
        try:
            prepared = await self.engine(target).prepare(request)
        except NotBuilt as error:
            return Offer(Refuse(target, Reason.NOT_BUILT, str(error), 0.0), 0.0)
        step = Step(target, "first", chosen.reason)
        return self.admission.offer(self.ask(chosen, request, step, prepared))

    def beside(self, walk: Walk, chosen: Chosen, setback: Setback) -> Step | None:
        """Return the step that calls another replica of the target whose replica broke.

        None where no replica was called and broke, or no other can be called now.
        """
        last = walk.attempts[-1]
        broke = setback.called and setback.move == "failover" and last.replica
        if not broke or not self.admission.others(last.target, walk.broken):
            return None
        tried = {attempt.target for attempt in walk.attempts}
        spill = chosen.spill_to not in (None, *tried)
        return Step(last.target, "failover", setback.reason, spill, beside=True)

    def repaired(
        self, chosen: Chosen, request: Request, setback: Setback, repairs: int
    ) -> tuple[Step, Request] | None:
        """Return the step that asks the same target to mend its answer, where the route says so.

        None where no answer failed its verifiers, the route has had its `repairs`, or the prompt
        is a plain text, to which nothing can be said.
        """
        unfit = setback.unfit
        if setback.reason is not Reason.VERDICT_FAILED or repairs >= chosen.of.route.repair:
            return None
        if unfit is None:
            return None
        said = unfit.token.text or "\n".join(map(written, unfit.last.tool_calls))
        mended = offer.repaired(request, said, unfit.why)
        if mended is None:
            return None
        return replace(unfit.step, move="repair", reason=setback.reason), mended

    def usd(self, target: str, usage: Usage) -> float:
        """Return what an answer cost at a target, by the policy's prices; a person has none."""
        if target == HUMAN:
            return 0.0
        price = self.policy.targets[target].price
        cached = usage.cached_tokens if price.cached_usd_per_mtok is not None else 0
        micro = (usage.prompt_tokens - cached) * price.input_usd_per_mtok
        micro += usage.completion_tokens * price.output_usd_per_mtok
        return (micro + cached * (price.cached_usd_per_mtok or 0.0)) / 1e6

    def call(self, request: Request, prepared: Prepared, most: int, replica: str) -> Call:
        """Return the attempt with its answer bounded by `most` tokens."""
        sampling = request.sampling
        if sampling.min_tokens is not None and sampling.min_tokens > most:
            request = replace(request, sampling=replace(sampling, min_tokens=most))
        return Call(request, prepared, most, request.deadline_s, replica)

    def case(self, request: Request, walk: Walk) -> Call:
        """Return what a person is asked: the request, what was tried, the answer that failed."""
        return Call(
            request,
            Prepared(0),
            0,
            request.deadline_s,
            before=tuple(walk.attempts),
            draft=walk.draft,
        )

    def most(self, request: Request, target: str, prepared: Prepared) -> int:
        """Return the tokens that an answer may have at a target."""
        limit = self.policy.targets[target].limits.max_output_tokens
        asked = request.sampling.max_tokens or limit or DEFAULT_MAX_TOKENS
        room = self.engine(target).abilities.max_seq_tokens - prepared.prompt_tokens
        return min(asked, limit or asked, room)

    def affordable(
        self, chosen: Chosen, target: str, prepared: Prepared, most: int, spent_usd: float
    ) -> int:
        """Return how many of `most` tokens the class's cost cap still pays for, at least one.

        Admission lets a request in by what its answer is likely to cost; a longer one ends here.
        """
        price, cap_usd = self.policy.targets[target].price, chosen.of.route.constraints.max_cost_usd
        if cap_usd is None or not price.output_usd_per_mtok:
            return most
        left_usd = cap_usd - spent_usd - prepared.prompt_tokens * price.input_usd_per_mtok / 1e6
        return min(most, max(1, int(left_usd / price.output_usd_per_mtok * 1e6)))


def _room_tokens(engine: Engine) -> int:
    """Return the longest prompt that an engine takes with an answer of one token."""
    return min(engine.abilities.max_input_tokens, engine.abilities.max_seq_tokens - 1)
