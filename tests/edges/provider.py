"""A provider that plays a script over a raw socket, byte for byte, and notes what it is asked."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from forebay.edges.cloud.openai import OpenAIEngine
from forebay.policy.rules import Cloud
from forebay.testing import LoopClock, request
from forebay.values import Call, Prepared, Sampling


def sse(*events):
    """Return events as they are written: objects as JSON, bytes as they are."""
    return b"".join(
        e if isinstance(e, bytes) else b"data: " + json.dumps(e).encode() + b"\n\n" for e in events
    )


def delta(finish=None, **said):
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def says(text):
    return delta(content=text)


def tool(index, arguments="", **more):
    """Return one piece of a tool call."""
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return delta(tool_calls=[{"index": index, "function": function, **more}])


def said(code, message="because", **more):
    """Return the JSON of an error."""
    return {"error": {"message": message, "code": code, "type": "t", **more}}


def head(status="200 OK", kind="text/event-stream", *more):
    lines = (f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close", *more)
    return "\r\n".join((*lines, "", "")).encode()


def error(status, body=None, *more):
    """Return a whole response that is an error."""
    written = (
        b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    return head(status, "application/json", f"content-length: {len(written)}", *more) + written


STOP = delta("stop")
USAGE = {
    "choices": [],
    "usage": {
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}
DONE = b"data: [DONE]\n\n"
HEAD = head()
CHUNKED = head("200 OK", "text/event-stream", "transfer-encoding: chunked")


def chunked(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@dataclass
class Provider:
    """`script` holds bytes to send and seconds to wait; `...` waits for the client to leave.

    `by_model` holds scripts of their own for models that are asked for by name.
    """

    script: tuple = ()
    by_model: dict = field(default_factory=dict)
    paths: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader, writer):
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            self.paths.append(first.split(" ")[1])
            told = dict(line.lower().split(": ", 1) for line in lines)
            self.headers.append(told)
            self.bodies.append(json.loads(await reader.readexactly(int(told["content-length"]))))
            self.asked.set()
            for step in self.by_model.get(self.bodies[-1].get("model"), self.script):
                if step is ...:
                    await reader.read()
                    self.left.set()
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


def openai(*script, **more):
    return serving(OpenAIEngine, *script, path="/v1", **more)


@asynccontextmanager
async def serving(adapter, *script, path="", key=None, stall_s=2.0, model="any"):
    """Yield an engine and the provider that it calls."""
    provider = Provider(script)
    async with listening(provider) as url:
        cloud = Cloud(model=model, base_url=f"{url}{path}")
        engine = adapter("cloud", cloud, key, LoopClock(), stall_s=stall_s)
        try:
            yield engine, provider
        finally:
            await engine.close()


@asynccontextmanager
async def listening(provider):
    """Let a provider be called, and yield its address."""
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def call(max_tokens=10, deadline_s=None, **changed):
    return Call(request(**changed), Prepared(3), max_tokens, deadline_s)


async def chunks(engine, asked=None):
    return [chunk async for chunk in engine.generate(asked or call())]


SAMPLED = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=7,
    seed=3,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    min_tokens=2,
    stop=("END",),
    bad=("no",),
    logprobs=True,
    end_id=5,
)
