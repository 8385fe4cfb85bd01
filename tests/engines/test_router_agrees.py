"""What the builder writes and the router reads: the same facts, the same digest, no drift."""

import json

import pytest
import standing
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import manifest
from forebay.edges.triton import EngineFiles
from forebay.edges.triton.identity import mismatch
from forebay.errors import SettingsError

BUILDS = [
    "llama-3.1-8b.h100-sxm.fp8.throughput",
    "llama-3.3-70b.h100-sxm-x2.fp8.throughput",
]
LLMAPI = "llama-3.1-8b.h100-sxm.bf16.llmapi"


def installed(home, build_id=BUILDS[0]):
    return standing.installed(home, build_id)


def served(engine):
    text = (engine.parents[1] / "config.pbtxt").read_text()
    found = text_format.Parse(text, pb.ModelConfig()).parameters
    return {name: found[name].string_value for name in found if name.startswith("engine_")}


@pytest.mark.parametrize("build_id", BUILDS)
def test_a_router_that_reads_the_engine_knows_what_is_rendered_beside_it(tmp_path, build_id):
    engine = installed(tmp_path, build_id)
    said, rendered = EngineFiles.read(engine).stated, served(engine)
    assert mismatch("tensorrt_llm", "here", said, rendered) is None
    compared = set(said.parameters) & set(rendered)
    assert {
        "engine_sm",
        "engine_version_tensorrt_llm",
        "engine_version_tensorrt",
        "engine_tokenizer_sha256",
        "engine_chat_template_sha256",
        "engine_max_batch_size",
        "engine_max_num_tokens",
        "engine_max_input_len",
        "engine_max_seq_len",
        "engine_manifest_digest",
        "engine_build",
        "engine_tp",
    } <= compared
    assert set(said.parameters) <= compared, "the manifest says what config.pbtxt does not"
    for name in compared:
        assert "is other there" in mismatch("m", "here", said, rendered | {name: "other"}), name


def test_a_model_that_takes_text_is_refused_at_start(tmp_path):
    with pytest.raises(SettingsError, match=r"bf16\.llmapi, whose model in Triton takes text"):
        EngineFiles.read(installed(tmp_path, LLMAPI))


def test_only_the_files_it_reads_need_be_beside_the_manifest(tmp_path):
    engine = installed(tmp_path)
    (engine / "rank0.engine").unlink()
    assert EngineFiles.read(engine).stated.digest == manifest.read(engine)["digest"]


def other_tokenizer(engine):
    standing.write_tokenizer(engine / "tokenizer.json", 128_001)


def other_template(engine):
    (engine / "chat_template.jinja").write_text("{{ other }}")


def other_limits(engine):
    path = engine / "engine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_seq_len": 131_072}))


def other_sm(engine):
    path = engine / "manifest.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"gpu": said["gpu"] | {"sm": 89}}))


def no_object(engine):
    (engine / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_tokenizer, "tokenizer.json is not the one this engine was built with: prompts"),
        (other_template, "chat_template.jinja is not the one this engine was built with: conv"),
        (other_limits, "engine.json is not the one this engine was built with: its limits"),
        (other_sm, "manifest.json was changed after the build"),
        (no_object, "holds a broken engine"),
    ],
)
def test_a_router_refuses_files_that_are_not_the_engines(tmp_path, spoil, said):
    engine = installed(tmp_path)
    spoil(engine)
    with pytest.raises(SettingsError, match=said):
        EngineFiles.read(engine)


def test_an_engine_made_by_other_means_has_no_manifest_and_is_read(tmp_path):
    engine = installed(tmp_path)
    (engine / "manifest.json").unlink()
    assert EngineFiles.read(engine).stated is None
