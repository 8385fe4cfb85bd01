"""What a client's socket gets while verifiers judge, and when one of them breaks."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from edges.doors import http_door

from forebay.policy.verify import check
from forebay.testing import FakeEngine
from forebay.values import Release, Verdict

FACT = "The Treaty of Paris was signed in 1783."
RIGHT = ("The Treaty", " of Paris was", " signed in 1783 [a].")
WRONG = ("The Treaty", " of Paris was", " signed in 1784 [a].")


def document(*verify):
    return {"models": {"local": {"triton": {}}}, "default": {"model": "local", "verify": verify}}


async def sent(script, verify, verifier=None, *, stream=True, sources=True):
    """Return the bytes of an answer's body, as they came over the socket."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "When?"}], "stream": stream}
    if sources:
        body["forebay"] = {"sources": [{"id": "a", "text": FACT}]}
    async with http_door(FakeEngine(script), document=document(*verify)) as back:
        if verifier is not None:
            back.corridor._house = replace(back.house, verifier=verifier)
        reader, writer = await asyncio.open_connection("127.0.0.1", back.port)
        raw = json.dumps(body).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw
        )
        await writer.drain()
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
    return said.decode()


async def test_a_supported_answer_leaves_after_its_verdict():
    said = await sent(RIGHT, ("citations_required",))
    assert "signed in 1783 [a]." in said
    assert '"finish_reason":"stop"' in said.replace(" ", "")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("verify", [("citations_required",), ("grounding",)])
async def test_final_sends_no_byte_of_a_text_that_fails(verify, stream):
    said = await sent(WRONG, verify, stream=stream)
    assert not any(part.strip() in said for part in WRONG)
    assert "answer_refused" in said
    assert "stop" not in said


class Broken:
    """A verifier that does one thing wrong once a text is whole."""

    name = "grounding"

    def __init__(self, wrong, release):
        self.wrong, self.release = wrong, release

    def feed(self, text):
        return text

    def finish(self):
        if self.wrong == "raises":
            raise KeyError(FACT)
        if self.wrong == "late":
            time.sleep(0.06)
            return "", Verdict(self.name, "passed")
        return {"nonsense": None, "true": True, "pair": ("", "passed")}[self.wrong]


@pytest.mark.parametrize("wrong", ["raises", "late", "nonsense", "true", "pair"])
@pytest.mark.parametrize("release", list(Release))
async def test_a_verifier_that_breaks_fails_closed(wrong, release):
    def verifier(name, subject):
        return Broken(wrong, release) if name == "grounding" else check(name, subject)

    verify = ("grounding", "pii_redaction") if release is Release.WINDOW else ("grounding",)
    said = await sent(RIGHT, verify, verifier)
    if release is Release.FINAL:
        assert not any(part.strip() in said for part in RIGHT)
    else:
        assert 'content":"The' in said.replace(": ", ":")
    assert "answer_refused" in said
    assert '"stop"' not in said
    assert "KeyError(" not in said
