"""What the corridor is built of, and the questions it asks policy about one request.

Nothing here yields, waits for an engine or holds state: each method answers from its arguments
and from what the house knows now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from forebay.errors import DeadlineExceeded, ForebayError, NotBuilt
from forebay.policy import admit, offer, verify
from forebay.policy.choose import choose
from forebay.policy.rules import HUMAN
from forebay.values import Call, Reason, Refuse, Release, Rung

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.choose import Chosen, Policy
    from forebay.ports import Clock, Engine, Fleet, Ledger
    from forebay.values import Prepared, Request

DEFAULT_MAX_TOKENS = 1024
"""The longest answer where neither the request nor the target says."""


@dataclass(frozen=True, slots=True)
class House:
    """All that the corridor is built of; `engines` holds the targets that can be called."""

    policy: Policy
    engines: Mapping[str, Engine]
    fleet: Fleet
    clock: Clock
    ledger: Ledger

    def choose(self, request: Request) -> Chosen:
        """Return the class that takes a request; raise where nobody does."""
        self.in_time(request)
        chosen = choose(self.policy, request)
        if isinstance(chosen, ForebayError):
            raise chosen
        return chosen

    def completed(self, request: Request, chosen: Chosen) -> Request:
        """Return the request as its route completes it; raise what is not built yet."""
        policy, route = self.policy, chosen.of.route
        if (missing := offer.not_built(route, request, policy.targets)) is not None:
            raise NotBuilt(
                f"class {chosen.of.name} uses {missing}, which this version does not have yet"
            )
        return offer.completed(request, route, policy.document)

    def in_time(self, request: Request) -> None:
        """Raise where the request's deadline has passed."""
        if request.deadline_s is not None and request.deadline_s <= self.clock.now_s():
            raise DeadlineExceeded("the deadline passed before a target was called")

    def engine(self, target: str) -> Engine:
        """Return the engine of a target; raise where this version cannot call it."""
        engine = self.engines.get(target)
        if engine is None:
            if target == HUMAN:
                raise human_not_built()
            adapter = self.policy.targets[target].adapter
            raise NotBuilt(
                f"target {target} needs the {adapter} adapter, which this version does not have yet"
            )
        return engine

    def gate(self, chosen: Chosen, request: Request, target: str) -> verify.Gate:
        """Return the verifiers that watch an answer of `target`."""
        engine = self.engines.get(target)
        guide = request.guide
        enforced = bool(engine and guide and guide.kind in engine.abilities.guides)
        subject = verify.subject(chosen.of.route, request, enforced=enforced)
        release = chosen.of.route.stream if request.stream else Release.FINAL
        return verify.Gate(chosen.of.route.verify, subject, stream=release)

    def refusal(self, chosen: Chosen, target: str, prepared: Prepared) -> Refuse | None:
        """Return the first limit that one more request at `target` would break, as of now."""
        return admit.refusal(
            target,
            self.policy.targets[target].limits,
            chosen.of.route.constraints,
            self.fleet.load(target, chosen.of.name),
            admit.Demand(prepared, self.engines[target].abilities),
        )

    async def rung(self, chosen: Chosen, request: Request, target: str) -> Rung:
        """Return where a rung would be placed, were it called now."""
        refused, tokens = await self._glance(chosen, request, target)
        spill_to, spilled = chosen.spill_to, None
        if refused is not None and spill_to is not None:
            spilled, _ = await self._glance(chosen, request, spill_to)
        return Rung(target, admit.place(target, refused, spill_to, spilled), tokens)

    async def _glance(
        self, chosen: Chosen, request: Request, target: str
    ) -> tuple[Refuse | None, int]:
        """Return what stands against calling `target` now, and the prompt's tokens there."""
        try:
            prepared = await self.engine(target).prepare(request)
        except NotBuilt as error:
            return Refuse(target, Reason.NOT_BUILT, str(error), 0.0), 0
        return self.refusal(chosen, target, prepared), prepared.prompt_tokens

    def call(self, request: Request, target: str, prepared: Prepared) -> Call:
        """Return the attempt with its answer bounded by request, target and context."""
        limit = self.policy.targets[target].limits.max_output_tokens
        abilities = self.engines[target].abilities
        sampling = request.sampling
        asked = sampling.max_tokens or limit or DEFAULT_MAX_TOKENS
        most = min(asked, limit or asked, abilities.max_seq_tokens - prepared.prompt_tokens)
        if sampling.min_tokens is not None and sampling.min_tokens > most:
            request = replace(request, sampling=replace(sampling, min_tokens=most))
        return Call(request, prepared, most, request.deadline_s)


def human_not_built() -> NotBuilt:
    """Return the error for a ladder that ends with a person."""
    return NotBuilt(f"{HUMAN} is the next step, and this version has no review queue yet")
