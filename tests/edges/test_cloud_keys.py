"""Keys travel to their provider and nowhere else; the environment adds nothing of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from edges.anthropic_wire import anthropic, end, start
from edges.google_wire import STOP, google
from edges.provider import HEAD, chunks, error, openai, sse
from edges.provider import STOP as OPENAI_STOP
from pydantic import ValidationError

from forebay.edges.cloud import Key
from forebay.errors import EngineUnavailable
from forebay.policy.rules import Cloud

SECRET = "sk-proj-0123456789abcdef"
TESTS = Path(__file__).parent.parent

ADAPTERS = {
    "openai": (openai, sse(OPENAI_STOP), "authorization", "bearer "),
    "anthropic": (anthropic, start() + end(), "authorization", "bearer "),
    "google": (google, STOP, "x-goog-api-key", ""),
}
AMBIENT = {
    **dict.fromkeys(
        (
            *("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"),
            *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"),
            *("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_API_VERSION"),
            *("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"),
        ),
        "ambient",
    ),
    **dict.fromkeys(("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"), "true"),
    **dict.fromkeys(("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"), "X-Ambient: ambient"),
    **dict.fromkeys(
        ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"),
        "http://127.0.0.1:1/ambient",
    ),
}


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_the_key_travels_and_the_environment_does_not(adapter, monkeypatch, tmp_path):
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)
    serving, stream, header, before = ADAPTERS[adapter]
    place = tmp_path / "key"
    place.write_text(f"{SECRET}\n")
    async with serving(HEAD, stream, key=Key(f"file:{place}", {})) as (engine, provider):
        await chunks(engine)
        place.write_text("sk-turned")
        await chunks(engine)
    assert [told[header] for told in provider.headers] == [before + SECRET, f"{before}sk-turned"]
    assert "ambient" not in f"{provider.headers} {provider.paths}"
    async with serving(HEAD, stream) as (engine, provider):
        await chunks(engine)
    assert header not in provider.headers[0]
    assert "ambient" not in f"{provider.headers} {provider.paths}"


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("status", ["401 No", "403 No", "400 Bad", "500 Broken", "429 Full"])
async def test_no_error_shows_a_key(adapter, status, caplog):
    body = {"error": {"message": f"bad key {SECRET} or sk-pro***cdef", "type": "x"}}
    key = Key("env:CLOUD_KEY", {"CLOUD_KEY": SECRET})
    caplog.set_level("DEBUG")
    async with ADAPTERS[adapter][0](error(status, body), key=key) as (engine, _):
        with pytest.raises(Exception, match="cloud") as caught:
            await chunks(engine)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {key!r} {vars(engine)!r} {engine._sdk!r}"
    told = f"{shown} {caplog.text}"
    assert SECRET[:12] not in told
    assert "sk-pro***" not in told


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_key_that_is_not_there_calls_nobody(adapter):
    async with ADAPTERS[adapter][0](key=Key("env:NOPE", {})) as (engine, provider):
        with pytest.raises(EngineUnavailable, match="the key env:NOPE is not set"):
            await chunks(engine)
    assert provider.bodies == []


@pytest.mark.parametrize(
    ("source", "taken"),
    [
        ("env:OPENAI_API_KEY", True),
        ("env:_k2", True),
        ("file:/run/secrets/a key", True),
        (f"env:{SECRET}", False),
        ("env:2K", False),
        ("env:A B", False),
        ("env:", False),
        ("env:K\n", False),
        (SECRET, False),
    ],
)
def test_what_names_a_key(source, taken):
    if taken:
        assert Cloud(model="m", key=source).key == source
    else:
        with pytest.raises(ValidationError):
            Cloud(model="m", key=source)


LOUD = """
import asyncio, logging
from edges.provider import HEAD, call, chunks
from edges.test_cloud_keys import ADAPTERS, SECRET
from forebay.edges.cloud import Key
logging.basicConfig(level=logging.DEBUG)
async def main(adapter):
    serving, stream, *_ = ADAPTERS[adapter]
    async with serving(HEAD, stream, key=Key("env:K", {"K": SECRET})) as (engine, _):
        await chunks(engine, call(text="a secret prompt"))
    print(adapter)
for adapter in ADAPTERS:
    asyncio.run(main(adapter))
"""


def test_sdks_that_are_told_to_be_loud_log_no_key_and_no_prompt():
    loud = {"OPENAI_LOG": "debug", "ANTHROPIC_LOG": "debug"}
    found = subprocess.run(
        [sys.executable, "-c", LOUD],
        env={**os.environ, **loud, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.stdout.split() == list(ADAPTERS), found.stderr
    assert not re.search(f"{SECRET[:12]}|a secret prompt", found.stderr)


def test_only_the_adapters_that_a_policy_names_are_imported():
    code = (
        "import sys, forebay.wiring.engines\n"
        "print([n for n in ('openai', 'anthropic', 'google.genai') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"
