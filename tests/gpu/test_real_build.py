"""A real build and a smoke, in NVIDIA's container on a GPU. It has not run until someone runs it.

pytest -m gpu tests/gpu   (with FOREBAY_GPU_BUILD, FOREBAY_GPU_WEIGHTS and, where TensorRT-LLM's
examples lie elsewhere, FOREBAY_GPU_EXAMPLES)
"""

import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from enginebuild import build, start
from enginebuild.machine import probe
from enginebuild.toolbox import Toolbox
from enginebuild.verify import verify

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(3600)]
BUILD = os.environ.get("FOREBAY_GPU_BUILD", "smollm2-135m-instruct.h100-sxm.bf16.latency")
READY_S = 300.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if shutil.which("trtllm-build") is None:
        pytest.skip("trtllm-build is not here: run this in the image of Dockerfile.triton")
    home = tmp_path_factory.mktemp("gpu")
    weights = os.environ.get("FOREBAY_GPU_WEIGHTS")
    examples = os.environ.get("FOREBAY_GPU_EXAMPLES")
    build(
        BUILD,
        repository=home / "models",
        weights=Path(weights) if weights else None,
        toolbox=Toolbox(examples=Path(examples)) if examples else Toolbox(),
        progress=print,
    )
    return home / "models"


def test_the_engine_verifies_on_this_gpu(repository):
    assert verify(repository, sm=probe().sm)["build"] == BUILD


def test_triton_loads_it_and_generates(repository):
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

    said = verify(repository)
    config = repository / "tensorrt_llm" / "config.pbtxt"
    config.write_text(config.read_text().replace('"/models/', f'"{repository}/'))
    words = start.command(repository, start.ranks(said), start.Ports())
    with subprocess.Popen(words) as server:
        try:
            _await_ready(server)
            asked = pb.ModelInferRequest(model_name="ensemble")
            asked.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
            asked.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
            prompt = b"A dam stores"
            asked.raw_input_contents.append(len(prompt).to_bytes(4, "little") + prompt)
            asked.raw_input_contents.append((16).to_bytes(4, "little"))
            with grpc.insecure_channel("127.0.0.1:8001") as channel:
                stub = GRPCInferenceServiceStub(channel)
                answers = list(stub.ModelStreamInfer(iter([asked]), timeout=60))
        finally:
            server.kill()
    assert not [one.error_message for one in answers if one.error_message]
    assert any(one.infer_response.raw_output_contents for one in answers)


def _await_ready(server):
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        assert server.poll() is None, "Triton ended"
        try:
            with urllib.request.urlopen("http://127.0.0.1:8000/v2/health/ready", timeout=2):
                return
        except OSError:
            time.sleep(1)
    pytest.fail("Triton did not get ready")
