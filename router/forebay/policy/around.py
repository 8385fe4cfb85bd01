"""Targets that a request must go round: those that refuse its category, or ask for a verifier.

Providers refuse what their own rules forbid; calling them costs time and money and brings no
answer. So a target says what it refuses, and what it takes only under a verifier, and classes
go round it before it is called.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from forebay.errors import Declined
from forebay.policy.verifiers import safety

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.admission.terms import Terms
    from forebay.policy.choose import Chosen
    from forebay.policy.rules import Route, Target


def lacks(target: Target, name: str, route: Route, categories: tuple[str, ...]) -> str:
    """Return why a target may not answer a request of these categories, or an empty text."""
    refused = [one for one in categories if one in target.refuses]
    if refused:
        return f"{name} refuses {', '.join(refused)}"
    for category in categories:
        needed = [one for one in target.requires.get(category, ()) if one not in route.verify]
        if needed:
            return f"{name} requires {', '.join(needed)} for {category}"
    return ""


def blocked_at(route: Route, category: str) -> bool:
    """Return whether a class blocks a category before anybody is asked."""
    acts = safety.Acts.of(route.safety).asked
    return safety.NAME in route.verify and acts.get(category) == "block"


def around(chosen: Chosen, targets: Mapping[str, Target]) -> Chosen | Declined:
    """Return the class without the targets that may not answer, and why it goes round them."""
    if not chosen.categories:
        return chosen
    route = chosen.of.route
    why = {
        name: lacks(targets[name], name, route, chosen.categories)
        for name in (*chosen.ladder, *((chosen.spill_to,) if chosen.spill_to else ()))
        if name in targets
    }
    ladder = tuple(name for name in chosen.ladder if not why.get(name))
    said = "; ".join(one for one in why.values() if one)
    if not ladder:
        asked = ", ".join(chosen.categories)
        return Declined(f"no target of class {chosen.of.name} answers {asked}: {said}")
    if not said:
        return chosen
    spill_to = None if chosen.spill_to and why.get(chosen.spill_to) else chosen.spill_to
    return replace(chosen, ladder=ladder, spill_to=spill_to, why=f"{chosen.why}; {said}")


def without_refusers(chosen: Chosen, terms: Terms, targets: Mapping[str, Target]) -> Terms:
    """Return a class's terms without the weaker target, where that may not answer.

    Nor may it where the client named another.
    """
    weaker = terms.downgrade_to
    if weaker is None or weaker not in targets:
        return terms
    refuses = lacks(targets[weaker], weaker, chosen.of.route, chosen.categories)
    return replace(terms, downgrade_to=None) if chosen.named or refuses else terms


def past_refusal(ladder: deque[str], refuser: str, targets: Mapping[str, Target]) -> deque[str]:
    """Return the ladder after a target was seen to refuse: without those that refuse as much.

    What it refused was of a category that nobody had found; one that refuses all the same
    categories will most likely refuse it, too. Where all that are left do, the ladder stays.
    """
    refuses = set(targets[refuser].refuses) if refuser in targets else set()
    if not refuses:
        return ladder
    freer = [
        name for name in ladder if name not in targets or not refuses <= set(targets[name].refuses)
    ]
    return deque(freer) or ladder
