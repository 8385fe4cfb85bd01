"""An engine that must not serve is refused by name; what nothing needs can go."""

import json
from dataclasses import replace

import pytest
import standing
from click.testing import CliRunner

from enginebuild import BuildError, commands, gc, install, machine, manifest
from enginebuild.verify import verify
from forebay.cli.engines import engines

BUILD = "llama-3.1-8b.h100-sxm.fp8.throughput"


@pytest.fixture
def installed(tmp_path):
    return standing.installed(tmp_path, BUILD)


def edited(engine, **changed):
    """Write a manifest that says something else, with a digest that fits it."""
    said = manifest.read(engine) | changed
    del said["digest"]
    digest = manifest.text_sha256(manifest.canonical(said))
    (engine / manifest.MANIFEST).write_text(manifest.canonical({**said, "digest": digest}))


def test_an_engine_on_its_own_sm_is_verified(tmp_path, installed):
    assert verify(tmp_path / "models", sm=90)["build"] == BUILD
    assert verify(tmp_path / "models", sku="h100-pcie")["build"] == BUILD


def corrupt(engine):
    (engine / "rank0.engine").write_bytes(b"bits fell over")


def lose(engine):
    (engine / "rank0.engine").unlink()


def other_tokenizer(engine):
    standing.write_tokenizer(engine / "tokenizer.json", 200_000)


def other_template(engine):
    (engine / "chat_template.jinja").write_text("{{ other }}")


def other_sm(engine):
    edited(engine, gpu={"name": "NVIDIA L4", "sm": 89, "driver": "590.44.01"})


def other_build(engine):
    edited(engine, build="another")


def other_models_tokenizer(engine):
    """The manifest agrees with it: a build that went wrong, and not a file that changed."""
    other_tokenizer(engine)
    path = engine / "tokenizer.json"
    files = manifest.read(engine)["files"]
    fresh = {"bytes": path.stat().st_size, "sha256": manifest.file_sha256(path)}
    edited(engine, files=files | {"tokenizer.json": fresh})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (corrupt, "rank0.engine differs from the one that was built"),
        (lose, "rank0.engine is missing"),
        (other_tokenizer, "tokenizer.json is not the one this engine was built with: prompts"),
        (other_template, "chat_template.jinja is not the one this engine was built with"),
        (other_sm, r"compiled on NVIDIA L4 \(SM89\), and this machine has SM90"),
        (other_build, "is from another build"),
        (other_models_tokenizer, "another model's tokenizer"),
    ],
)
def test_an_engine_that_must_not_serve_is_refused_by_name(tmp_path, installed, spoil, said):
    spoil(installed)
    with pytest.raises(BuildError, match=said):
        verify(tmp_path / "models", sm=90)


@pytest.mark.parametrize(
    ("sku", "said"),
    [("l4", "and l4 has SM89"), ("cpu-x86", "and cpu-x86 has no GPU")],
)
def test_another_sku_is_refused(tmp_path, installed, sku, said):
    with pytest.raises(BuildError, match=said):
        verify(tmp_path / "models", sku=sku)


def test_the_command_exits_1_with_the_sentence(tmp_path, installed):
    words = ["verify", "--repository", str(tmp_path / "models"), "--sku", "h100-sxm"]
    good = CliRunner().invoke(engines, [*words, "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["sm_compared"] is True
    corrupt(installed)
    bad = CliRunner().invoke(engines, words)
    assert bad.exit_code == 1
    assert "rank0.engine differs" in bad.stderr


def test_every_build_is_listed():
    rows = json.loads(CliRunner().invoke(engines, ["list", "--json"]).stdout)["builds"]
    assert {row["builder"] for row in rows} == {"openvino", "trtllm", "llmapi"}
    assert BUILD in CliRunner().invoke(engines, ["list"]).stdout


def test_gc_lists_what_is_left_and_removes_only_when_told(tmp_path, installed):
    scratch = tmp_path / "scratch"
    (scratch / "gone.h100-sxm" / "1-take").mkdir(parents=True)
    part = scratch / BUILD / "2-quantize.part"
    part.mkdir()
    (part / "half").write_bytes(b"x" * 100)
    staged = installed.parent / f"{install.STAGING}killed"
    staged.mkdir()
    words = ["gc", "--repository", str(tmp_path / "models"), "--scratch", str(scratch)]
    listed = json.loads(CliRunner().invoke(engines, [*words, "--json"]).stdout)
    assert {row["path"] for row in listed["leftovers"]} == {
        str(path) for path in (scratch / "gone.h100-sxm", part, staged)
    }
    assert part.exists()
    assert CliRunner().invoke(engines, [*words, "--remove"]).exit_code == 0
    assert not part.exists()
    assert not staged.exists()
    assert manifest.verify(installed)
    everything = CliRunner().invoke(engines, [*words, "--all", "--remove"])
    assert everything.exit_code == 0
    assert list(scratch.iterdir()) == []


def test_gc_looks_where_builds_of_this_home_worked(tmp_path, installed):
    left = tmp_path / "home" / "builds" / "gone.h100-sxm" / "1-take"
    left.mkdir(parents=True)
    said = {"FOREBAY_HOME": str(tmp_path / "home"), "FOREBAY_REPOSITORY": str(tmp_path / "models")}
    listed = json.loads(CliRunner(env=said).invoke(engines, ["gc", "--json"]).stdout)
    assert [row["path"] for row in listed["leftovers"]] == [str(left.parent)]


def test_gc_leaves_a_running_build_alone(tmp_path, installed):
    bench = tmp_path / "scratch" / BUILD
    (bench / "3-compile.part").mkdir()
    with install.alone(bench):
        assert gc.leftovers(tmp_path / "models", tmp_path / "scratch") == ()
        assert gc.forget(tmp_path / "scratch") == ()


@pytest.mark.parametrize(
    ("why", "gpus", "expected"),
    [
        ("one", "NVIDIA L4, 8.9, 590.44.01", ("NVIDIA L4", 89, 1)),
        ("two", "NVIDIA B200, 10.0, 590.44.01\nNVIDIA B200, 10.0, 5", ("NVIDIA B200", 100, 2)),
    ],
)
def test_the_machine_is_read_from_its_driver(tmp_path, monkeypatch, why, gpus, expected):
    monkeypatch.setenv("STANDIN_GPUS", gpus)
    found = machine.probe(standing.executable(tmp_path, "nvidia-smi"))
    assert (found.gpu_name, found.sm, found.gpus) == expected
    assert found == replace(found, driver="590.44.01")


@pytest.mark.parametrize("said", ["", "No devices were found"])
def test_a_machine_without_a_gpu_says_where_to_go(tmp_path, monkeypatch, said):
    monkeypatch.setenv("STANDIN_GPUS", said)
    with pytest.raises(BuildError, match=r"no GPU here that .* see docs/engines\.md"):
        machine.probe(standing.executable(tmp_path, "nvidia-smi"))
    with pytest.raises(BuildError, match="no GPU here"):
        machine.probe("no-such-nvidia-smi")


def test_tools_do_not_see_this_projects_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/opt/forebay/packages")
    log = tmp_path / "log"
    commands.run(["sh", "-c", "echo path=${PYTHONPATH:-none}"], log, print)
    assert log.read_text() == "$ sh -c echo path=${PYTHONPATH:-none}\npath=none\n"


def test_a_program_that_is_missing_is_named(tmp_path):
    with pytest.raises(BuildError, match="no-such-tool cannot be run: No such file"):
        commands.run(["no-such-tool"], tmp_path / "log", print)
