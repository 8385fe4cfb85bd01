"""Load that goes past the router, and a metrics page that may lie: what admission cannot see."""

import http.server
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import tritonclient.grpc as triton

from forebay.edges.triton_metrics import parse
from forebay.values import Scrape

MODEL = "tensorrt_llm"
Mode = Literal["live", "frozen", "absent", "gone", "relabelled"]
"""What becomes of a page: as it is, an old one again and again, 404, nobody there, other names."""


def load_of(metrics: str) -> Scrape:
    """Return what Triton itself says of its load now."""
    with urllib.request.urlopen(metrics, timeout=5) as answer:
        scrape = parse(answer.read().decode(), MODEL, 0.0)
    assert scrape is not None
    return scrape


@contextmanager
def streams(address: str, count: int, *, tokens: int) -> Iterator[None]:
    """Keep so many streams at Triton's own port, with its own client; leaving cancels them."""
    client = triton.InferenceServerClient(address)
    client.start_stream(_unheard)
    try:
        for number in range(count):
            # No two prompts are alike: none is served out of another's cache.
            ids = np.arange(100 + 40 * number, 132 + 40 * number, dtype=np.int32)[None]
            client.async_stream_infer(MODEL, _inputs(ids, tokens), request_id=str(number))
        yield
    finally:
        client.stop_stream(cancel_requests=True)
        client.close()


def _unheard(**_: object) -> None:
    """Let an answer go: this load is there to be in the way."""


def _inputs(ids: np.ndarray, tokens: int) -> list[triton.InferInput]:
    said = {
        "input_ids": ids,
        "input_lengths": np.array([[ids.shape[1]]], dtype=np.int32),
        "request_output_len": np.array([[tokens]], dtype=np.int32),
        "min_tokens": np.array([[tokens]], dtype=np.int32),
        "streaming": np.array([[True]]),
    }
    made = []
    for name, value in said.items():
        one = triton.InferInput(name, value.shape, "BOOL" if name == "streaming" else "INT32")
        one.set_data_from_numpy(value)
        made.append(one)
    return made


def _of_engine(page: bytes) -> list[bytes]:
    return [line for line in page.splitlines() if line.startswith(b"nv_trt_llm_")]


class MetricsProxy:
    """A metrics page between Triton and a router.

    A page is as old as the asking for it, which nobody here sees, and no news where the engine has
    not stepped since the one before. `told_s` is before the last news was asked for: the router had
    not even the page before it yet.
    """

    def __init__(self, behind: str) -> None:
        self.mode: Mode = "live"
        self.told_s = self._passed_s = 0.0
        self._behind = behind
        self._page = b""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if proxy.mode == "gone":
                    self.close_connection = True
                    return
                page = proxy.page()
                self.send_response(404 if page is None else 200)
                self.send_header("content-length", str(len(page or b"")))
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def page(self) -> bytes | None:
        """Return the page as the router gets it; None stands for 404."""
        if self.mode == "absent":
            return None
        if self.mode == "frozen":
            return self._page
        before = _of_engine(self._page)
        with urllib.request.urlopen(self._behind, timeout=5) as answer:
            self._page = answer.read()
        if self.mode == "live":
            if _of_engine(self._page) != before:
                self.told_s = self._passed_s
            self._passed_s = time.monotonic()
        if self.mode == "relabelled":
            return self._page.replace(b"nv_trt_llm_", b"nv_llm_")
        return self._page

    def become(self, mode: Mode) -> None:
        """Change what is made of Triton's page from now on."""
        self.mode = mode
        if mode == "gone":
            self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
