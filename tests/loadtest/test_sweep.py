"""A sweep's order, its resumption, what is void, and its table; no stack is started."""

import json
from contextlib import nullcontext

import pytest
import yaml
from loadtest import sweep as sweeps
from loadtest import sweep_plan
from loadtest.generator import Ran
from loadtest.plan import ROOT, PlanError
from loadtest.probe import Probed, moved
from loadtest.report import percentiles
from loadtest.stacks import LEARNS, LEARNT
from loadtest.sweep import plans_at
from loadtest.sweep_pages import table, write_sweep
from loadtest.sweep_plan import Sweep
from loadtest.sweep_state import SweepError
from loadtest.work import schedule
from offers import outcome, plan

POLICIES = [
    {"name": "fifo", "policy": "loadtest/policies/fifo.yaml", "cloud": False},
    {"name": "cap", "policy": "loadtest/policies/cap.yaml", "set": {"cap": 8}},
]


def sweep(**changed):
    said = {
        "name": "test",
        "plan": "loadtest/plans/quick.yaml",
        "loads": [0.5, 1, 2],
        "policies": POLICIES,
        "repetitions": 2,
        "capacity": {"policy": "fifo", "requests_per_s": 4.0},
    }
    return Sweep.model_validate({**said, **changed})


def row(point, attainment=0.9, void=(), tries=1, **changed):
    return {
        "point": point.key,
        "policy": point.policy,
        "load": point.load,
        "repetition": point.repetition,
        "try": tries,
        "void": list(void),
        "offered": 100,
        "offered_rps": 4 * point.load,
        "attainment": attainment,
        "attainment_by_class": {"chat": attainment, "code": attainment - 0.1},
        "goodput_rps": 4 * point.load * attainment,
        "spilled": 10,
        "spill_usd": 0.01,
        "refused": 5,
        "failed": 0,
        "ttft_ms": percentiles([100.0]),
        "tpot_ms": percentiles([10.0]),
        "prediction": {"ttft_absolute_error_ms": percentiles([])},
        **changed,
    }


def test_every_point_is_there_once_and_policies_take_turns():
    points = sweep().points()
    assert len({point.key for point in points}) == len(points) == 2 * 3 * 2
    assert [(p.policy, p.load) for p in points[:4]] == [
        ("fifo", 0.5),
        ("cap", 0.5),
        ("cap", 1),
        ("fifo", 1),
    ]
    assert [p.repetition for p in points] == [1] * 6 + [2] * 6


@pytest.fixture
def ran(monkeypatch):
    """Points that are answered by a script instead of a stack; returns those that were run."""
    seen = []
    scripts = {}

    def answered(work, point, capacity_rps, tries):
        seen.append(point.key)
        place = work.place(point, tries)
        place.mkdir(parents=True, exist_ok=True)
        work.knows(point.policy, place)
        (place / LEARNS).write_text(f"{point.key}, try {tries + 1}")
        assert capacity_rps == 4.0
        void = scripts.get(point.key, [])
        why = void[tries] if tries < len(void) else ()
        return row(point, void=why, tries=tries + 1)

    monkeypatch.setattr(sweeps, "_point", answered)
    monkeypatch.setattr(sweeps, "_pin", lambda _: None)
    return seen, scripts


def no_drive(work):
    raise AssertionError("nothing is to be driven here")


def test_a_point_that_is_done_is_not_run_again(ran, tmp_path):
    seen, _ = ran
    sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    assert len(seen) == 12
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:5]) + "\n")
    seen.clear()
    sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    assert seen == [point.key for point in sweep().points()[5:]]


def test_a_point_whose_probe_moved_is_run_again_and_listed(ran, tmp_path):
    seen, scripts = ran
    scripts["fifo-1x-1"] = [["the probe moved 21%"]]
    scripts["cap-2x-2"] = [["the probe moved 30%"], ["the probe moved 16%"]]
    text = sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    assert seen.count("fifo-1x-1") == 2
    assert seen.count("cap-2x-2") == 2
    assert "- fifo-1x-1, try 1: the probe moved 21%" in text
    assert "- cap-2x-2, try 2: the probe moved 16%" in text
    body = json.loads((tmp_path / "sweep.json").read_text())
    assert len(body["rows"]) == 14


def test_a_try_that_is_void_teaches_the_router_nothing(ran, tmp_path):
    _, scripts = ran
    scripts["fifo-1x-1"] = [["the probe moved 21%"]]
    (tmp_path / LEARNT).write_text("the capacity's")
    sweeps.sweep(sweep(repetitions=1), tmp_path, no_drive, lambda _: None)

    def knew(place):
        return (tmp_path / place / LEARNT).read_text()

    assert knew("fifo-0.5x-1/try-1") == knew("cap-0.5x-1/try-1") == "the capacity's"
    assert knew("fifo-1x-1/try-1") == knew("fifo-1x-1/try-2") == "fifo-0.5x-1, try 1"
    assert knew("fifo-2x-1/try-1") == "fifo-1x-1, try 2"
    assert knew("cap-1x-1/try-1") == "cap-0.5x-1, try 1"


def test_what_changes_while_it_is_measured_does_not_count(ran, tmp_path, monkeypatch):
    seen, _ = ran
    versions = iter([*["as it was"] * 6, *["another"] * 6])
    monkeypatch.setattr(sweeps, "version", lambda *_: next(versions))
    with pytest.raises(SweepError, match="policy of fifo, cap was changed while it was"):
        sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(seen) - 1


def test_a_repetition_that_is_not_there_is_told(ran, tmp_path):
    with pytest.raises(SweepError, match="sweep test has 2 repetitions"):
        sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None, 3)


def test_points_without_a_sound_try_are_told(ran, tmp_path):
    _, scripts = ran
    scripts["cap-2x-2"] = [["the probe moved 30%"], ["the probe moved 16%"]]
    sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    assert sweeps.without_a_sound_try(sweep(), tmp_path, None) == ["cap-2x-2"]
    assert sweeps.without_a_sound_try(sweep(), tmp_path, 1) == []


@pytest.mark.parametrize(
    "changed", ["the engine", "a trace", "the stub", "the prompts", "the probe's", "a reader"]
)
def test_a_version_is_of_all_that_serves_offers_and_judges(changed, tmp_path, monkeypatch):
    paths = {
        "the engine": "model_repository/tensorrt_llm/1/engine/engine.json",
        "a trace": "data/trace.csv",
        "the stub": "loadtest/cloud_stub/server.py",
        "the prompts": "data/prompts/mtbench_questions.jsonl",
        "the probe's": "data/prompts/gsm8k_even.jsonl",
        "a reader": "engines/enginebuild/strict.py",
    }
    for path in paths.values():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("as it was")
    said = plan(arrivals={"kind": "trace", "speed": 1}, traces=["data/trace.csv"])
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(said.model_dump(mode="json")))
    monkeypatch.setattr(sweep_plan, "ROOT", tmp_path)
    monkeypatch.setattr(sweep_plan, "FOLDER", tmp_path / "data" / "prompts")
    monkeypatch.setattr(sweep_plan, "ENGINE", tmp_path / paths["the engine"])
    one = sweep(plan="plan.yaml")
    before = sweep_plan.version(one, one.policies[0])
    assert sweep_plan.version(one, one.policies[0]) == before
    (tmp_path / paths[changed]).write_text("another")
    assert sweep_plan.version(one, one.policies[0]) != before


def test_the_clouds_luck_is_the_same_under_all_policies_and_no_other():
    by_luck = {}
    for point in sweep(repetitions=3).points():
        by_luck.setdefault(point.luck, set()).add((point.load, point.repetition))
    assert len(by_luck) == 9
    assert all(len(points) == 1 for points in by_luck.values())


def test_void_rows_are_not_in_the_table():
    points = [p for p in sweep().points() if p.policy == "fifo" and p.load == 1]
    around = {"probe_before": {"tokens_per_s": 38.0}, "probe_after": {"tokens_per_s": 38.0}}
    rows = [
        row(points[0], 0.1, void=["the probe moved 50%"]),
        row(points[1], 0.8, failed=7, **around),
    ]
    probed = {"tokens_per_s": 40.0}
    capacities = {"2": {"probe_before": probed, "probe_after": probed}}
    assert table(sweep(), rows, capacities) == [
        [
            "1x",
            "fifo",
            "1",
            "4.00",
            "80.0% (80.0%)",
            "code 70.0%",
            "3.20",
            "10.0%",
            "0.1000",
            "12.0%",
            "100",
            "10",
            "-",
            "0.95",
        ]
    ]


def test_points_of_another_plan_policy_or_router_are_not_gone_on_with(ran, tmp_path):
    said = sweep()
    sweeps.sweep(said, tmp_path, no_drive, lambda _: None)
    sweeps.sweep(sweep(loads=[0.5, 1, 2, 3]), tmp_path, no_drive, lambda _: None)
    with pytest.raises(SweepError, match=r"capacity of repetition 1 was measured with another"):
        sweeps.sweep(sweep(point_s=299), tmp_path, no_drive, lambda _: None)


def test_a_capacity_of_before_there_were_versions_is_not_gone_on_with(ran, tmp_path):
    (tmp_path / "capacity.json").write_text('{"1": {"requests_per_s": 1.3}}')
    with pytest.raises(SweepError, match=r"capacity of repetition 1 was measured with another"):
        sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)


def test_points_of_before_there_were_versions_are_not_gone_on_with(ran, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(sweep().points()[0])) + "\n")
    with pytest.raises(SweepError, match=r"fifo-0\.5x-1 was measured with another plan"):
        sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)


def test_a_line_that_a_kill_tore_is_told(ran, tmp_path):
    sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text()[:-20])
    with pytest.raises(SweepError, match=r"rows.jsonl: take out what is no JSON"):
        sweeps.sweep(sweep(), tmp_path, no_drive, lambda _: None)


def test_the_pages_hold_the_table_and_the_figures(tmp_path):
    rows = [row(point) for point in sweep().points()]
    text = write_sweep(sweep(), {"1": {"requests_per_s": 4.0, "probe_moved": 0.02}}, rows, tmp_path)
    assert text.count("\n| ") == 1 + 6
    head, rule, *_ = [line for line in text.splitlines() if line.startswith("|")]
    assert head.count("|") == rule.count("|"), "else it is no table"
    page = (tmp_path / "sweep.html").read_text()
    assert page.count("<svg") == 3
    assert "1x: 4.000 requests/s in repetition 1 (probe moved 2%)" in page


def test_a_policy_may_run_at_some_loads_and_a_repetition_alone(ran, tmp_path):
    seen, _ = ran
    said = sweep(
        policies=[{"name": "fifo", "policy": "f"}, {"name": "cap", "policy": "c", "loads": [2]}]
    )
    sweeps.sweep(said, tmp_path, no_drive, lambda _: None, 2)
    assert sorted(seen) == ["cap-2x-2", "fifo-0.5x-2", "fifo-1x-2", "fifo-2x-2"]
    assert list(json.loads((tmp_path / "capacity.json").read_text())) == ["2"]
    with pytest.raises(ValueError, match="a policy runs at 3, which is not among the loads"):
        sweep(policies=[{"name": "fifo", "policy": "f", "loads": [3]}])


@pytest.mark.parametrize(
    ("before", "after", "share"), [(100, 100, 0), (100, 84, 0.16), (100, 116, 0.16)]
)
def test_a_probe_moves_either_way(before, after, share):
    assert moved(Probed(before, 1), Probed(after, 1)) == pytest.approx(share)


@pytest.mark.parametrize(
    "arrivals",
    [
        {"kind": "poisson", "rate_rps": 1},
        {"kind": "ramp", "from_rps": 1, "to_rps": 9},
        {"kind": "steps", "rates_rps": [1, 2, 3]},
        {"kind": "spike", "base_rps": 1, "spike_rps": 5, "at_s": 10, "for_s": 10},
        {"kind": "trace", "rate_rps": 1},
        {"kind": "trace", "speed": 3},
    ],
)
def test_a_load_is_the_mean_rate_of_any_arrivals(arrivals):
    traces = ["data/traces/azure_2023_conv.csv"] if arrivals["kind"] == "trace" else []
    said = plans_at(plan(duration_s=300, arrivals=arrivals, traces=traces), 6.0)
    assert len(schedule(said)) / 300 == pytest.approx(6, rel=0.1)


def test_capacity_is_of_a_policy_that_is_there():
    with pytest.raises(ValueError, match=r"capacity\.policy is none; the policies are fifo, cap"):
        sweep(capacity={"policy": "none"})
    with pytest.raises(ValueError, match=r"capacity\.policy is cap, which has a cloud"):
        sweep(capacity={"policy": "cap"})


def test_a_policy_that_is_there_twice_is_told():
    with pytest.raises(ValueError, match="the policy fifo is here twice"):
        sweep(policies=[POLICIES[0], *POLICIES])


@pytest.mark.parametrize(
    ("lost", "same_triton", "said"),
    [
        (1, True, None),
        (30, True, "30 of 100 requests were not served, .*; the first: UNAVAILABLE it is gone"),
        (100, True, "nothing was answered in time"),
        (0, False, "Triton restarted meanwhile"),
    ],
)
def test_a_capacity_of_requests_that_were_lost_is_none(
    monkeypatch, tmp_path, lost, same_triton, said
):
    gone = {"ended": "failed", "code": "UNAVAILABLE", "reason": "it is gone"}
    outcomes = [outcome(scheduled_s=30.0, **(gone if n < lost else {})) for n in range(100)]

    class Stack:
        triton, grpc, http = "127.0.0.1:1", "127.0.0.1:2", "http://127.0.0.1:3"

        def same_triton(self):
            return same_triton

    def drive(work):
        work.close()
        return Ran(outcomes) if work.__name__ == "fill" else Probed(40.0, 1.0)

    monkeypatch.setattr(sweeps, "running", lambda *_: nullcontext(Stack()))
    one = sweep(capacity={"policy": "fifo", "for_s": 60})
    work = sweeps._Work(one, tmp_path, drive)
    if said is None:
        assert sweeps._capacity(work, lambda _: None)["requests_per_s"] == 99 / 50
        return
    with pytest.raises(SweepError, match=said):
        sweeps._capacity(work, lambda _: None)


def test_a_file_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nplan: loadtest/plans/gone.yaml\nloads: [1]\ncapacity: {policy: a}\n"
        "policies:\n  - {name: a, policy: loadtest/policies/fifo.yaml, cloud: false}\n"
    )
    with pytest.raises(PlanError, match=r"no file loadtest/plans/gone.yaml"):
        sweeps_load(path)


def test_a_sweep_that_judges_nothing_of_a_point_is_told(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nplan: loadtest/plans/quick.yaml\nloads: [1]\npoint_s: 10\n"
        "capacity: {policy: a}\npolicies:\n"
        "  - {name: a, policy: loadtest/policies/fifo.yaml, cloud: false}\n"
    )
    with pytest.raises(PlanError, match="warmup_s leaves nothing of duration_s to judge"):
        sweeps_load(path)


def sweeps_load(path):
    from loadtest.sweep_plan import load

    return load(path)


def test_policies_of_ours_lie_where_sweeps_look():
    assert all((ROOT / one["policy"]).is_file() for one in POLICIES)
