"""Specs as data: what is there, that it is consistent, and that a slip is found at its line."""

import shutil
from pathlib import Path

import pytest

from enginebuild.errors import SpecError
from enginebuild.precision import PRECISIONS, allowed
from enginebuild.published import Published, deployment, rows
from enginebuild.spec import SPECS, Model, known, load, load_model, load_sku
from enginebuild.strict import read_file, read_named

MODELS = {
    "smollm2-135m-instruct": 0.135,
    "llama-3.1-8b": 8.03,
    "llama-3.3-70b": 70.6,
    "mistral-7b": 7.25,
    "mistral-small": 23.6,
    "qwen3-8b": 8.19,
    "qwen3-32b": 32.8,
    "mixtral-8x7b": 46.7,
    "gpt-oss-20b": 20.9,
}
SKUS = {
    "a10g": 86,
    "l4": 89,
    "l40s": 89,
    "a100-40": 80,
    "a100-80": 80,
    "h100-sxm": 90,
    "h100-pcie": 90,
    "h100-nvl": 90,
    "h200": 90,
    "b200": 100,
    "gb200": 100,
    "rtx-pro-6000": 120,
    "cpu-x86": None,
}


@pytest.mark.parametrize(("name", "billions"), MODELS.items())
def test_a_model_has_the_parameters_its_name_promises(name, billions):
    counted = load_model(name).architecture.parameters / 1e9
    assert counted == pytest.approx(billions, rel=0.01)


def test_the_skus_are_these():
    assert set(known("skus")) == set(SKUS)


@pytest.mark.parametrize(("name", "sm"), SKUS.items())
def test_a_sku_runs_what_its_sm_runs(name, sm):
    sku = load_sku(name)
    if sm is None:
        assert sku.gpu is None
        return
    assert sku.gpu is not None
    assert sku.gpu.sm == sm
    assert set(sku.precisions) == set(allowed(sm))


@pytest.mark.parametrize("name", known("skus"))
def test_a_rate_is_there_for_every_precision_of_a_sku(name):
    sku = load_sku(name)
    for precision in sku.precisions if sku.gpu else ():
        rates = {PRECISIONS[precision].linear_rate, PRECISIONS[precision].expert_rate}
        for rate in rates:
            assert getattr(sku.gpu.dense_tflops, rate) is not None, (precision, rate)


@pytest.mark.parametrize("kind", ["models", "skus"])
def test_every_figure_of_a_sku_and_every_model_names_its_source(kind):
    for path in (SPECS / kind).glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "#" in text, path
        if kind == "skus" and "gpu:" in text:
            for key in ("memory_gib", "memory_tb_s", "dense_tflops", "link", "power_w"):
                line = next(line for line in text.splitlines() if f"  {key}:" in line)
                assert "  # " in line, f"{path.name}: {key} has no source"


@pytest.mark.parametrize(
    ("why", "before", "after", "said"),
    [
        (
            "a key misspelt",
            "  layers: 32",
            "  layer: 32",
            "9:3: unknown key 'architecture.layer'; did you mean layers?",
        ),
        (
            "a key of the first level misspelt",
            "license:",
            "licence:",
            "3:1: unknown key 'licence'; did you mean license?",
        ),
        (
            "a negative size",
            "  kv_heads: 8",
            "  kv_heads: -8",
            "13:3: architecture.kv_heads: Input",
        ),
        (
            "a key nobody knows",
            "  kv_heads: 8",
            "  kv_heads: 8\n  kv_head: 8",
            "14:3: unknown key 'architecture.kv_head'; did you mean kv_heads?",
        ),
        (
            "a key nobody knows inside a union",
            "  kind: huggingface",
            "  kind: huggingface\n  revison: main",
            "6:3: unknown key 'source.huggingface.revison'; did you mean revision?",
        ),
        ("a source of no kind", "kind: huggingface", "kind: ftp", "source: Input tag 'ftp'"),
        ("no YAML", "name: Ll", "name: [Ll", "expected ',' or ']'"),
    ],
)
def test_a_slip_is_named_where_it_is(tmp_path, why, before, after, said):
    text = (SPECS / "models" / "llama-3.1-8b.yaml").read_text(encoding="utf-8")
    assert before in text
    path = tmp_path / "models" / "llama-3.1-8b.yaml"
    path.parent.mkdir()
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(SpecError) as told:
        read_named(path.parent, "llama-3.1-8b", Model)
    assert str(told.value).startswith(f"{path}:"), why
    assert said in str(told.value), why


@pytest.mark.parametrize(
    ("load_it", "name", "said"),
    [
        (load_model, "llama-3.1-8", "no model named 'llama-3.1-8'; did you mean llama-3.1-8b?"),
        (load_sku, "h100-smx", "no sku named 'h100-smx'; did you mean h100-sxm?"),
        (load_sku, "zzz", "no sku named 'zzz'"),
    ],
)
def test_a_name_that_is_not_there_names_the_nearest(load_it, name, said):
    with pytest.raises(SpecError) as told:
        load_it(name)
    assert str(told.value) == said


def test_a_build_for_openvino_refuses_a_model_without_a_package(tmp_path):
    specs = tmp_path / "engines"
    for kind in ("models", "skus", "builds"):
        shutil.copytree(SPECS / kind, specs / kind)
    path = specs / "builds" / "smollm2-135m-instruct.cpu-x86.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("smollm2-135m-instruct", "llama-3.1-8b"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"takes a gguf package, and llama-3.1-8b comes from hugg"):
        load("smollm2-135m-instruct.cpu-x86", specs)


def test_published_rows_are_read_strictly(tmp_path: Path):
    text = (SPECS / "validation" / "published.yaml").read_text(encoding="utf-8")
    path = tmp_path / "published.yaml"
    path.write_text(text.replace("    per: replica", "    pre: replica", 1), encoding="utf-8")
    with pytest.raises(SpecError, match=r"published\.yaml:"):
        read_file(path, Published)


def test_each_published_row_names_a_model_a_sku_and_a_precision_that_are_there():
    found = list(rows())
    assert len(found) > 200
    for row in found:
        assert deployment(row).gpus == row.table.tp * row.table.pp
