"""Whole rows: requests are neither lost nor doubled, seeds decide all, and bounds are bounds."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.small import setting, trace

from forebay.lab.rows import POLICIES, Rows
from forebay.lab.shelf import Shelf

WRONG = {
    "calm": {},
    "slower": {"engine_factor": 1.5, "from": 0.5},
    "dies": {"dies": 1, "from": 0.5},
    "two_blind": {"routers": 2},
    "two_owned": {"routers": 2, "owned": True},
    "dearer": {"price_factor": 2.0, "from": 0.5, "budget_share": 0.8},
}


def rows(tmp_path, requests=None, form="linear", *, calm=False, **wrong):
    return Rows(setting(requests, form, calm=calm, **wrong), Shelf(tmp_path), lp_rounds=100)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_ends_once_and_is_paid_for_once(tmp_path, policy, wrong):
    made = rows(tmp_path, **WRONG[wrong])
    played = made.play(2.0, policy, 1, cap=6)
    jobs, promises = played.jobs, made.setting.promises
    assert {job.ended for job in jobs} <= {"served", "refused", "failed"}
    assert (sum(job.ended == "failed" for job in jobs) > 0) <= (wrong == "dies")
    assert sum(job.ended == "refused" for job in jobs) == played.row.refused
    for job in jobs:
        assert (job.ended == "served") == (job.end_s is not None)
        assert (job.usd > 0) == (job.where == -1)
        assert job.where != -1 or promises[job.label].may_spill
        assert job.first_s is None or job.first_s > job.arrived_s
    assert played.row.spill_usd == pytest.approx(sum(job.usd for job in jobs))
    met = sum(job.ended == "served" and promises[job.label].kept(job) for job in jobs)
    assert played.row.attainment == met / len(jobs)


@pytest.mark.parametrize("form", ["linear", "max"])
def test_a_seed_decides_everything(tmp_path, form):
    def said(seed, home):
        made = rows(tmp_path / home, form=form)
        return [
            json.dumps(asdict(made.row(1.0, policy, seed, oracles=True))) for policy in POLICIES
        ]

    assert said(1, "one") == said(1, "other")
    assert said(1, "one") == said(1, "one"), "what was kept is what was computed"
    assert said(1, "one") != said(2, "one")


def test_fifo_attains_no_more_under_more_load(tmp_path):
    made = rows(tmp_path, trace(800))
    attained = [made.row(load, "fifo", 1).attainment for load in (0.2, 0.6, 1.2, 3.0)]
    assert attained == sorted(attained, reverse=True)
    assert attained[0] > 0.9
    assert attained[-1] < 0.5


def test_one_x_is_what_keeps_the_fleet_busy(tmp_path):
    made = rows(tmp_path, trace(800))
    below = made.play(0.7, "fifo", 1).jobs
    above = made.play(1.6, "fifo", 1).jobs
    last_s = max(job.end_s for job in above)
    assert max(job.end_s for job in below) < 1.1 * made.span_s(0.7)
    assert len(above) / last_s == pytest.approx(made.one_x_rps, rel=0.05)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("policy", "wanted"), [("cap", 0.99), ("cap_each", 0.95)])
def test_the_cap_is_the_cheapest_that_attains(tmp_path, load, policy, wanted):
    whole = setting()
    scenario = whole.scenario.model_copy(update={"attainment": wanted})
    made = Rows(replace(whole, scenario=scenario), Shelf(tmp_path), lp_rounds=100)
    found = made.row(load, policy, 1)
    others = [made.play(load, "cap", 1, cap=cap).row for cap in range(1, 33)]

    def attained(row):
        return row.attainment if policy == "cap" else min(row.attainment_by_class.values())

    attaining = [row.spill_usd for row in others if attained(row) >= wanted]
    assert found.spill_usd == min(attaining)
    assert attained(found) >= wanted


@given(st.integers(0, 10_000), st.sampled_from(["forebay", "cap", "threshold"]))
@settings(max_examples=12, deadline=None)
def test_no_policy_beats_the_bound_once_its_misses_are_charged(tmp_path_factory, seed, policy):
    made = rows(tmp_path_factory.mktemp("bound"), trace(60, seed), calm=True)
    jobs = made.play(2.0, policy, seed, cap=4).jobs
    cloud, promises = made.setting.stage(1.0, seed).cloud, made.setting.promises
    charged = sum(job.usd for job in jobs)
    for job in jobs:
        if job.where != -1 and not (job.ended == "served" and promises[job.label].kept(job)):
            charged += cloud.usd(job) * (1 if promises[job.label].may_spill else 20)
    assert made.lp_usd(2.0, seed) <= charged + 1e-12
