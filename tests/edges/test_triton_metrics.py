"""Metrics pages: what is read of them, when they are news, and what a broken one costs."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import itertools
import socket
import struct
import threading
from dataclasses import replace

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from forebay.edges.triton_metrics import MetricsScraper, parse
from forebay.edges.triton_metrics.http import LIMIT_BYTES, PageReader
from forebay.edges.triton_metrics.page import Freshness
from forebay.testing import ManualClock
from forebay.values import Scrape

BATCHER = "nv_trt_llm_inflight_batcher_metrics{inflight_batcher_specific_metric="
PAGE = f"""# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="waiting",version="1"}} 2
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="scheduled",version="1"}} 5
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="active",version="1"}} 7
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="max",version="1"}} 32
nv_trt_llm_request_metrics{{model="other",request_type="active",version="1"}} 99
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="max",model="tensorrt_llm",version="1"}} 2048
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="tensorrt_llm",version="1"}} 512
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="tokens_per",model="tensorrt_llm"}} 32.0
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="tensorrt_llm"}} 0.25
{BATCHER}"total_context_tokens",model="tensorrt_llm"}} 300
{BATCHER}"generation_requests",model="tensorrt_llm"}} 4
nv_trt_llm_general_metrics{{general_type="timestamp",model="tensorrt_llm"}} 1795000000000001.000000
nv_trt_llm_general_metrics{{general_type="iteration_counter",model="tensorrt_llm"}} 8123
nv_inference_pending_request_count{{model="tensorrt_llm",version="1"}} 3
nv_inference_pending_request_count{{model="other",version="1"}} 50
nv_inference_count{{model="tensorrt_llm",version="1"}} 4
"""

WHOLE = Scrape(
    at_s=5.0,
    active=7,
    waiting=2,
    scheduled=5,
    max_requests=32,
    kv_used=0.25,
    kv_blocks_max=2048,
    kv_blocks_used=512,
    tokens_per_block=32,
    context_tokens=300,
    generating=4,
    iterations=8123,
    stats_at_us=1795000000000001,
    pending=3,
)


def without(*words):
    return "".join(
        line for line in PAGE.splitlines(keepends=True) if not any(word in line for word in words)
    )


@pytest.mark.parametrize(
    ("why", "page", "changed"),
    [
        ("the whole page", PAGE, {}),
        ("lines that end in a time", PAGE.replace(" 7\n", " 7 1795000000000\n"), {}),
        ("a brace in a label", PAGE.replace('version="1"', 'version="}\\""'), {}),
        ("a backend that tells no share of KV", without("fraction"), {}),
        ("a backend that tells no waiting", without('"waiting"'), {}),
        ("neither waiting nor scheduled", without('"waiting"', '"scheduled"'),
         {"waiting": 0, "scheduled": 0}),
        ("no general family", without("general"), {"iterations": None, "stats_at_us": None}),
        ("no batcher", without("inflight"), {"context_tokens": 0, "generating": 0}),
        ("nothing of Triton's own", without("pending"), {"pending": 0}),
        ("a batcher's difference below nought", PAGE.replace(" 4\n", " -1\n", 1),
         {"generating": 0}),
        ("a share a little above one", PAGE.replace(" 0.25\n", " 1.0001\n"), {"kv_used": 1.0}),
    ],
)  # fmt: skip
def test_a_page_is_read_for_one_model(why, page, changed):
    assert parse(page, "tensorrt_llm", 5.0) == replace(WHOLE, **changed), why


@pytest.mark.parametrize(
    ("why", "page"),
    [
        ("nothing", ""),
        ("another model", PAGE.replace('"tensorrt_llm"', '"elsewhere"')),
        ("a label renamed", PAGE.replace("request_type", "kind")),
        ("a family renamed", PAGE.replace("nv_trt_llm_request", "nv_trtllm_request")),
        ("the KV family renamed", PAGE.replace("kv_cache_block_metrics", "kv_metrics")),
        ("KV without a size", without("fraction", '"max"')),
    ],
)
def test_a_page_without_the_models_load_is_no_scrape(why, page):
    assert parse(page, "tensorrt_llm", 5.0) is None, why


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf", "-1", "seven", "1e300", "0x7"])
@pytest.mark.parametrize("line", [" 7\n", " 0.25\n", " 8123\n", " 3\n"])
def test_one_impossible_number_makes_the_page_none(line, number):
    with pytest.raises(ValueError, match=r"tensorrt_llm has|could not convert"):
        parse(PAGE.replace(line, f" {number}\n"), "tensorrt_llm", 5.0)


@given(st.text(alphabet=st.sampled_from('nv_trt_lm{}="\\\n 71,#e.'), max_size=80))
def test_no_text_after_a_true_page_breaks_it(text):
    with contextlib.suppress(ValueError):
        assert parse(f"{PAGE}{text}\n", "tensorrt_llm", 5.0) is not None


# ---- news or not ------------------------------------------------------------------------------

IDLE = Scrape(0.0, iterations=10, stats_at_us=100, max_requests=32)
BUSY = replace(IDLE, active=3, scheduled=3)
STEPPED = replace(BUSY, iterations=11)


@pytest.mark.parametrize(
    ("why", "scrapes", "own", "expected"),
    [
        ("a stepping engine", [BUSY, STEPPED, replace(BUSY, iterations=12)], 0, [1, 1, 1]),
        ("only its timestamp moves", [BUSY, replace(BUSY, stats_at_us=101)], 0, [1, 1]),
        ("only its load moves", [BUSY, replace(BUSY, active=4)], 0, [1, 1]),
        ("it started anew and counts from nought", [BUSY, replace(BUSY, iterations=0)], 0, [1, 1]),
        ("an idle engine does not step", [IDLE, IDLE, IDLE], 0, [1, 1, 1]),
        ("one long step, or frozen", [BUSY, BUSY, BUSY, STEPPED], 0, [1, 0, 0, 1]),
        ("frozen idle, ours inside", [IDLE, IDLE, IDLE], 1, [1, 0, 0]),
        ("frozen idle, others wait in front", [IDLE, replace(IDLE, pending=1)], 0, [1, 0]),
        ("only Triton's own count moves",
         [BUSY, *(replace(BUSY, pending=n) for n in (1, 2))], 0, [1, 0, 0]),
        ("idle after phantoms of the last step", [BUSY, BUSY, STEPPED, IDLE, IDLE], 0,
         [1, 0, 1, 1, 1]),
        ("no general family, load moves",
         [replace(BUSY, iterations=None, kv_blocks_used=n) for n in (1, 2)], 4, [1, 1]),
        ("no general family, nothing moves", [replace(BUSY, iterations=None)] * 2, 4, [1, 0]),
    ],
)  # fmt: skip
def test_freshness(why, scrapes, own, expected):
    freshness = Freshness()
    assert [freshness.fresh(scrape, own) for scrape in scrapes] == list(map(bool, expected)), why


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.integers(0, 2))
def test_a_busy_engine_is_news_exactly_when_it_stepped(counts, own):
    freshness = Freshness()
    fresh = [freshness.fresh(replace(BUSY, iterations=count), own) for count in counts]
    stepped = [a != b for a, b in itertools.pairwise(counts)]
    assert fresh == [True, *stepped]


async def test_frozen_numbers_are_not_handed_on_and_come_back():
    clock, taken, inside = ManualClock(), [], [0]
    watching = MetricsScraper(
        "http://h/", "m", clock, own=lambda: inside[0], take=lambda s, own: taken.append((s, own))
    )
    told = IDLE

    async def page():
        return replace(told, at_s=clock.time_s)

    watching.once = page
    await watching.step()
    clock.time_s += 1
    await watching.step()
    assert [s.at_s for s, _ in taken] == [1000.0, 1001.0]
    assert watching.why_not is None
    inside[0] = 2
    for _ in range(8):
        clock.time_s += 1
        await watching.step()
    assert len(taken) == 2
    assert "do not change" in watching.why_not
    told = replace(BUSY, iterations=99)
    await watching.step()
    assert (taken[-1][0].at_s, taken[-1][1]) == (1009.0, 2)
    assert watching.why_not is None


async def test_a_request_that_ends_while_the_page_travels_is_not_somebody_elses():
    counts, taken = iter([32, 0]), []
    watching = scraper(own=lambda: next(counts), take=lambda *said: taken.append(said))

    async def page():
        return Scrape(at_s=0.0, active=32)

    watching.once = page
    await watching.step()
    [(scrape, own)] = taken
    assert scrape.active - own == 0


# ---- over the wire ----------------------------------------------------------------------------


def scraper(url="http://h/", clock=None, own=lambda: 0, take=print, **options):
    clock = clock or ManualClock()
    return MetricsScraper(url, "tensorrt_llm", clock, own=own, take=take, **options)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_):
        pass


async def test_a_scraper_reads_a_live_page_and_survives_its_end():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    watching = scraper(f"http://127.0.0.1:{server.server_port}/metrics")
    assert (await watching.once()).active == 7
    server.shutdown()
    server.server_close()
    thread.join()
    assert await watching.once() is None
    assert watching.why_not


WHOLE_PAGE = PAGE.encode()


def answer(body=WHOLE_PAGE, more=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


@contextlib.asynccontextmanager
async def server(serve):
    """Serve each connection; at the end, none is left open."""
    running = {}

    async def one(reader, writer):
        running[asyncio.current_task()] = writer.transport
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(one, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()
        for transport in running.values():
            transport.abort()
        await asyncio.gather(*running)
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def serving(answers):
    """Give each request, on any connection, the next answer; None closes instead."""
    said, connections, requests = iter(answers), [], []

    async def serve(reader, writer):
        connections.append(writer)
        while True:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            piece = next(said, None)
            if piece is None:
                return
            writer.write(piece)
            await writer.drain()
            if b"Content-Length" not in piece and b"chunked" not in piece:
                writer.write_eof()
                return

    async with server(serve) as base:
        yield f"{base}/metrics?all=1", connections, requests


async def test_one_connection_serves_many_scrapes():
    async with serving([answer()] * 5) as (url, connections, requests):
        reader = PageReader(url)
        assert {await reader.get(1.0) for _ in range(5)} == {PAGE.encode()}
        reader.close()
    assert len(connections) == 1
    assert requests[0].startswith(b"GET /metrics?all=1 HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_connection_closed_while_idle_is_opened_again_within_the_same_scrape():
    async with serving([answer(), None, answer(b"second")]) as (url, connections, _):
        reader = PageReader(url)
        assert await reader.get(1.0) == PAGE.encode()
        assert await reader.get(1.0) == b"second"
        reader.close()
    assert len(connections) == 2


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "page"),
    [
        (CHUNKED, b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (answer(b"bye", more=b"Connection: close\r\n"), b"bye"),
    ],
)
async def test_every_way_to_end_a_page(said, page):
    async with serving([said, said]) as (url, _, _):
        reader = PageReader(url)
        assert [await reader.get(1.0), await reader.get(1.0)] == [page, page]
        reader.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        answer(PAGE.replace(" 7\n", " +Inf\n").encode()),
        answer(b"\xff\xfe" + PAGE.replace(" 7\n", " seven\n").encode()),
    ],
    ids=range(8),
)
async def test_a_page_that_is_broken_is_no_scrape(said):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with server(serve) as base:
        watching = scraper(f"{base}/metrics")
        assert await watching.once() is None
        assert watching.why_not
        watching._reader.close()


@pytest.mark.parametrize(
    "said",
    [
        answer(b"x" * LIMIT_BYTES),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * LIMIT_BYTES),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * LIMIT_BYTES),
    ],
    ids=["body", "head", "to the end"],
)
async def test_a_page_that_is_too_large_is_not_read_to_its_end(said):
    async with serving([said]) as (url, _, _):
        with pytest.raises(ValueError, match="larger than 1,048,576 bytes"):
            await PageReader(url).get(1.0)


async def test_a_page_that_drips_is_given_up_in_time():
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with server(serve) as base:
        reader = PageReader(f"{base}/")
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await reader.get(0.1)
        assert asyncio.get_running_loop().time() - began < 5


async def test_a_watcher_that_is_cancelled_lets_go_of_its_connection():
    taken = asyncio.Queue()
    async with serving([answer()] * 9) as (url, connections, _):
        watching = scraper(url, take=lambda *said: taken.put_nowait(said), period_s=0.01)
        task = asyncio.create_task(watching.run())
        await taken.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(connections[0].wait_closed(), 1)


def test_a_connection_that_was_reset_while_idle_is_made_anew():
    """On uvloop, as in production: it raises where one writes to a connection that is gone."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    asked, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))

    def serve():
        for number in range(2):
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(answer)
            if number == 0:
                asked.wait(5)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    async def scrape(reader):
        pages = [await reader.get(5.0)]
        asked.set()
        async with asyncio.timeout(5):
            while not reader._open[1].is_closing():  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.001)
        pages.append(await reader.get(5.0))
        reader.close()
        return pages

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, listener:
        reader = PageReader(f"http://127.0.0.1:{listener.getsockname()[1]}/metrics")
        assert runner.run(scrape(reader)) == [b"ok", b"ok"]
        server.join(5)
