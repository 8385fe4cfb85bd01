"""Load as it is counted and scraped."""

from __future__ import annotations

import asyncio
import http.server
import threading

import pytest

from forebay.edges.fleet import DOWN_AFTER, CountedFleet
from forebay.edges.triton_metrics import MetricsScraper, parse
from forebay.testing import ManualClock
from forebay.values import Scrape

PAGE = """# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 7
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 32
nv_trt_llm_request_metrics{model="other",request_type="active",version="1"} 99
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 2048
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm"} 0.25
nv_inference_count{model="tensorrt_llm",version="1"} 4
"""


def test_a_page_is_read_for_one_model():
    assert parse(PAGE, "tensorrt_llm", 5.0) == Scrape(
        at_s=5.0, active=7, waiting=2, max_requests=32, kv_used=0.25
    )


@pytest.mark.parametrize(
    ("why", "page"),
    [
        ("nothing", ""),
        ("another model", PAGE.replace('"tensorrt_llm"', '"elsewhere"')),
        ("relabelled", PAGE.replace("request_type", "kind")),
    ],
)
def test_a_page_without_the_model_is_no_scrape(why, page):
    assert parse(page, "tensorrt_llm", 5.0) is None, why


@pytest.fixture
def fleet():
    clock = ManualClock(100.0)
    return clock, CountedFleet(clock, {"short": "engine", "long": "engine", "far": "elsewhere"})


def test_targets_of_one_engine_meet_each_others_requests(fleet):
    clock, known = fleet
    lease = known.reserve("short", "chat")
    known.reserve("long", "chat")
    known.scraped("engine", Scrape(at_s=clock.now_s(), active=5), known.own("engine"))
    short, far = known.load("short", "chat"), known.load("far", "code")
    assert (short.own, short.own_of_class, short.own_at_poll, short.polled_active) == (2, 2, 2, 5)
    assert (far.own, far.polled_active, far.age_s) == (0, 0, None)
    lease.release()
    lease.release()
    assert known.load("short", "chat").own == 1
    assert known.inflight() == {"short": 0, "long": 1, "far": 0}


def test_a_scrape_grows_old(fleet):
    clock, known = fleet
    known.scraped("engine", Scrape(at_s=100.0), 0)
    clock.time_s = 103.0
    assert known.load("short", "chat").age_s == 3.0


def test_an_engine_is_down_after_failures_in_a_row_until_it_answers(fleet):
    clock, known = fleet
    assert set(known.unproven()) == {"long", "far"}
    known.served("short")
    known.served("far")
    assert known.unproven() == ()
    for _ in range(DOWN_AFTER - 1):
        known.failed("long")
    assert known.load("short", "chat").down_for_s is None
    known.failed("short")
    clock.time_s += 2
    assert known.unproven() == ("long",)
    assert known.load("short", "chat").down_for_s == 2
    known.served("long")
    known.failed("long")
    assert known.load("short", "chat").down_for_s is None


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_):
        pass


def scraper(url, clock=None, own=lambda: 0, take=print):
    return MetricsScraper(url, "tensorrt_llm", clock or ManualClock(), own=own, take=take)


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


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nshort",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + PAGE.replace(" 7\n", " +Inf\n").encode(),
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe" + PAGE.replace(" 7\n", " seven\n").encode(),
    ],
)
async def test_a_page_that_is_broken_is_no_scrape(answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await scraper(f"http://127.0.0.1:{port}/metrics").once() is None


async def test_a_request_that_ends_while_the_page_travels_is_not_somebody_elses():
    counts, taken = iter([32, 0]), asyncio.Queue()
    watching = scraper("", own=lambda: next(counts), take=lambda *said: taken.put_nowait(said))

    async def page():
        return Scrape(at_s=0.0, active=32)

    watching.once = page
    task = asyncio.create_task(watching.run())
    scrape, own = await taken.get()
    task.cancel()
    assert scrape.active - own == 0
