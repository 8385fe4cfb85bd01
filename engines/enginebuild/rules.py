"""What is refused before a GPU is touched. Pure: each rule reads an ask and returns a refusal.

A refusal is a value: it names its rule, says why in one sentence, cites where the rule comes
from, and names the nearest ask that would work.
"""

from enginebuild import limit_rules, machine_rules
from enginebuild.ask import Ask, Refusal, Rule

# Each of these makes the ask unreadable to the rules after it.
FIRST: tuple[Rule, ...] = (
    machine_rules.has_figures,
    machine_rules.known_precision,
    machine_rules.split_counts,
)
MACHINE: tuple[Rule, ...] = (
    machine_rules.precision_on_sm,
    machine_rules.precision_of_weights,
    machine_rules.engine_flow,
    machine_rules.plugins_on_sm,
    machine_rules.gpu_count,
    machine_rules.heads_split,
)
LIMITS: tuple[Rule, ...] = (
    limit_rules.length_trained,
    limit_rules.chunked_needs_paged,
    limit_rules.one_way_to_profile,
    limit_rules.prompt_fits_step,
    limit_rules.weights_fit,
    limit_rules.pool_holds_longest,
)


def machine_refusals(ask: Ask) -> tuple[Refusal, ...]:
    """Return what no limits could mend; one alone where the other rules could not read it."""
    for rule in FIRST:
        if (told := rule(ask)) is not None:
            return (told,)
    return _told(ask, MACHINE)


def refusals(ask: Ask) -> tuple[Refusal, ...]:
    """Return every refusal of that ask, its limits' too where they can be worked out."""
    if any(rule(ask) is not None for rule in FIRST):
        return machine_refusals(ask)
    return machine_refusals(ask) + _told(ask, LIMITS)


def _told(ask: Ask, some: tuple[Rule, ...]) -> tuple[Refusal, ...]:
    return tuple(told for rule in some if (told := rule(ask)) is not None)
