"""What an operator would have written down for the router before a run."""

from __future__ import annotations

from math import exp, inf
from typing import TYPE_CHECKING

from forebay.lab.forebay_dispatcher import CLOUD, LOCAL, Known
from forebay.policy.admission.terms import Place, ReplicaSpec, Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.lab.setting import Setting
    from forebay.policy.admission.outside import Outside

_P99_SIGMAS = 2.326


def known(setting: Setting, replicas: Sequence[int], outside: Outside | None) -> Known:
    """Return what a router is told that may use these replicas."""
    return Known(
        _terms(setting),
        [(number, _replica(setting, number)) for number in replicas],
        _cloud(setting),
        outside,
    )


def _replica(setting: Setting, number: int) -> ReplicaSpec:
    fleet = setting.scenario.fleet
    return ReplicaSpec(
        f"replica-{number}",
        LOCAL,
        kv_tokens=fleet.kv_tokens,
        max_batch=fleet.max_batch,
        step_tokens=fleet.step_tokens,
        prior=setting.manifest().scaled(setting.disturbance.prior_factor),
    )


def _cloud(setting: Setting) -> Place:
    """Return the cloud by its price list and its usual p99; its slow answers are not told."""
    cloud = setting.scenario.cloud
    return Place(
        CLOUD,
        input_usd=cloud.input_usd_per_million / 1e6,
        output_usd=cloud.output_usd_per_million / 1e6,
        expect_ttft_s=cloud.ttft_median_ms / 1e3 * exp(_P99_SIGMAS * cloud.ttft_sigma),
        expect_tpot_s=cloud.tpot_ms / 1e3,
    )


def _terms(setting: Setting) -> list[Terms]:
    return [
        Terms(
            promise.name,
            ttft_s=_said(promise.ttft_s),
            tpot_s=_said(promise.tpot_s),
            e2e_s=_said(promise.e2e_s),
            attainment=setting.scenario.attainment,
            spill_to=CLOUD if promise.may_spill else None,
        )
        for promise in setting.promises
    ]


def _said(seconds: float) -> float | None:
    return None if seconds == inf else seconds
