"""`forebay engines plan`: what it prints, what it refuses, and that it says the same twice."""

import json
import sys
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebuild import measured, plan_text, plot
from enginebuild.goals import PREFERENCES
from enginebuild.performance import Workload
from enginebuild.plan import Plan, Question, Refused, plan
from enginebuild.precision import PRECISIONS
from enginebuild.published import predicted_tokens_per_s, rows
from enginebuild.spec import known
from enginebuild.validate import Checked, report, within
from forebay.cli.engines_plan import plan as command

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _without_aiconfigurator(monkeypatch):
    """It takes seconds and is not everywhere; what we say without it is tested here."""
    monkeypatch.setattr(measured, "PACKAGE", "aiconfigurator-that-is-not-there")


def run(*arguments):
    return CliRunner().invoke(command, [str(part) for part in arguments])


@pytest.mark.parametrize("sku", ["h100-sxm", "l4", "b200"])
def test_a_plan_names_memory_limits_and_speed(sku):
    said = run("llama-3.1-8b", "--sku", sku, "--goal", "throughput")
    assert said.exit_code == 0, said.output
    for word in ("weights", "KV pool", "max_batch_size", "TTFT ms", "tokens/s", "<- planned"):
        assert word in said.stdout
    assert "is not installed" in said.stdout
    assert max(len(line) for line in said.stdout.splitlines()) <= 100


def test_json_is_one_object_on_standard_output():
    said = run("llama-3.1-8b", "--sku", "h100-sxm", "--json")
    body = json.loads(said.stdout)
    assert body["planned"] is True
    assert body["cache"]["bytes_per_token"] == 64 * 1024
    assert body["limits"]["max_batch_size"] == body["expected"]["batch"]
    assert [one["batch"] for one in body["points"]][:3] == [1, 2, 4]
    assert "absent" in body["aiconfigurator"]
    assert said.stderr == ""


@pytest.mark.parametrize(
    ("why", "arguments", "rule", "said"),
    [
        (
            "FP8 on Ampere",
            ("llama-3.1-8b", "--sku", "a10g", "--precision", "fp8"),
            "precision-sm",
            "a10g is SM86, and fp8 needs SM89",
        ),
        (
            "70B on 24 GB",
            ("llama-3.3-70b", "--sku", "l4"),
            "weights-memory",
            "GiB of weights",
        ),
        ("a CPU", ("smollm2-135m-instruct", "--sku", "cpu-x86"), "sku-figures", "make up"),
        (
            "three GPUs",
            ("llama-3.1-8b", "--sku", "h100-sxm", "--gpus", 3),
            "head-split",
            "tp may be 1, 2",
        ),
        (
            "two ranks, one GPU",
            ("llama-3.1-8b", "--sku", "h100-sxm", "--tp", 2),
            "gpu-count",
            "Ask for --gpus 2",
        ),
        (
            "a request beyond training",
            ("smollm2-135m-instruct", "--sku", "l4", "--output-tokens", 8000),
            "request-length",
            "longer than the max_seq_len of 8192",
        ),
        (
            "a request beyond what is asked",
            ("llama-3.1-8b", "--sku", "l4", "--max-seq-len", 1024),
            "request-length",
            "--max-seq-len",
        ),
        (
            "a request beyond the pool",
            ("llama-3.1-8b", "--sku", "a10g", "--precision", "bf16", "--input-tokens", 90000),
            "request-length",
            "Smallest fit: --sku a10g",
        ),
        (
            "a length beyond the pool",
            ("llama-3.1-8b", "--sku", "a10g", "--precision", "bf16", "--max-seq-len", 90000),
            "kv-pool",
            "Ask for max_seq_len 23",
        ),
    ],
)
def test_a_refusal_exits_1_with_its_sentence(why, arguments, rule, said):
    told = run(*arguments)
    assert told.exit_code == 1, why
    assert told.stdout == ""
    assert said in told.stderr
    assert f"[{rule}: " in told.stderr
    as_json = run(*arguments, "--json")
    assert as_json.exit_code == 1
    body = json.loads(as_json.stdout)
    assert body["planned"] is False
    assert body["refusals"][0]["rule"] == rule


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("llama-3.1-8", "--sku", "l4"), "did you mean llama-3.1-8b?"),
        (("llama-3.1-8b", "--sku", "l5"), "did you mean l4?"),
        (("llama-3.1-8b", "--sku", "l4", "--goal", "fast"), "Invalid value for '--goal'"),
        (("llama-3.1-8b", "--sku", "l4", "--gpus", "0"), "Invalid value for '--gpus'"),
        (("llama-3.1-8b",), "Missing option '--sku'"),
    ],
)
def test_wrong_use_exits_2(arguments, said):
    told = run(*arguments)
    assert told.exit_code == 2
    assert said in told.stderr


def test_pipeline_stages_are_what_tp_leaves():
    body = json.loads(
        run("llama-3.3-70b", "--sku", "h100-sxm", "--gpus", 4, "--tp", 2, "--json").stdout
    )
    assert (body["gpus"], body["tp"], body["pp"]) == (4, 2, 2)
    assert json.loads(run("llama-3.3-70b", "--sku", "h200", "--json").stdout)["gpus"] == 1


def test_the_plot_has_a_line_for_each_precision(tmp_path):
    path = tmp_path / "plan.svg"
    assert run("llama-3.1-8b", "--sku", "h100-sxm", "--plot", path).exit_code == 0
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    found = plan(Question("llama-3.1-8b", "h100-sxm"))
    assert isinstance(found, Plan)
    assert len(root.findall(f"{SVG}polyline")) == len(found.curves) > 3
    dots = root.findall(f"{SVG}circle")
    assert len(dots) == sum(len(curve.points) for curve in found.curves)
    for dot in dots:
        assert plot.LEFT <= float(dot.get("cx", "-1")) <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= float(dot.get("cy", "-1")) <= plot.HEIGHT - plot.BOTTOM


def test_a_plot_is_svg_and_says_so(tmp_path):
    told = run("llama-3.1-8b", "--sku", "l4", "--plot", tmp_path / "plan.png")
    assert told.exit_code == 2
    assert "plan.svg" in told.stderr


@settings(max_examples=40)
@given(
    st.sampled_from(known("models")),
    st.sampled_from(known("skus")),
    st.sampled_from([None, *PRECISIONS]),
    st.sampled_from(sorted(PREFERENCES)),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(1, 40000),
    st.integers(1, 8000),
)
def test_any_question_is_planned_or_refused_and_the_same_twice(
    model, sku, precision, goal, gpus, prompt, answer
):
    question = Question(
        model, sku, precision, goal=goal, gpus=gpus, workload=Workload(prompt, answer)
    )
    found = plan(question)
    text = json.dumps(plan_text.as_json(found), sort_keys=True)
    assert text == json.dumps(plan_text.as_json(plan(question)), sort_keys=True)
    if isinstance(found, Refused):
        assert found.refusals
        return
    assert plot.svg(found) == plot.svg(found)
    assert found.cache.tokens >= found.limits.max_seq_len
    assert found.cache.tokens >= found.limits.max_batch_size * (prompt + answer)
    assert found.memory.kv_pool <= found.memory.free
    assert [one.batch for one in found.points] == sorted({one.batch for one in found.points})


def test_ours_is_near_what_was_published():
    """A floor under the roofline: a change that loses it must say so in the page as well."""
    found = [Checked(row, _share(row), None) for row in rows() if row.requests <= 1500]
    good, told = within(found, "ours")
    assert told > 80
    assert good / told > 0.85


def _share(row):
    tokens_per_s = predicted_tokens_per_s(row)
    return None if tokens_per_s is None else tokens_per_s / row.tokens_per_s


def test_the_report_says_what_is_not_modelled_and_what_is_off():
    by_layout = {row.table.layout: row for row in rows()}
    shares = {"tp": (1.4, 1.1), "dep": (None, None)}
    found = [Checked(row, *shares[layout]) for layout, row in by_layout.items()]
    text = "\n".join(report(found, "1.0"))
    assert "| all | 2 | 0 of 1 | 1 of 1 | 1 of 1 |" in text
    assert "not modelled" in text


def test_aiconfigurator_is_asked_only_where_it_has_a_table(monkeypatch):
    case = measured.Case("llama-3.1-8b", "l4", "fp8", 1, 1, 8, Workload())
    assert measured.estimate(case) == (
        "aiconfigurator-that-is-not-there is not installed: pip install aiconfigurator==0.12.0"
    )
    monkeypatch.setattr(measured, "installed", lambda: "9.9")
    assert str(measured.estimate(case)).endswith("9.9 has no table for l4")
    assert "aiconfigurator" not in sys.modules


class FakeApi(ModuleType):
    """aiconfigurator's API as far as we call it: answers a row, or refuses as it does."""

    def __init__(self, answer):
        super().__init__("aiconfigurator.cli.api")
        self.answer = answer
        self.asked = {}

    def cli_estimate(self, **arguments):
        self.asked = arguments
        print("loading tables")
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(get=lambda: self.answer)


@pytest.fixture
def api(monkeypatch):
    def install(answer):
        fake = FakeApi(answer)
        monkeypatch.setattr(measured, "installed", lambda: "9.9")
        monkeypatch.setitem(sys.modules, "aiconfigurator", ModuleType("aiconfigurator"))
        monkeypatch.setitem(sys.modules, "aiconfigurator.cli", ModuleType("aiconfigurator.cli"))
        monkeypatch.setitem(sys.modules, "aiconfigurator.cli.api", fake)
        return fake

    return install


def test_where_there_is_a_table_its_estimate_stands_beside_ours(api):
    fake = api({"ttft": 145.262, "tpot": 27.1574, "tokens/s": 14111.39})
    said = run("llama-3.1-8b", "--sku", "h100-sxm", "--goal", "throughput")
    assert "aiconfigurator 9.9 at batch" in said.stdout
    assert "TTFT 145.3 ms, TPOT 27.16 ms, 14111 tokens/s (ours " in said.stdout
    assert "loading tables" not in said.stdout + said.stderr
    assert fake.asked["system_name"] == "h100_sxm"
    assert fake.asked["gemm_quant_mode"] == fake.asked["kvcache_quant_mode"] == "fp8"
    body = json.loads(run("llama-3.1-8b", "--sku", "h100-sxm", "--json").stdout)
    assert body["aiconfigurator"]["tokens_per_s"] == 14111.4


@pytest.mark.parametrize("error", [ValueError("out of memory\nat 512"), RuntimeError(), KeyError()])
def test_what_aiconfigurator_refuses_is_said_in_one_line(api, error):
    api(error)
    said = run("llama-3.1-8b", "--sku", "h100-sxm")
    assert said.exit_code == 0
    line = next(line for line in said.stdout.splitlines() if line.startswith(measured.PACKAGE))
    assert line.endswith("out of memory" if str(error).startswith("out") else type(error).__name__)
