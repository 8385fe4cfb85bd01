"""Whole rows: requests are neither lost nor doubled, seeds decide all, and bounds are bounds."""

import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.small import setting, trace

from forebay.lab.forebay_dispatcher import Forebay
from forebay.lab.rows import POLICIES, Rows
from forebay.lab.shelf import Shelf
from forebay.lab.stage import Stage
from forebay.lab.traces import Traced
from forebay.policy.health import RULES

WRONG = {
    "calm": {},
    "slower": {"engine_factor": 1.5, "from": 0.5},
    "dies": {"dies": 1, "from": 0.5},
    "two_blind": {"routers": 2},
    "two_owned": {"routers": 2, "owned": True},
    "dearer": {"price_factor": 2.0, "from": 0.5, "budget_share": 0.8},
    "cheaper": {"price_factor": 0.5, "from": 0.5},
    "shorter": {"max_tokens": 20},
    "heavier": {"heavy_tail": True},
    "foreign": {"foreign": 0.3},
    "all": {"foreign": 0.3, "routers": 2, "dies": 1, "from": 0.5},
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
    assert (sum(job.ended == "failed" for job in jobs) > 0) <= (wrong in {"dies", "all"})
    ours = [job for job in jobs if not job.foreign]
    assert len(ours) == played.row.requests == (210 if "foreign" in WRONG[wrong] else 300)
    assert sum(job.ended == "refused" for job in ours) == played.row.refused
    for job in jobs:
        assert (job.ended == "served") == (job.end_s is not None)
        assert (job.usd > 0) == (job.where == -1)
        assert job.where != -1 or not job.foreign
        assert job.where != -1 or promises[job.label].may_spill
        assert job.first_s is None or job.first_s > job.arrived_s
    assert played.row.spill_usd == pytest.approx(sum(job.usd for job in jobs))
    met = sum(job.ended == "served" and promises[job.label].kept(job) for job in ours)
    assert played.row.attainment == met / len(ours)


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
    assert found.attained


@pytest.mark.parametrize("policy", ["cap", "cap_each"])
def test_where_no_cap_attains_the_row_has_the_most_that_one_does_and_says_so(tmp_path, policy):
    whole = setting()
    cloud = whole.scenario.cloud.model_copy(update={"ttft_sigma": 1.5})
    scenario = whole.scenario.model_copy(update={"attainment": 0.9999, "cloud": cloud})
    made = Rows(replace(whole, scenario=scenario), Shelf(tmp_path), lp_rounds=100)
    found = made.row(4.0, policy, 1)
    others = [made.play(4.0, "cap", 1, cap=cap).row for cap in range(1, 33)]

    def attained(row):
        return row.attainment if policy == "cap" else min(row.attainment_by_class.values())

    assert attained(found) == max(attained(row) for row in others) < 0.9999
    assert not found.attained
    assert found.cap > 1, "one is no answer to not knowing"


@pytest.mark.parametrize("policy", ["forebay", "fifo"])
def test_a_row_says_whether_the_scenarios_attainment_was_reached(tmp_path, policy):
    made = rows(tmp_path)
    for load in (0.2, 4.0):
        row = made.row(load, policy, 1)
        assert row.attained == (row.attainment >= made.setting.scenario.attainment)


@given(st.integers(0, 10_000), st.sampled_from(POLICIES), st.sampled_from(sorted(WRONG)))
@settings(max_examples=20)
def test_no_policy_is_charged_less_than_the_bound(tmp_path_factory, seed, policy, wrong):
    made = rows(tmp_path_factory.mktemp("bound"), trace(60, seed), calm=True, **WRONG[wrong])
    row = made.play(2.0, policy, seed, cap=4).row
    assert row.spill_usd <= row.charged_usd
    assert made.lp_usd(2.0, seed) <= row.charged_usd + 1e-12


def test_misses_are_charged_what_the_cloud_would_have_asked_then(tmp_path):
    made = rows(tmp_path, **WRONG["dearer"])
    played = made.play(4.0, "fifo", 1)
    cloud, promises = made.setting.stage(1.0, 1).cloud, made.setting.promises
    charged = 0.0
    for job in played.jobs:
        if not promises[job.label].kept(job):
            dearer = 2 if job.arrived_s > made.span_s(4.0) / 2 else 1
            charged += cloud.usd(job) * dearer * (1 if promises[job.label].may_spill else 20)
    assert played.row.spill_usd == 0.0
    assert played.row.charged_usd == pytest.approx(charged)


def test_a_budget_is_measured_anew_when_admission_has_changed(tmp_path, monkeypatch):
    def budgets():
        rows(tmp_path, **WRONG["dearer"]).play(2.0, "forebay", 1)
        return {
            path for path in tmp_path.iterdir() if "calm" in json.loads(path.read_text())["of"][-1]
        }

    first = budgets()
    assert len(first) == 1
    assert budgets() == first
    monkeypatch.setattr("forebay.lab.rows.code_version", lambda *_: "another")
    assert len(budgets()) == 2


def test_our_own_policy_told_the_future_is_charged_less(tmp_path):
    made = rows(tmp_path)
    told = sum(made.clairvoyant_usd(2.0, seed, 0) for seed in (1, 2, 3))
    assert told < sum(made.play(2.0, "forebay", seed).row.charged_usd for seed in (1, 2, 3))


def test_a_request_that_fits_no_replica_ends_whoever_decides(tmp_path):
    requests = [*trace(60), Traced(99.0, 30_000, 5, "other"), Traced(99.5, 30_000, 5, "other")]
    made = rows(tmp_path, requests)
    for policy in POLICIES:
        assert all(job.ended for job in made.play(1.0, policy, 1, cap=4).jobs)
    for seed in range(1, 9):  # seeds that make them spillable, and not
        assert made.clairvoyant_usd(1.0, seed, 0) >= made.lp_usd(1.0, seed)


def test_a_prompt_that_fits_no_replica_goes_to_the_cloud_where_it_may(tmp_path):
    requests = [*trace(60), *(Traced(99.0 + n, 30_000, 5, "other") for n in range(9))]
    made = rows(tmp_path, requests)
    jobs = made.play(0.1, "forebay", 1).jobs[-9:]
    may = [made.setting.promises[job.label].may_spill for job in jobs]
    assert [job.where == -1 for job in jobs] == may
    assert [job.ended == "refused" for job in jobs] == [not one for one in may]
    assert len(set(may)) > 1, "both are there"


@pytest.mark.parametrize("policy", POLICIES)
def test_routers_that_own_their_replicas_keep_to_them(tmp_path, policy):
    made = rows(tmp_path, routers=2, owned=True)
    jobs = made.play(1.0, policy, 1, cap=6).jobs
    of = made.setting.routers(1)
    assert {(of[job.number], job.where) for job in jobs if job.where >= 0} == {(0, 0), (1, 1)}


def test_a_router_knows_of_foreign_requests_by_its_scrapes_alone(tmp_path, monkeypatch):
    known: dict[str, list[int]] = {}
    scraped = Forebay.scraped

    def placed(name, **wrong):
        def noted(router, stage, replica, scrape):
            scraped(router, stage, replica, scrape)
            known.setdefault(name, []).append(router._replicas[replica].foreign)

        monkeypatch.setattr(Forebay, "scraped", noted)
        return [job.where for job in rows(tmp_path, **wrong).play(1.5, "forebay", 1).jobs]

    placed("alone")
    usual = placed("usual", foreign=0.3)
    assert usual != placed("stale", foreign=0.3, scrape_ms=2000)
    assert max(known["alone"]) == 0
    assert max(known["usual"]) > 1
    assert max(known["stale"]) > 1


def test_a_replica_that_died_is_found_out_by_calls_that_fail(tmp_path, monkeypatch):
    sent = []
    submit = Stage.submit

    def noted(stage, job, replica):
        if not stage.engines[replica].alive:
            sent.append(stage.now_s)
        submit(stage, job, replica)

    monkeypatch.setattr(Stage, "submit", noted)
    made = rows(tmp_path, trace(800), dies=1, **{"from": 0.5})
    played = made.play(1.0, "forebay", 1)
    died_s = made.span_s(1.0) / 2
    assert len([at_s for at_s in sent if at_s < died_s + 0.5]) <= RULES.failures + 1
    probes = [at_s for at_s in sent if at_s >= died_s + 0.5]
    assert probes, "clients' requests find out whether it is back"
    for before_s, after_s in pairwise(probes):
        assert after_s - before_s >= RULES.backoff_s
    assert not [job for job in played.jobs if job.arrived_s > died_s and job.ended == "failed"]


@pytest.mark.parametrize("routers", [1, 2])
def test_a_budget_with_its_full_bucket_is_the_share_of_the_calm_spend(tmp_path, routers):
    made = rows(tmp_path, routers=routers, budget_share=0.8)
    calm = rows(tmp_path).play(2.0, "forebay", 1).row.spill_usd
    spent, step_usd, span_s = 0.0, calm / 10_000, made.span_s(2.0)
    for router in made._routers(2.0, "forebay", 1, None):
        allowed = router._known.outside
        for at in range(1001):
            while allowed.bars("cloud", None, step_usd, span_s * at / 1000) is None:
                allowed.sent("cloud", None, step_usd, span_s * at / 1000)
                spent += step_usd
    assert spent == pytest.approx(0.8 * calm, rel=0.001)


def test_a_cap_above_the_batch_is_found_where_it_is_the_best(tmp_path):
    whole = setting()
    fleet = whole.scenario.fleet.model_copy(update={"max_batch": 2})
    scenario = whole.scenario.model_copy(update={"fleet": fleet, "attainment": 0.5})
    made = Rows(replace(whole, scenario=scenario), Shelf(tmp_path), lp_rounds=100)
    found = made.row(1.0, "cap", 1)
    assert found.attained
    assert found.cap > 2
    assert found.spill_usd < made.play(1.0, "cap", 1, cap=2).row.spill_usd


def test_oracles_leave_foreign_requests_out(tmp_path):
    calm, foreign, both = (rows(tmp_path, **WRONG[name]) for name in ("calm", "foreign", "all"))
    assert foreign.lp_usd(4.0, 1) < 0.8 * calm.lp_usd(4.0, 1)
    for made in (foreign, both):
        assert made.lp_usd(4.0, 1) <= made.clairvoyant_usd(4.0, 1, 2)
