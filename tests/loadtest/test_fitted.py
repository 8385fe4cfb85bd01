"""The simulator against a sweep: points are played as they were run, and judged alike."""

import json
from dataclasses import replace

import pytest
import yaml
from loadtest import plan as plans
from loadtest.engine_fit import STEADY
from loadtest.outcome import Move
from loadtest.played import PATIENCE_S, Fit, cloud_pace, play, policy_of
from loadtest.sweep import SweepError
from stepped import DELAY_S, LAW
from swept import PROMPT, TEMPLATE, Folder

from forebay.lab.step_time import Noise
from forebay.policy.admission.memory import ClassMemory
from forebay.policy.admission.model import Coefficients

STILL = Fit(LAW, Noise(), STEADY, DELAY_S)
LAW_S = (LAW.a_s, LAW.b_s, LAW.c_s, LAW.d_s)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_an_engine_that_keeps_its_law_is_predicted(folder, whole):
    attained = [folder.ran(0.5, whole=whole), folder.ran(1, whole=whole)]
    assert attained[0] > 0.9
    assert 0.05 < attained[1] < 0.9, "the loads should be told apart"
    said = folder.command()
    assert said.exit_code == 0, said.output
    body = json.loads((folder.home / "fitted.json").read_text())
    assert body["worst_points"] < 3
    (engine,) = body["engines"]
    assert engine["step_s"] == pytest.approx(LAW_S, abs=1e-4)
    assert engine["delay_s"] == pytest.approx(DELAY_S, abs=0.01)
    assert [one["observed"]["attainment"] for one in body["points"]] == attained
    assert "| 1x | fifo | 1 |" in (folder.home / "fitted.md").read_text()
    assert "judged by the fit `replayed`" in said.output


def test_a_machine_that_was_slow_for_a_while_is_replayed(folder):
    steady = folder.ran(0.5)
    slowed = folder.ran(1, pace=lambda at_s: 2.0 if 20 <= at_s < 40 else 1.0)
    assert folder.command().exit_code == 0
    body = json.loads((folder.home / "fitted.json").read_text())
    even, hit = body["points"]
    assert hit["simulated"]["replayed"]["attainment"] == pytest.approx(slowed, abs=0.03)
    assert even["simulated"]["replayed"]["attainment"] == pytest.approx(steady, abs=0.03)
    # Told to begin its slow time at other moments, the same machine gives another run.
    assert hit["simulated"]["drawn"]["spread"] > 0.02


def test_a_point_that_is_off_fails_the_command(folder):
    folder.ran(0.5, attainment=0.5)
    said = folder.command()
    assert said.exit_code == 1
    assert folder.command("--within", "60").exit_code == 0


def test_what_the_router_had_learnt_is_a_fit_of_its_own(folder):
    folder.ran(0.5)
    step_s = [10 * one for one in LAW_S]
    folder.learnt("fifo", step_s)
    assert folder.command().exit_code == 0
    assert folder.command("--fit", "router").exit_code == 1


def test_points_that_are_void_are_not_played(folder):
    folder.ran(0.5)
    folder.ran(1.5, void=["the probe moved 20%"])
    assert [point.row["point"] for point in folder.points()] == ["fifo-0.5x-1"]


def spilled(outcomes):
    """Every second request went to the cloud, which counts tokens in its own way."""
    away = (Move("spill", "cloud", "target_full"),)
    return [
        one if one.number % 2 else replace(one, moves=away, prompt_tokens=1, itl_ms=())
        for one in outcomes
    ]


def test_prompts_that_the_engine_did_not_count_are_the_twins_or_estimated(folder):
    folder.ran(0.5, "cap", spilled)
    (alone,) = folder.points()
    asked = alone.offered.schedule
    counted = {one.number for one in alone.outcomes if one.number % 2}
    assert {alone.offered.prompt_tokens[number] for number in counted} == {PROMPT + TEMPLATE}
    assert alone.offered.prompt_tokens == pytest.approx([PROMPT + TEMPLATE] * len(asked), abs=6)
    folder.ran(0.5, "fifo")
    beside, _ = folder.points()
    judged = {one.number for one in beside.outcomes}
    assert {beside.offered.prompt_tokens[number] for number in judged} == {PROMPT + TEMPLATE}


def test_the_policy_is_the_real_one(folder):
    """A full engine spills what may leave; what may not, and is promised nothing, is refused."""
    folder.ran(1.5, "cap")
    (point,) = folder.points()
    made = play(point.offered, point.router, STILL, 1)
    by_class = {
        name: {(one.target, one.ended) for one in made.outcomes if one.klass == name}
        for name in ("chat", "private")
    }
    assert by_class["chat"] == {("local", "served"), ("cloud", "served")}
    assert by_class["private"] == {("local", "served"), ("local", "refused")}


SLO_POLICY = """
models:
  local: {triton: {}}
  cloud: {openai: {model: stub, base_url: "${cloud_url}", key: "env:FOREBAY_STUB_KEY"}}
default:
  model: local
  slo: {ttft_ms: ${chat_ttft_ms}, tpot_ms: ${chat_tpot_ms}, attainment: 0.99}
  spill: {to: cloud, when: slo_at_risk}
"""


def test_the_router_begins_with_what_it_had_learnt(folder):
    policy = folder.home / "slo.yaml"
    policy.write_text(SLO_POLICY)
    said = yaml.safe_load(folder.sweep.read_text())
    said["policies"].append({"name": "slo", "policy": str(policy)})
    folder.sweep.write_text(yaml.safe_dump(said))
    folder.ran(0.5, "slo")

    def away(factor, margin=1.0):
        step_s = [factor * one for one in (LAW.a_s, LAW.b_s, 1e-6, LAW.d_s)]
        kept = ClassMemory(ttft=margin, rate=margin, output_tokens=40, mean_tokens=24, answers=100)
        folder.learnt("slo", step_s, {"default": kept.model_dump()})
        (point,) = folder.points()
        made = play(point.offered, point.router, STILL, 1)
        return made.body["spilled"] / made.body["offered"]

    usual = away(1.0)
    assert usual < 0.2
    assert away(20.0) > 0.8, "it thinks its engine slow"
    assert away(1.0, 3.0) > usual, "it distrusts its predictions"


def test_a_first_token_comes_after_the_delay_and_the_prompts_steps(folder):
    folder.ran(0.5)
    (point,) = folder.points()
    made = play(point.offered, point.router, STILL, 1)
    # 80 prompt tokens fit one step: 30 ms of delay, 30 ms of a step, 4 ms a token.
    assert min(one.ttft_ms for one in made.outcomes) == pytest.approx(30 + 30 + 80 * 4)


def test_what_would_come_after_the_runs_end_is_cut_off_as_in_a_run(folder):
    folder.ran(1.5)
    (point,) = folder.points()
    brief = replace(point.offered, plan=point.offered.plan.model_copy(update={"drain_s": 0}))
    ended = play(brief, point.router, STILL, 1).body["ended"]
    assert ended.keys() == {"served", "unfinished"}


def test_who_waits_for_a_minute_is_given_up_and_the_engine_left_alone_for_a_while(folder):
    folder.ran(1.5)
    (point,) = folder.points()
    stuck = replace(STILL, law=Coefficients(*(4 * one for one in LAW_S)))
    made = play(point.offered, point.router, stuck, 1)
    assert made.body["ended"].keys() >= {"failed", "refused", "served"}
    refused_s = [one.sent_s for one in made.outcomes if one.ended == "refused"]
    assert min(refused_s) > PATIENCE_S
    assert max(one.ttft_ms for one in made.outcomes if one.ttft_ms) < (PATIENCE_S + 30) * 1000


def test_an_engine_refuses_who_comes_to_a_full_queue(folder):
    folder.ran(1.5)
    (point,) = folder.points()
    short = replace(point.router, limits=replace(point.router.limits, max_batch=2, queue=2))
    made = play(point.offered, short, STILL, 1)
    assert made.body["ended"].keys() == {"served", "refused"}


def test_a_seed_decides_what_is_played(folder):
    folder.ran(1.5, "cap")
    (point,) = folder.points()
    fit = Fit(LAW, Noise(sigma=0.2), STEADY, DELAY_S)
    first, again, other = (play(point.offered, point.router, fit, seed) for seed in (1, 1, 2))
    assert first.outcomes == again.outcomes != other.outcomes


def test_another_plan_than_the_sweeps_is_told(folder):
    folder.ran(0.5)
    (folder.home / "capacity.json").write_text(json.dumps({"1": {"requests_per_s": 3.0}}))
    with pytest.raises(SweepError, match=r"fifo-0\.5x-1: request \d+ is another in the plan"):
        folder.points()


def test_an_engine_is_fitted_to_points_without_admission(folder):
    folder.ran(0.5, "cap")
    said = folder.command()
    assert isinstance(said.exception, SweepError)
    assert "repetition 1 has no sound point of fifo yet" in str(said.exception)


def test_a_folder_that_is_none_of_a_sweeps_is_told(folder):
    with pytest.raises(SweepError, match=r"rows\.jsonl: cannot be read: No such file"):
        folder.points()
    folder.ran(0.5, void=["the probe moved 20%"])
    with pytest.raises(SweepError, match="no point is sound yet"):
        folder.points()


def test_a_policy_with_other_targets_is_told():
    text = "models: {a: {triton: {}}}\ndefault: {model: a}\n"
    with pytest.raises(plans.PlanError, match="the simulator knows the targets local and cloud"):
        policy_of(text)
    with pytest.raises(plans.PlanError, match="unknown key"):
        policy_of("modles: {}\n")


def test_the_cloud_is_paced_as_the_stub_was():
    assert cloud_pace(()).ttft_s == 0.35
    told = cloud_pace(("--tpot-s", "0.05", "--seed", "3", "--ttft-s=0.1"))
    assert (told.ttft_s, told.tpot_s, told.sigma) == (0.1, 0.05, 0.33)
