"""What a client's socket gets of an answer that is held against its sources."""

from __future__ import annotations

import asyncio
import json

import pytest
from edges.doors import http_door

from forebay.testing import FakeEngine

FACT = "The Treaty of Paris was signed in 1783."
RIGHT = ("The Treaty", " of Paris was", " signed in 1783 [a].")
WRONG = ("The Treaty", " of Paris was", " signed in 1784 [a].")


def document(*verify):
    return {"models": {"local": {"triton": {}}}, "default": {"model": "local", "verify": verify}}


async def sent(script, verify, *, stream=True):
    """Return the bytes of an answer's body, as they came over the socket."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "When?"}], "stream": stream}
    body["forebay"] = {"sources": [{"id": "a", "text": FACT}]}
    async with http_door(FakeEngine(script), document=document(*verify)) as back:
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
