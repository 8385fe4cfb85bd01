"""Scenario files: the checked-in one is whole, and engines come from numbers or from a fit."""

import json
from dataclasses import replace
from math import exp
from pathlib import Path

import pytest
import yaml
from lab.small import WHOLE, setting, trace

from forebay.errors import SettingsError
from forebay.lab.scenario import law_of, read_scenario
from forebay.lab.step_time import Noise
from forebay.lab.told import known
from forebay.lab.traces import merged, read_trace

CHECKED_IN = Path(__file__).parents[2] / "data" / "scenarios" / "azure-five-classes.yaml"


def test_the_checked_in_scenario_is_azures_hour_with_five_classes():
    scenario = read_scenario(CHECKED_IN)
    columns = scenario.columns.model_dump()
    files = [(CHECKED_IN.parent / one.file, one.mix) for one in scenario.traces]
    requests = merged([read_trace(path, columns, mix) for path, mix in files])
    assert len(requests) == 28_185
    assert requests[-1].at_s == pytest.approx(3513, abs=1), "58 min and a half"
    assert len(scenario.classes) == 5
    for form in scenario.engines:
        law, noise = law_of(scenario, form, CHECKED_IN.parent)
        assert law.step_s(1, 1000, 0) > 0
        assert noise.factors((1,))() == noise.factors((1,))()


def fitted(tmp_path, content):
    (tmp_path / "fit.json").write_text(content)
    whole = WHOLE | {"engines": {"linear": {"form": "linear", "fit": "fit.json"}}}
    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(whole))
    return law_of(read_scenario(path), "linear", tmp_path)


def test_a_fit_gives_the_coefficients(tmp_path):
    told = {"a_ms": 12.0, "b_ms": 0.5, "c_ms": 0.001, "d_ms": 0.3, "measured_on": "anything"}
    law, noise = fitted(tmp_path, json.dumps(told))
    assert law.step_s(2, 100, 10) == pytest.approx((12 + 2 * 0.5 + 100 * 0.001 + 10 * 0.3) / 1e3)
    assert noise == Noise()


@pytest.mark.parametrize("fit", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, float("inf"), 1)])
def test_a_fit_of_no_possible_engine_is_told(tmp_path, fit):
    told = dict(zip(("a_ms", "b_ms", "c_ms", "d_ms"), fit, strict=True))
    with pytest.raises(SettingsError, match=r"fit\.json: no such engine"):
        fitted(tmp_path, json.dumps(told))


@pytest.mark.parametrize("content", ["", "[]", '{"a_ms": 1}', '{"a_ms": "fast"}'])
def test_a_file_that_is_no_fit_is_told(tmp_path, content):
    with pytest.raises(SettingsError, match=r"fit\.json: is no fit with a_ms"):
        fitted(tmp_path, content)


def test_a_manifest_tells_a_linear_engine_exactly_and_another_nearly():
    exact = setting(trace(10))
    assert exact.manifest().a_s == pytest.approx(exact.law.coefficients.a_s)
    assert exact.manifest().d_s == pytest.approx(exact.law.coefficients.d_s)
    roofline = setting(trace(10), "max")
    told = roofline.manifest().step_s(8, 8000, 128)
    assert told == pytest.approx(roofline.law.step_s(8, 8000, 128), rel=0.35)


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("form", ["linear", "max"])
def test_a_manifest_of_an_engine_with_few_slots_is_near(form, most):
    whole = setting(trace(10), form)
    fleet = whole.scenario.fleet.model_copy(update={"max_batch": most})
    made = replace(whole, scenario=whole.scenario.model_copy(update={"fleet": fleet}))
    for prompts in (0, 128):
        told = made.manifest().step_s(most, 2000, prompts)
        assert told == pytest.approx(made.law.step_s(most, 2000, prompts), rel=0.35)


def test_no_request_tells_how_long_its_answer_will_be():
    requests = trace(300, longest_out=900)
    for made, most in ((setting(requests), 200), (setting(requests, max_tokens=400), 400)):
        jobs = made.jobs(100.0, 1)
        assert {job.max_tokens for job in jobs} == {most}
        cut = [min(one.output_tokens, most) for one in requests]
        assert [job.output_tokens for job in jobs] == cut
        assert max(cut) == most


def test_classes_are_dealt_by_their_shares_and_by_seed():
    made = setting(trace(4000))
    labels = [job.label for job in made.jobs(100.0, 1)]
    assert [labels.count(n) / 4000 for n in range(3)] == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    assert labels == [job.label for job in made.jobs(50.0, 1)], "whatever the load"
    assert labels != [job.label for job in made.jobs(100.0, 2)]


def test_a_router_is_told_the_p99_of_its_clouds_ttft():
    made = setting(trace(20_000))
    drawn = sorted(made.stage(1.0, 1).cloud.ttft_s)
    told = known(made, [0, 1], None).cloud.expect_ttft_s
    assert told == pytest.approx(0.3 * exp(2.326 * 0.3))
    assert told == pytest.approx(drawn[int(0.99 * len(drawn))], rel=0.03)


def test_foreign_requests_are_a_share_drawn_by_seed_and_the_router_keeps_one():
    made = setting(foreign=0.1)
    foreign = {seed: [job.foreign for job in made.jobs(100.0, seed)] for seed in (1, 2)}
    assert [sum(one) for one in foreign.values()] == [30, 30]
    assert foreign[1] != foreign[2]
    assert foreign[1] == [job.foreign for job in made.jobs(50.0, 1)], "whatever the load"
    few = setting(trace(3), foreign=0.999)
    assert sum(not job.foreign for job in few.jobs(1.0, 1)) == 1
