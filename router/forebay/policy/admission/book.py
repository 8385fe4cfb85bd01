"""What a policy says of admission, in admission's own terms: classes' promises, targets' limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.admission.terms import Place, Terms
from forebay.policy.rules import Spill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.choose import Class, Policy
    from forebay.policy.rules import Target

_TOKENS = 1_000_000


def places(policy: Policy, pool_of: Mapping[str, str]) -> tuple[Place, ...]:
    """Return every target that can be called; `pool_of` names the engines that serve it.

    A target that `pool_of` leaves out is not there; one with an empty pool is a cloud.
    """
    return tuple(_place(name, policy.targets[name], pool) for name, pool in pool_of.items())


def _place(name: str, target: Target, pool: str) -> Place:
    limits, price, expect = target.limits, target.price, target.expect
    return Place(
        target=name,
        pool=pool,
        max_inflight=limits.max_inflight,
        max_waiting=1 << 30 if limits.max_waiting is None else limits.max_waiting,
        kv_ceiling=limits.kv_ceiling,
        input_usd=price.input_usd_per_mtok / _TOKENS,
        output_usd=price.output_usd_per_mtok / _TOKENS,
        expect_ttft_s=expect.ttft_ms / 1000,
        expect_tpot_s=expect.tpot_ms / 1000,
        expect_stated=bool(expect.model_fields_set),
    )


class Book:
    """Terms of every class, made once for each place it may still go to."""

    def __init__(self) -> None:
        self._terms: dict[tuple[str, str | None, bool], Terms] = {}

    def terms(self, chosen: Class, spill_to: str | None, *, elsewhere: bool = False) -> Terms:
        """Return the terms of a class's call, as `terms` does."""
        key = chosen.name, spill_to, elsewhere
        found = self._terms.get(key)
        if found is None:
            found = self._terms[key] = terms(chosen, spill_to, elsewhere=elsewhere)
        return found


def terms(chosen: Class, spill_to: str | None, *, elsewhere: bool = False) -> Terms:
    """Return what a class is promised, and where a call of it may still go.

    Args:
        chosen: The class.
        spill_to: Where the call may spill from its rung, if anywhere.
        elsewhere: Whether other calls of the class may spill where this one may not.
    """
    route = chosen.route
    slo, constraints = route.slo, route.constraints
    spill = route.spill if isinstance(route.spill, Spill) else None
    whole_ms = slo.e2e_ms or constraints.max_latency_ms
    return Terms(
        route=chosen.name,
        ttft_s=_seconds(slo.ttft_ms),
        tpot_s=_seconds(slo.tpot_ms),
        e2e_s=_seconds(whole_ms),
        promised=any((slo.ttft_ms, slo.tpot_ms, whole_ms)),
        attainment=slo.attainment,
        at_risk=spill is None or spill.when == "slo_at_risk",
        wait_s=_seconds(constraints.max_wait_ms),
        spill_to=spill_to,
        spill_max_usd=spill.max_cost_usd if spill else None,
        downgrade_to=route.downgrade,
        max_inflight=constraints.max_inflight,
        max_usd=constraints.max_cost_usd,
        elsewhere=elsewhere,
    )


def _seconds(millis: int | None) -> float | None:
    return None if millis is None else millis / 1000
