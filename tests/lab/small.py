"""A small setting that tests play on: seconds of CPU, not minutes."""

from dataclasses import replace

import numpy as np

from forebay.lab.scenario import Disturbance, Scenario, law_of
from forebay.lab.setting import Setting
from forebay.lab.step_time import Noise
from forebay.lab.traces import Traced

LINEAR = {"form": "linear", "a_ms": 13.3, "b_ms": 0.063, "c_ms": 0.000341, "d_ms": 0.0686}
MAX = {
    "form": "max",
    "compute_ms": 2.4,
    "compute_ms_per_token": 0.08,
    "compute_block_tokens": 64,
    "memory_ms": 15.0,
    "memory_ms_per_kv_token": 0.0005,
    "kv_block_tokens": 64,
}
WHOLE = {
    "name": "small",
    "traces": [{"file": "none.csv", "mix": "other"}],
    "columns": {"arrival": "at", "input": "in", "output": "out"},
    "mixes": {"other": {"chat": 0.6, "private": 0.2, "batch": 0.2}},
    "classes": {
        "chat": {"ttft_ms": 1000, "tpot_ms": 100},
        "private": {"ttft_ms": 2000, "tpot_ms": 200, "spill": False},
        "batch": {"e2e_ms": 60000},
    },
    "max_tokens": 200,
    "fleet": {"replicas": 2, "kv_tokens": 20000, "max_batch": 32, "step_tokens": 256},
    "engines": {
        "linear": {**LINEAR, "noise": {"sigma": 0.03, "stall_share": 0.001, "stall_factor": 4}},
        "max": {**MAX, "noise": {"burst_share": 0.03, "burst_factor": 1.5, "burst_steps": 20}},
    },
    "engine": "linear",
    "cloud": {
        "ttft_median_ms": 300,
        "ttft_sigma": 0.3,
        "tpot_ms": 20,
        "input_usd_per_million": 0.2,
        "output_usd_per_million": 0.8,
    },
    "disturbances": {
        "dies": {"dies": 1, "from": 0.5},
        "dearer": {"price_factor": 2.0, "from": 0.5, "budget_share": 0.8},
    },
}


def trace(count=300, seed=0, longest_in=1500, longest_out=150):
    """Return Poisson arrivals with lengths that are anything up to the longest."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1.0, count))
    return [
        Traced(float(t - at[0]), int(i), int(o), "other")
        for t, i, o in zip(
            at,
            rng.integers(1, longest_in, count),
            rng.integers(1, longest_out, count),
            strict=True,
        )
    ]


def setting(requests=None, form="linear", *, calm=False, **wrong):
    """Return a setting; `calm` engines have no noise, `wrong` is a disturbance."""
    scenario = Scenario.model_validate(WHOLE)
    law, noise = law_of(scenario, form, None)
    made = Setting(scenario, requests or trace(), law, noise, Disturbance.model_validate(wrong))
    return replace(made, noise=Noise()) if calm else made
