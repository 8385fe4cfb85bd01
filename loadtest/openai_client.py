"""The OpenAI user: `/v1/chat/completions` as a stream of server-sent events.

The protocol is read by httptools, the parser that the router's own HTTP door stands on, over
plain asyncio streams: a general HTTP client costs more for each event than the router does, and
the generator shares its core with it. Each request has a connection of its own, as each new
client has.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httptools
import orjson

from loadtest.outcome import Move
from loadtest.plan import PlanError
from loadtest.watch import Watch, watched

if TYPE_CHECKING:
    from loadtest.generator import RunClock
    from loadtest.outcome import Ended, Outcome
    from loadtest.work import Job

READ_BYTES = 1 << 16
HTTP_OK, TOO_MANY = 200, 429
NONSENSE = "NONSENSE"
OVERLOADED = "overloaded"
"""The reason of a refusal whose stream had been silent for so long that its status was spent."""


class OpenAISender:
    """Sends jobs to one router's HTTP door."""

    def __init__(self, url: str) -> None:
        try:
            split = urlsplit(url)
            self._port = split.port or 80
        except ValueError:
            split = urlsplit("")
        if split.scheme != "http" or split.hostname is None:
            raise PlanError(f"the HTTP door is at {url}, which is no address like http://HOST:PORT")
        self._host = split.hostname
        self._path = f"{split.path.rstrip('/')}/v1/chat/completions"

    async def ready(self, within_s: float = 10.0) -> bool:
        """Return whether somebody listens there within the time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while loop.time() < until_s:
            try:
                async with asyncio.timeout_at(until_s):
                    _, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:  # a timeout is one, too
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return True
        return False

    async def send(self, job: Job, clock: RunClock) -> Outcome:
        """Return the outcome of one job."""
        raw = self._raw(job)
        watch = Watch(job, clock)
        return await watched(watch, self._answered(raw, watch), job.patience_s)

    async def _answered(self, raw: bytes, watch: Watch) -> Outcome:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=READ_BYTES)
            writer.write(raw)
            return await _read(reader, watch)
        except OSError as error:
            return watch.outcome("failed", "CONNECTION", error.strerror or str(error))
        except httptools.HttpParserError:
            return watch.outcome("failed", "NO_HTTP", "the answer is no HTTP")
        finally:
            if writer is not None:
                writer.transport.abort()  # a hang-up is one: no half-read answer is waited for

    def _raw(self, job: Job) -> bytes:
        body = orjson.dumps(request(job))
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def request(job: Job) -> dict[str, Any]:
    """Return the body of a job; `explain` asks for the decision's numbers."""
    said: dict[str, Any] = {
        "model": job.model,
        "messages": [{"role": "user", "content": job.prompt}],
        "max_tokens": job.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "forebay": {"labels": dict(job.labels), "explain": True},
    }
    if job.exact:
        said["min_tokens"] = job.max_tokens
    if job.deadline_ms is not None:
        said["forebay"]["deadline_ms"] = job.deadline_ms
    return said


class Events:
    """What httptools calls back: the status, and the body cut at blank lines."""

    def __init__(self) -> None:
        self.whole = False
        self.body = b""
        self.ready: list[bytes] = []

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        *frames, self.body = (self.body + body).split(b"\n\n")
        self.ready += frames

    def on_message_complete(self) -> None:
        """Note that no more comes."""
        self.whole = True


async def _read(reader: asyncio.StreamReader, watch: Watch) -> Outcome:
    events = Events()
    parser = httptools.HttpResponseParser(events)
    while not events.whole:
        received = await reader.read(READ_BYTES)
        if not received:
            break
        parser.feed_data(received)
        status = parser.get_status_code()
        if status != HTTP_OK:
            continue
        for frame in events.ready:
            seen = watch.events
            ended = _frame(frame, watch)
            if ended is not None:
                return ended
            # A reader is slow with what it reads: the opening, comments and usage are no words.
            if watch.job.gap_s and watch.events > seen:
                await asyncio.sleep(watch.job.gap_s)
        events.ready.clear()
    if not events.whole:
        return watch.outcome("failed", "BROKEN_OFF", "the connection ended inside the answer")
    return _refused(watch, parser.get_status_code(), events.body)


def _frame(frame: bytes, watch: Watch) -> Outcome | None:
    """Take one event; return the outcome where it is the last that matters."""
    try:
        return _event(frame, watch)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return watch.outcome("failed", NONSENSE, f"an event cannot be read: {type(error).__name__}")


def _event(frame: bytes, watch: Watch) -> Outcome | None:
    if frame.startswith(b":"):
        return None  # a comment: the stream was silent for long, and its answer may still come
    data = frame.removeprefix(b"data: ")
    if data == b"[DONE]":
        return watch.outcome("served")
    said = orjson.loads(data)
    if "error" in said:
        reason = str(said["error"].get("code", ""))
        ended: Ended = "refused" if reason == OVERLOADED else "failed"
        return watch.outcome(ended, "STREAM_ERROR", reason)
    if usage := said.get("usage"):
        watch.prompt_tokens = usage["prompt_tokens"]
        watch.tokens = usage["completion_tokens"]
    if told := said.get("forebay"):
        _told(watch, told)
    for choice in said.get("choices", ()):
        if choice["delta"].get("content") and watch.came(1):
            return watch.outcome("hung_up")
    return None


def _told(watch: Watch, told: dict[str, Any]) -> None:
    if "target" in told:
        watch.moves.append(Move(told.get("move", ""), told["target"], told.get("reason", "")))
        watch.prompt_tokens = told.get("prompt_tokens", 0) or watch.prompt_tokens
        expected = told.get("predicted") or {}
        watch.predicted = {
            f"predicted_{figure}_ms": expected[f"{figure}_s"] * 1000
            for figure in ("ttft", "tpot")
            if f"{figure}_s" in expected
        }
        if "waited_s" in told:
            watch.predicted["queued_ms"] = told["waited_s"] * 1000
    timing = told.get("timing") or {}
    if timing.get("ttft_ms") is not None:
        watch.router_ttft_ms = timing["ttft_ms"]


def _refused(watch: Watch, status: int, body: bytes) -> Outcome:
    reason = ""
    with suppress(orjson.JSONDecodeError, AttributeError):
        reason = str(orjson.loads(body).get("error", {}).get("code") or "")
    if status == HTTP_OK:
        return watch.outcome("failed", "NO_END", "the stream ended without [DONE] or an error")
    return watch.outcome("refused" if status == TOO_MANY else "failed", f"HTTP {status}", reason)
