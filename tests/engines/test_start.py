"""How Triton is started: one process, or a rank for each GPU."""

import json
from pathlib import Path

import pytest
import standing
from click.testing import CliRunner

from enginebuild import build, start
from forebay.cli import main

REPOSITORY = Path("/models")


def test_one_gpu_is_one_triton_without_mpirun():
    words = start.command(REPOSITORY, 1, start.Ports(1, 2, 3))
    assert words[0] == start.TRITON
    assert {"--grpc-port=1", "--http-port=2", "--metrics-port=3"} <= set(words)
    assert not [word for word in words if word.startswith("--load-model")]
    assert "--disable-auto-complete-config" in words


def test_each_gpu_is_a_rank_and_only_the_first_loads_what_is_around():
    words = start.command(REPOSITORY, 4, start.Ports())
    assert words[0] == "mpirun"
    assert "--allow-run-as-root" not in words, "the image has a user of its own"
    served = " ".join(words[1:]).split(" : ")
    assert len(served) == 4
    for rank, one in enumerate(served):
        assert one.startswith(f"-n 1 {start.TRITON} --model-repository=/models ")
        assert ("--load-model=tensorrt_llm" in one) == (rank > 0)
        assert f"shm-region-prefix-name=forebay{rank}_" in one


@pytest.mark.parametrize(
    ("said", "world"),
    [
        ({"builder": "trtllm", "tp": 2, "pp": 2}, 4),
        ({"builder": "llmapi", "tp": 2, "pp": 1}, 1),
        ({"builder": "openvino"}, 1),
    ],
)
def test_ranks_are_the_manifests(said, world):
    assert start.ranks(said) == world


def test_the_command_reads_the_installed_engine(tmp_path):
    build(
        "llama-3.3-70b.h100-sxm-x2.fp8.throughput",
        repository=tmp_path / "models",
        weights=standing.checkpoint(tmp_path / "weights", "llama-3.3-70b"),
        toolbox=standing.toolbox(tmp_path / "bin"),
    )
    words = ["triton", "--repository", str(tmp_path / "models"), "--dry-run", "--json"]
    argv = json.loads(CliRunner().invoke(main, words).stdout)["argv"]
    assert argv[0] == "mpirun"
    assert argv.count(start.TRITON) == 2
    (tmp_path / "models/tensorrt_llm/1/engine/rank1.engine").write_text("changed")
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert "rank1.engine differs" in refused.stderr
