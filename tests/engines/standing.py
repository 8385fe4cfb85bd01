"""The stand-ins as a toolbox, and a checkpoint small enough to hash in no time."""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models

from enginebuild import build
from enginebuild.machine import Machine
from enginebuild.spec import load_model
from enginebuild.toolbox import Toolbox

STANDINS = Path(__file__).resolve().parent / "standins"
VERSIONS = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48", "cuda": "13.1.0.036"}
H100 = Machine("NVIDIA H100 80GB HBM3", 90, 8, "590.44.01", VERSIONS)


def toolbox(folder: Path, machine: Machine = H100) -> Toolbox:
    """Return the stand-ins; `folder` takes their executables."""
    return Toolbox(
        examples=STANDINS / "examples",
        called="stand-ins of TensorRT-LLM, which compile and decode nothing",
        mpirun=executable(folder, "mpirun"),
        trtllm_build=executable(folder, "trtllm-build"),
        fetch=executable(folder, "hf"),
        python=python(folder),
        machine=lambda: machine,
    )


def python(folder: Path) -> str:
    """Return this Python with the stand-in of the package tensorrt_llm in reach."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python3"
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH="{STANDINS / "packages"}" exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def executable(folder: Path, name: str) -> str:
    """Return a program that runs the stand-in of that name with this Python."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    script = STANDINS / f"{name.replace('-', '_')}.py"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def checkpoint(folder: Path, model_id: str = "llama-3.1-8b", **changed: object) -> Path:
    """Write a checkpoint of that model's shape, with few weights, and return its folder."""
    model = load_model(model_id)
    net = model.architecture
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": net.hidden_size,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.attention_heads,
        "num_key_value_heads": net.kv_heads,
        "vocab_size": net.vocab_size,
        **changed,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights of " + model_id.encode())
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    write_tokenizer(folder / "tokenizer.json", model.tokens.end_id)
    return folder


def write_tokenizer(path: Path, end_id: int) -> None:
    """Write a tokenizer of words that ends with that token."""
    words = {"[UNK]": 0, "hello": 1, "there": 2, "<end>": end_id}
    tokenizer = Tokenizer(models.WordLevel(vocab=words, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer.save(str(path))


def drive(build_id, home, weights, stop_at="", **environment):
    """Start a build in a process of its own, into `home`; it waits at that message to be killed."""
    words = [build_id, home / "models", home / "scratch", weights, stop_at]
    return subprocess.Popen(
        [sys.executable, str(STANDINS / "drive.py"), *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(STANDINS.parent), **environment},
    )


def kill_at(process, seen):
    """Read until `seen` is true of a line, then SIGKILL the build."""
    assert process.stdout is not None
    for line in process.stdout:
        if seen(line):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def installed(home: Path, build_id: str) -> Path:
    """Return an engine of a build, to spoil: a copy of one that was built once for all tests."""
    first, engine = _built(build_id)
    shutil.copytree(first, home, dirs_exist_ok=True, symlinks=True)
    return home / engine


@functools.cache
def _built(build_id: str) -> tuple[Path, Path]:
    """Return where a build was made, and its engine below."""
    home = Path(tempfile.mkdtemp(prefix="forebay-built-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    engine = build(
        build_id,
        repository=home / "models",
        scratch=home / "scratch",
        weights=checkpoint(home / "weights", build_id.partition(".h")[0]),
        toolbox=toolbox(home / "bin"),
    ).engine
    return home, engine.relative_to(home)
