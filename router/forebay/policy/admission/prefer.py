"""Which of several equal first choices a class takes now: `any_of` with `prefer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.values import Admit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forebay.policy.admission.terms import Offer
    from forebay.policy.rules import AnyOf


def prefer(
    model: AnyOf, offers: Sequence[Offer], quality: Mapping[str, float | None]
) -> tuple[str, ...]:
    """Return `model.any_of`, best first: those that take the request now, then the others.

    Args:
        model: What the route says.
        offers: What admission would do with each, in the order of `any_of`.
        quality: Each target's stated quality, 0-1; unstated counts as 0.
    """

    def rank(position: int) -> tuple[bool, float, int]:
        offer, name = offers[position], model.any_of[position]
        admitted = isinstance(offer.placement, Admit)
        if model.prefer == "cost":
            worth = offer.usd
        elif model.prefer == "quality":
            worth = -(quality[name] or 0.0)
        else:
            predicted = offer.placement.predicted if isinstance(offer.placement, Admit) else None
            worth = float("inf") if predicted is None else predicted.e2e_s
        # Equals keep the policy's order; so do those that would not take it now.
        return not admitted, worth if admitted else 0.0, position

    return tuple(model.any_of[position] for position in sorted(range(len(offers)), key=rank))
