"""`forebay simulate`: the shape of its answer, and what it says of wrong use."""

import json

import pytest
import yaml
from click.testing import CliRunner
from lab.small import WHOLE, trace

from forebay.cli import main

KEYS = {
    "load",
    "policy",
    "seed",
    "attainment",
    "attainment_by_class",
    "spill_usd",
    "refused",
    "goodput_rps",
    "lp_usd",
    "clairvoyant_usd",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    (tmp_path / "scenario.yaml").write_text(yaml.safe_dump(WHOLE))
    lines = [f"{one.at_s},{one.input_tokens},{one.output_tokens}" for one in trace(80)]
    (tmp_path / "one.csv").write_text("\n".join(["at,in,out", *lines[:50]]))
    (tmp_path / "two.csv").write_text("\n".join(["t,i,o", *lines[50:]]))
    return tmp_path


def ran(files, *argv):
    words = [str(files / word) if word.endswith((".csv", ".yaml")) else word for word in argv]
    result = CliRunner().invoke(main, ["simulate", *words], catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def test_rows_are_printed_as_json(files):
    argv = ["--scenario", "scenario.yaml", "--trace", "one.csv", "--loads", "0.5,2", "--seeds", "2"]
    argv += ["--policies", "forebay,fifo", "--json"]
    result = ran(files, *argv)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert all(set(row) >= KEYS for row in rows)
    asked = [(row["load"], row["policy"], row["seed"]) for row in rows]
    assert asked == [(u, p, s) for u in (0.5, 2) for p in ("forebay", "fifo") for s in (1, 2)]
    assert all(row["lp_usd"] is None and row["requests"] == 50 for row in rows)
    assert all(set(row["attainment_by_class"]) <= {"chat", "private", "batch"} for row in rows)
    assert ran(files, *argv).stdout == result.stdout


def test_oracles_bound_each_row_and_are_kept(files):
    argv = ["--scenario", "scenario.yaml", "--trace", "one.csv", "--loads", "2", "--json"]
    argv += ["--policies", "forebay,cap", "--oracles"]
    ours, cap = json.loads(ran(files, *argv).stdout)["rows"]
    assert ours["lp_usd"] == cap["lp_usd"]
    for row in (ours, cap):
        assert 0.0 <= row["lp_usd"] <= row["charged_usd"]
        assert row["spill_usd"] <= row["charged_usd"]
    assert ours["clairvoyant_usd"] is None
    kept = sorted((files / "home" / "simulate").iterdir())
    searched = json.loads(ran(files, *argv, "--search", "2").stdout)["rows"]
    assert searched[0]["clairvoyant_usd"] >= searched[0]["lp_usd"]
    assert set(kept) < set((files / "home" / "simulate").iterdir())


def test_several_files_are_one_trace_and_columns_can_be_named(files):
    (files / "two.csv").write_text((files / "two.csv").read_text().replace("t,i,o", "at,in,out"))
    argv = ["--scenario", "scenario.yaml", "--policies", "fifo", "--loads", "1", "--json"]
    together = ran(files, *argv, "--trace", "one.csv", "two.csv")
    repeated = ran(files, *argv, "--trace", "one.csv", "--trace", "two.csv")
    assert json.loads(together.stdout)["rows"][0]["requests"] == 80
    assert together.stdout == repeated.stdout
    (files / "two.csv").write_text((files / "two.csv").read_text().replace("at,in,out", "t,i,o"))
    named = ran(files, *argv, "--trace", "two.csv", "--columns", "arrival=t,input=i,output=o")
    assert json.loads(named.stdout)["rows"][0]["requests"] == 30


def test_people_get_a_table_and_drawings(files):
    argv = ["--scenario", "scenario.yaml", "--trace", "one.csv", "--loads", "1", "--policies"]
    result = ran(files, *argv, "cap,round_robin", "--plot", str(files / "plots"), "--oracles")
    assert result.exit_code == 0
    assert "1x is" in result.stdout
    assert "round_robin" in result.stdout
    assert {path.name for path in (files / "plots").iterdir()} == {"attainment.svg", "spill.svg"}
    assert "LP bound" in (files / "plots" / "spill.svg").read_text()


def test_answers_that_are_cut_are_counted(files):
    (files / "one.csv").write_text("at,in,out\n1,5,900\n2,5,200\n3,5,201\n")
    argv = ["--scenario", "scenario.yaml", "--trace", "one.csv", "--policies", "fifo", "--json"]
    result = ran(files, *argv, "--loads", "1")
    assert "2 of 3 answers are longer than the scenario's max_tokens, 200" in result.stderr
    assert json.loads(result.stdout)["answers_cut"] == 2


def test_a_trace_of_the_scenario_has_its_mix_whatever_another_of_its_name_has(files):
    (files / "mon").mkdir()
    (files / "tue").mkdir()
    for day in ("mon", "tue"):
        (files / day / "r.csv").write_text((files / "one.csv").read_text())
    whole = WHOLE | {
        "traces": [{"file": "mon/r.csv", "mix": "talk"}, {"file": "tue/r.csv", "mix": "work"}],
        "mixes": WHOLE["mixes"] | {"talk": {"chat": 1.0}, "work": {"batch": 1.0}},
    }
    (files / "scenario.yaml").write_text(yaml.safe_dump(whole))
    argv = ["--scenario", "scenario.yaml", "--policies", "fifo", "--loads", "1", "--json"]
    for day, label in (("mon", "chat"), ("tue", "batch")):
        row = json.loads(ran(files, *argv, "--trace", f"{day}/r.csv").stdout)["rows"][0]
        assert set(row["attainment_by_class"]) == {label}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--loads", "fast"], "no list of loads"),
        (["--loads", "0"], "no list of loads"),
        (["--loads", "1,0.0001"], "'1,0.0001' is no list of loads such as 0.5,1,2, from 0.01 to"),
        (["--loads", "nan"], "no list of loads"),
        (["--policies", "fifo,magic"], "no policy 'magic'"),
        (["--columns", "arrival=t"], "no column map"),
        (["--seeds", "0"], "not in the range"),
        (["--disturb", "flood"], "no disturbance 'flood'; there are dearer, dies"),
        (
            ["--disturb", "dearer", "--policies", "forebay,cap"],
            "'dearer' gives a budget, which cap does not keep",
        ),
        (["--engine-form", "cubic"], "no engine 'cubic'"),
        (["--search", "1"], "--search needs --oracles"),
        (
            ["--loads", "1", "--policies", "fifo", "--plot", "/dev/null/plots"],
            "cannot be drawn into",
        ),
        (["--trace", "none.csv"], "none.csv: no such trace"),
        (["--trace", "two.csv"], "two.csv:1: no column 'at'"),
        (["--scenario", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(files, argv, said):
    words = ["--trace", "one.csv"] if "--trace" not in argv else []
    result = ran(files, "--scenario", "scenario.yaml", *words, *argv)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": "jet"}, "engine 'jet' is not among engines"),
        ({"speed": 1}, "speed: Extra inputs are not permitted"),
        ({"mixes": {"other": {"chat": 0.5}}}, "add up to 0.5"),
        ({"mixes": {"other": {"chat": 0.5, "vip": 0.5}}}, "'vip', which is no class"),
        ({"classes": {"chat": {"tpot_ms": 10}}}, "promises ttft_ms or e2e_ms"),
        ({"disturbances": {"all": {"dies": 2}}}, "'all' lets 2 of 2 replicas die"),
        (
            {"disturbances": {"late": {"foreign": 0.3, "from": 0.5}}},
            "from: goes with engine_factor",
        ),
        ({"disturbances": {"few": {"routers": 3, "owned": True}}}, "each must own one"),
        ({"disturbances": {"all": {"foreign": 1}}}, "all.foreign: Input should be less than 1"),
        ({"disturbances": {"odd": {"foreign": -0.1}}}, "greater than or equal to 0"),
        ({"cloud": {**WHOLE["cloud"], "ttft_sigma": 400}}, "less than or equal to 10"),
        ({"attainment": 1.0}, "attainment: Input should be less than 1"),
        ({"max_tokens": float("inf")}, "max_tokens: Input should be a finite number"),
        ({"classes": {"chat": {"ttft_ms": float("inf")}}}, "should be a finite number"),
    ],
)
def test_a_wrong_scenario_is_told_by_its_key(files, change, said):
    (files / "scenario.yaml").write_text(yaml.safe_dump(WHOLE | change))
    result = ran(files, "--scenario", "scenario.yaml", "--trace", "one.csv")
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: one\nname: other\n", "the key name is here twice"),
        ("fleet: {replicas: 1, replicas: 2}\n", "the key replicas is here twice"),
        ("name: 2024-13-01\n", "is no YAML: month must be in 1..12"),
        ("name: [\n", "is no YAML"),
    ],
)
def test_a_file_that_is_no_scenario_is_told(files, text, said):
    (files / "scenario.yaml").write_text(text)
    result = ran(files, "--scenario", "scenario.yaml", "--trace", "one.csv")
    assert result.exit_code == 2
    assert said in result.stderr
