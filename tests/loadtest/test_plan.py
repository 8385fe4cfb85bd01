"""Plan files: strict, told by line and column; and the schedule that a plan becomes."""

from collections import Counter
from pathlib import Path

import pytest
from loadtest import plan as plans
from loadtest import sweep_plan
from loadtest.plan import PlanError, load
from loadtest.prompts import corpus, splitter
from loadtest.work import schedule
from offers import CHAT, plan

ROOT = Path(__file__).resolve().parents[2]
WHOLE = """\
name: small
duration_s: 10
arrivals: {kind: poisson, rate_rps: 1}
classes:
  - name: chat
    share: 1
    slo: {ttft_ms: 100}
"""


@pytest.mark.parametrize("path", sorted((ROOT / "loadtest" / "plans").glob("*.yaml")))
def test_every_plan_of_ours_can_be_drawn(path):
    assert len(schedule(load(path))) > 50


@pytest.mark.parametrize("path", sorted((ROOT / "loadtest" / "sweeps").glob("*.yaml")))
def test_every_sweep_of_ours_loads_with_its_policies(path):
    said = sweep_plan.load(path)
    for one in said.policies:
        values = sweep_plan.promises(load(ROOT / said.plan)) | {"cloud_url": "http://127.0.0.1:9"}
        assert "${" not in sweep_plan.policy_text(one, values)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("share: 1", "shares: 1", ":6:5: unknown key 'classes.0.shares'; did you mean share?"),
        ("duration_s: 10", "duration_s: -1", ":2:1: duration_s: Input should be greater than 0"),
        ("kind: poisson", "kind: poison", ":3:1: arrivals: Input tag 'poison'"),
        ("rate_rps: 1", "rate_rp: 1", "unknown key 'arrivals.poisson.rate_rp'; did you mean rate_"),
        ("share: 1\n", "share: 1\n    prompt_tokens: traced\n", ":5:5: classes.0: lengths are tra"),
        ("share: 1\n", "share: 1\n    trace: gone\n", "class chat names the trace gone"),
        ("kind: poisson, rate_rps: 1", "kind: trace, rate_rps: 1", "list at least one file"),
        ("kind: poisson, rate_rps: 1", "kind: trace", "give either speed or rate_rps"),
        (
            "share: 1\n",
            "share: 1\n    hang_up: {share: 1}\n",
            "give either after_tokens or after_ms",
        ),
        (
            "share: 1\n",
            "share: 1\n    hang_up: {share: 1, after_tokens: 2, after_ms: 9}\n",
            "give either after_tokens or after_ms",
        ),
        ("name: small", "name: [", ":"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, old, new, told):
    path = tmp_path / "plan.yaml"
    path.write_text(WHOLE.replace(old, new))
    with pytest.raises(PlanError) as caught:
        load(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_plan_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_a_plan_at_twice_its_load_has_twice_the_rates():
    steps = plan(arrivals={"kind": "steps", "rates_rps": [1, 2]}).times(2)
    assert steps.arrivals.model_dump()["rates_rps"] == (2, 4)
    spike = {"kind": "spike", "base_rps": 1, "spike_rps": 4, "at_s": 3, "for_s": 2}
    assert plan(arrivals=spike).times(3).arrivals.model_dump() == {
        **spike,
        "base_rps": 3,
        "spike_rps": 12,
    }


BUSY = {"duration_s": 1000, "arrivals": {"kind": "poisson", "rate_rps": 2}}


def test_classes_come_by_their_shares():
    jobs = schedule(plan(**BUSY, classes=[{**CHAT, "share": 3}, {**CHAT, "name": "code"}]))
    assert Counter(job.klass for job in jobs)["chat"] / len(jobs) == pytest.approx(0.75, abs=0.04)


def test_tenants_come_by_their_weights():
    jobs = schedule(plan(**BUSY, classes=[{**CHAT, "tiers": {"free": 4, "paid": 1}}]))
    found = Counter(job.labels["tier"] for job in jobs)
    assert found["paid"] / len(jobs) == pytest.approx(0.2, abs=0.04)


def test_some_clients_leave_and_some_read_slowly():
    people = {"hang_up": {"share": 0.3, "after_tokens": 5}, "slow": {"share": 0.1, "gap_ms": 50}}
    jobs = schedule(plan(**BUSY, classes=[{**CHAT, **people}]))
    assert sum(j.hang_up_after == 5 for j in jobs) / len(jobs) == pytest.approx(0.3, abs=0.05)
    assert sum(j.gap_s == 0.05 for j in jobs) / len(jobs) == pytest.approx(0.1, abs=0.03)


def test_some_clients_leave_at_a_moment():
    classes = [{**CHAT, "hang_up": {"share": 0.3, "after_ms": 700}}]
    jobs = schedule(plan(**BUSY, classes=classes))
    assert {job.hang_up_after for job in jobs} == {None}
    assert sum(j.leave_after_s == 0.7 for j in jobs) / len(jobs) == pytest.approx(0.3, abs=0.05)


def test_one_concern_moves_no_other():
    """More slow readers leave arrivals, classes, lengths and prompts as they were."""
    first = schedule(plan(classes=[{**CHAT, "prompt_tokens": (4, 40)}]))
    slow = {**CHAT, "prompt_tokens": (4, 40), "slow": {"share": 1.0}}
    second = schedule(plan(classes=[slow]))
    assert [(j.at_s, j.prompt, j.max_tokens) for j in first] == [
        (j.at_s, j.prompt, j.max_tokens) for j in second
    ]
    assert all(job.gap_s for job in second)


def test_sessions_share_the_beginning_of_their_prompts():
    session = {"requests": 4, "prefix_tokens": 20, "open": 2}
    jobs = schedule(plan(**BUSY, classes=[{**CHAT, "prompt_tokens": 30, "session": session}]))
    prefixes = Counter(job.prompt[:40] for job in jobs)
    # Four requests a session; now and then two sessions happen to begin alike.
    assert 3.8 < sum(prefixes.values()) / len(prefixes) < 5
    assert len({job.prompt for job in jobs}) > 0.99 * len(jobs)


def test_lengths_are_the_traces_scaled_and_bounded(tmp_path):
    path = tmp_path / "t.csv"
    lines = [f"2023-11-16 18:00:{n:02d},{100 * (n + 1)},{10 * (n + 1)}" for n in range(10)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")
    one = {
        **CHAT,
        "trace": "t",
        "prompt_tokens": "traced",
        "output_tokens": "traced",
        "scale_prompt": 0.1,
        "scale_output": 0.5,
        "prompt_at_most": 60,
    }
    jobs = schedule(plan(arrivals={"kind": "trace", "speed": 1}, traces=[str(path)], classes=[one]))
    assert [job.at_s for job in jobs] == list(range(10))
    assert [job.max_tokens for job in jobs] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    counted = [len(splitter().pieces(job.prompt)) for job in jobs]
    wanted = [10, 20, 30, 40, 50, 60, 60, 60, 60, 60]
    assert all(abs(a - b) <= 3 for a, b in zip(counted, wanted, strict=True))


def test_an_unknown_corpus_is_told_before_the_run():
    with pytest.raises(Exception, match="no prompts named jokes"):
        schedule(plan(classes=[{**CHAT, "prompts": "jokes"}]))
    assert corpus("mtbench_questions") is corpus("mtbench_questions")


def test_a_policy_that_names_a_value_that_is_not_set_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_plan, "ROOT", tmp_path)
    (tmp_path / "cap.yaml").write_text("limit: ${cap}\ncloud: ${cloud_url}\n")
    one = sweep_plan.Configuration(name="cap", policy="cap.yaml", set={"cap": 7})
    assert sweep_plan.policy_text(one, {"cloud_url": "U"}) == "limit: 7\ncloud: U\n"
    with pytest.raises(PlanError, match=r"cap.yaml has \$\{cap\}, which policy cap does not set"):
        sweep_plan.policy_text(one.model_copy(update={"set": {}}), {"cloud_url": "U"})


def test_a_policy_promises_what_the_plan_does_stretched_for_a_slower_engine():
    said = plan(classes=[{**CHAT, "slo": {"ttft_ms": 1000, "e2e_ms": 4000, "attainment": 0.9}}])
    slower = said.stretched(4.5 / 1.5)
    assert sweep_plan.promises(slower) == {"chat_ttft_ms": "3000", "chat_e2e_ms": "12000"}
    assert slower.classes[0].slo.attainment == 0.9


def test_a_plan_waits_for_all_that_it_promises():
    late = [{**CHAT, "slo": {"e2e_ms": 90_000, "attainment": 0.9}}]
    for short in ("timeout_s", "drain_s"):
        waits = {"timeout_s": 90, "drain_s": 90} | {short: 89}
        with pytest.raises(ValueError, match=f"within 90 s, and {short} is 89: .*raise {short}"):
            plan(classes=late, **waits)
    said = plan(classes=late, timeout_s=90, drain_s=90)
    for factor in (0.8571, 1.0, 1.2345, 3.7):
        slower = said.stretched(factor)
        assert slower.longest_ms == round(90_000 * factor)
        assert slower.drain_s >= max(90.0, slower.longest_ms / 1000)


def test_a_trace_without_requests_is_told(tmp_path):
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    (tmp_path / "none.csv").write_text(head)
    said = plan(
        traces=[str(tmp_path / "none.csv"), "data/traces/azure_2023_conv.csv"],
        classes=[{**CHAT, "trace": "none", "prompt_tokens": "traced"}],
    )
    with pytest.raises(PlanError, match="the trace none holds no request"):
        schedule(said)


def test_a_sample_is_of_the_whole_trace():
    arrivals = {"kind": "trace", "rate_rps": 2, "sample": True}
    said = plan(arrivals=arrivals, traces=["data/traces/azure_2023_conv.csv"], duration_s=60)
    jobs = schedule(said)
    assert 90 < len(jobs) < 150
    assert jobs[0].at_s < 5
    assert jobs[-1].at_s > 55
    with pytest.raises(PlanError, match="lower the rate"):
        schedule(said.changed(arrivals={**arrivals, "rate_rps": 2000}))
    with pytest.raises(ValueError, match="goes with rate_rps alone"):
        plan(arrivals={**arrivals, "start_s": 3})


def test_a_speed_at_which_the_trace_ends_before_the_run_is_told():
    arrivals = {"kind": "trace", "speed": 60}
    said = plan(arrivals=arrivals, traces=["data/traces/azure_2023_conv.csv"], duration_s=55)
    assert schedule(said)[-1].at_s > 54
    with pytest.raises(PlanError, match=r"plan test: the trace ends after .* s at 120 times its"):
        schedule(said.times(2))


def test_paths_of_a_plan_are_relative_to_the_checkout():
    assert plan().at("data/DATA.md") == plans.ROOT / "data" / "DATA.md"


@pytest.mark.parametrize(
    ("arrivals", "factor", "told"),
    [
        ({"kind": "poisson", "rate_rps": 2}, -1, "rate_rps: Input should be greater than or equal"),
        ({"kind": "trace", "speed": 2}, 0, "speed: Input should be greater than 0"),
    ],
)
def test_a_factor_that_leaves_no_plan_is_told(arrivals, factor, told):
    said = plan(arrivals=arrivals, traces=["data/traces/azure_2023_conv.csv"])
    with pytest.raises(PlanError, match=f"plan test: .*{told}"):
        said.times(factor)
