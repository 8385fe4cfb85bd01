"""Real Triton from nvidia-pytriton's wheel, as a program the supervisor keeps serving.

The wheel is used for its files only: a root of symlinks under the home gives tritonserver the
layout it expects. It runs on the stub environment (numpy below 2), whose interpreter's libpython
and standard library must be the ones it finds first. That version of Triton is older than the
security fixes of 25.07, so it listens on loopback only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

LOOPBACK = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where the kernel shows POSIX shared memory
STUB = "triton_python_backend_stub"
MODEL = "tensorrt_llm"
PROBE_S = 5.0

# What the model answers when its bounded queue is full: it is alive, and it is busy.
_BUSY = re.compile(r"queue", re.IGNORECASE)

# The engine's steps, under upstream's name: while it moves, a late answer means a long queue.
_ITERATION = re.compile(r'nv_trt_llm_general_metrics{[^}]*"iteration_counter"[^}]*} (\S+)')

_DESCRIBE = """
import json, sys, sysconfig as s
version = "%d.%d" % sys.version_info[:2]
print(json.dumps([s.get_path("purelib"), s.get_config_var("LIBDIR"), version]))
"""


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """Where one Triton lives; `home` must be its own, the repository may be shared."""

    home: Path
    environment: Path
    repository: Path
    grpc_port: int
    http_port: int
    metrics_port: int
    start_s: float = 180.0
    grace_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Installation:
    """The stub environment as its own interpreter describes it."""

    python: str
    site: Path
    libraries: str
    version: str


@dataclass(frozen=True, slots=True)
class TritonStart:
    """How to start tritonserver."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    python: str


def region_prefix(home: Path) -> str:
    """Return how this home's shared-memory regions begin: no other stack's do."""
    return f"forebay-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]}-"


def describe(environment: Path) -> Installation:
    """Ask the stub environment's interpreter where its files and its libpython are.

    Raises:
        SettingsError: it is missing or does not run; the message names the command that makes it.
    """
    python = environment / "bin" / "python"
    try:
        command = [str(python), "-I", "-c", _DESCRIBE]
        told = subprocess.check_output(command, stderr=subprocess.PIPE, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"{python} does not run ({error}). Make it with: make venv") from error
    site, libraries, version = json.loads(told)
    return Installation(str(python), Path(site), libraries, version)


def links(root: Path, installation: Installation) -> dict[Path, Path]:
    """Return each symlink of Triton's root with the wheel's file it points to."""
    wheel = installation.site / "pytriton" / "tritonserver"
    backend = root / "backends" / "python"
    shared = ("libtriton_python.so", "triton_python_backend_utils.py")
    return {
        root / "bin": wheel / "bin",
        root / "caches": wheel / "caches",
        **{backend / name: wheel / "backends" / "python" / name for name in shared},
        backend / STUB: wheel / "python_backend_stubs" / installation.version / STUB,
    }


def lay_root(root: Path, installation: Installation) -> None:
    """Make Triton's root of symlinks anew.

    Raises:
        SettingsError: the wheel lacks a file, which means the environment is not whole.
    """
    shutil.rmtree(root, ignore_errors=True)
    for link, target in links(root, installation).items():
        if not target.exists():
            raise SettingsError(
                f"{target} is missing, so the environment is not whole. "
                f"Make it again with: rm -r {installation.site.parents[2]} && make venv"
            )
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def arguments(settings: TritonSettings, root: Path) -> tuple[str, ...]:
    """Return tritonserver's path and arguments."""
    listen = {
        "grpc": settings.grpc_port,
        "http": settings.http_port,
        "metrics": settings.metrics_port,
    }
    return (
        str(root / "bin" / "tritonserver"),
        f"--model-repository={settings.repository}",
        f"--backend-directory={root / 'backends'}",
        f"--cache-directory={root / 'caches'}",
        *(f"--{door}-address={LOOPBACK}" for door in listen),
        *(f"--{door}-port={port}" for door, port in listen.items()),
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={max(1, int(settings.grace_s))}",
        f"--backend-config=python,shm-region-prefix-name={region_prefix(settings.home)}",
    )


def surroundings(inherited: Mapping[str, str], installation: Installation) -> dict[str, str]:
    """Return Triton's environment: the stub environment's interpreter, and no other, in reach."""
    kept = {k: v for k, v in inherited.items() if not k.startswith("PYTHON")}
    bin_folder = str(Path(installation.python).parent)
    return kept | {
        "PATH": f"{bin_folder}{os.pathsep}{inherited.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": installation.libraries,
    }


def one_token_request() -> service_pb2.ModelInferRequest:
    """Return the smallest real inference: one token in, one token out, streaming."""
    request = service_pb2.ModelInferRequest(model_name=MODEL, id="forebay-probe")
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    integers = {"input_ids": 1, "input_lengths": 1, "request_output_len": 1}
    for name, value in integers.items():
        request.inputs.add(name=name, datatype="INT32", shape=[1, 1])
        request.raw_input_contents.append(struct.pack("<i", value))
    request.inputs.add(name="streaming", datatype="BOOL", shape=[1, 1])
    request.raw_input_contents.append(b"\x01")
    return request


async def one_token(port: int) -> str:
    """Return "" when the engine decoded a token or is only busy, else what went wrong.

    The stream is read to its end: one that is open, or was cancelled, can pin the model and delay
    the server's exit.
    """

    async def requests() -> AsyncIterator[service_pb2.ModelInferRequest]:
        yield one_token_request()

    # Own connections: a shared one would carry over the back-off of earlier failures.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            told = [
                str(a.error_message)
                async for a in stub.ModelStreamInfer(requests(), timeout=PROBE_S)
            ]
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    if not told:
        return "the stream ended without an answer"
    return next((wrong for wrong in told if wrong and not _BUSY.search(wrong)), "")


def iteration(page: str) -> str:
    """Return the engine's own count of its steps on Triton's metrics page, "" if it has none."""
    found = _ITERATION.search(page)
    return found[1] if found else ""


def metrics_page(port: int) -> str:
    """Return Triton's metrics page, "" if it gives none."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_S)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def strays(prefix: str) -> list[psutil.Process]:
    """Return stub processes of an earlier Triton of this home that outlived it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        ours = any(word.startswith(prefix) for word in words)
        if ours and words[0].endswith(STUB):
            found.append(process)
    return found


class TritonProcess:
    """Triton as a program: what to lay out, how to start it, how to judge it, what to sweep."""

    name = "triton"

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self.log = settings.home / "logs" / "triton.log"
        self.start_s = settings.start_s
        self.grace_s = settings.grace_s
        self._iteration = ""

    def prepare(self) -> TritonStart:
        """Lay the root of symlinks and return how to start tritonserver on it."""
        root = self._settings.home / "triton"
        installation = describe(self._settings.environment)
        lay_root(root, installation)
        return TritonStart(
            arguments(self._settings, root),
            surroundings(os.environ, installation),
            installation.python,
        )

    async def ailment(self) -> str:
        """Return "" when a real inference went through, else what it met.

        One that came too late tells nothing while the engine goes on stepping for others.
        """
        wrong = await one_token(self._settings.grpc_port)
        if not wrong.startswith("DEADLINE_EXCEEDED"):
            return wrong
        page = await asyncio.to_thread(metrics_page, self._settings.metrics_port)
        before, self._iteration = self._iteration, iteration(page)
        return "" if self._iteration not in {"", before} else wrong

    def sweep(self) -> None:
        """Kill stubs that outlived their Triton and remove the regions it leaked."""
        prefix = region_prefix(self._settings.home)
        for process in strays(prefix):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for region in SHARED_MEMORY.glob(f"{prefix}*"):
            region.unlink(missing_ok=True)
