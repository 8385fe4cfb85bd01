"""Triton's argv, environment, root of symlinks and leftovers; no server is started."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from forebay.edges import triton_process as tp
from forebay.errors import SettingsError

SETTINGS = tp.TritonSettings(
    home=Path("/h"), environment=Path("/e"), repository=Path("/r"),
    grpc_port=1, http_port=2, metrics_port=3,
)  # fmt: skip


METRICS = """# TYPE nv_trt_llm_general_metrics gauge
nv_trt_llm_general_metrics{{general_type="timestamp",model="tensorrt_llm",version="1"}} 99
nv_trt_llm_general_metrics{{general_type="iteration_counter",model="tensorrt_llm",version="1"}} {}
"""


def wheel(site: Path, *, without: str = "") -> tp.Installation:
    """Lay empty files where the wheel has its own."""
    names = (
        "bin/tritonserver",
        "caches/local/cache.so",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        f"python_backend_stubs/3.11/{tp.STUB}",
    )
    for name in names:
        if without not in name or not without:
            path = site / "pytriton" / "tritonserver" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    return tp.Installation("/e/bin/python", site, "/lib/of/python", "3.11")


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("only loopback", "--grpc-address=127.0.0.1"),
        ("every door", "--http-address=127.0.0.1"),
        ("metrics too", "--metrics-address=127.0.0.1"),
        ("own ports", "--grpc-port=1"),
        ("configurations are ours", "--disable-auto-complete-config"),
        ("a drain ends", "--exit-timeout-secs=5"),
        (
            "own regions",
            f"--backend-config=python,shm-region-prefix-name={tp.region_prefix(Path('/h'))}",
        ),
    ],
)
def test_arguments(why, expected):
    assert expected in tp.arguments(SETTINGS, Path("/h/triton")), why


def test_a_short_grace_still_lets_triton_exit():
    assert "--exit-timeout-secs=1" in tp.arguments(replace(SETTINGS, grace_s=0.2), Path("/h"))


def test_two_homes_never_share_a_region_prefix(tmp_path):
    one, other = (tp.region_prefix(tmp_path / name) for name in ("a", "b"))
    assert not one.startswith(other)
    assert tp.region_prefix(tmp_path / "b" / ".." / "a") == one


def test_surroundings_put_the_stub_environment_first_and_no_other_python():
    inherited = {"PATH": "/usr/bin", "PYTHONPATH": "/x", "PYTHONHOME": "/y",
                 "LD_LIBRARY_PATH": "/z", "HOME": "/home"}  # fmt: skip
    made = tp.surroundings(inherited, tp.Installation("/e/bin/python", Path("/s"), "/l", "3.11"))
    assert made == {"PATH": "/e/bin:/usr/bin", "LD_LIBRARY_PATH": "/l", "HOME": "/home"}


def test_the_root_links_the_stub_of_the_running_version(tmp_path):
    installation = wheel(tmp_path / "lib" / "python3.11" / "site-packages")
    for _ in range(2):  # laid again at each start
        tp.lay_root(tmp_path / "root", installation)
    stub = tmp_path / "root" / "backends" / "python" / tp.STUB
    assert stub.resolve().parent.name == "3.11"
    assert (tmp_path / "root" / "bin" / "tritonserver").exists()


def test_a_torn_environment_names_what_is_missing_and_what_to_do(tmp_path):
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    with pytest.raises(SettingsError, match=r"libtriton_python.so is missing.*make venv"):
        tp.lay_root(tmp_path / "root", wheel(site, without="libtriton"))


def test_a_missing_environment_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(SettingsError, match="make venv"):
        tp.describe(tmp_path / "nothing")


def test_sweep_kills_own_stubs_and_removes_own_regions_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tp, "SHARED_MEMORY", tmp_path)
    settings = replace(SETTINGS, home=tmp_path / "home")
    own = tmp_path / f"{tp.region_prefix(settings.home)}1"
    other = tmp_path / f"{tp.region_prefix(tmp_path / 'elsewhere')}1"
    for region in (own, other):
        region.touch()
    fake_stub = tmp_path / tp.STUB
    fake_stub.symlink_to(sys.executable)
    sleep = [str(fake_stub), "-c", "import time; time.sleep(60)"]
    ours, theirs = (subprocess.Popen([*sleep, region.name]) for region in (own, other))
    try:
        tp.TritonProcess(settings).sweep()
        assert ours.wait(5) < 0
        assert theirs.poll() is None
        assert (own.exists(), other.exists()) == (False, True)
    finally:
        theirs.kill()
        theirs.wait()


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every stream with one prepared message."""

    def __init__(self, error: str) -> None:
        self.error = error
        self.asked: list[str] = []

    async def ModelStreamInfer(self, requests, _context):  # noqa: N802  the service names it
        async for request in requests:
            self.asked.append(request.model_name)
            yield service_pb2.ModelStreamInferResponse(error_message=self.error)


@pytest.mark.parametrize(
    ("why", "error", "ailment"),
    [
        ("a token", "", ""),
        ("a full queue is a living engine", "the queue of 64 requests is full", ""),
        ("a dead stub", "Stub process 'tensorrt_llm_0_0' is not healthy.", "not healthy"),
    ],
)
async def test_one_token_judges_by_the_answer(why, error, ailment):
    server, fake = grpc.aio.server(), FakeTriton(error)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        told = await tp.one_token(port)
    finally:
        await server.stop(0)
    assert fake.asked == ["tensorrt_llm"]
    assert (ailment in told) if ailment else told == "", why


@pytest.mark.parametrize(
    ("why", "steps", "ailments"),
    [
        ("a busy engine steps on", ("7", "9", "30"), (False, False, False)),
        ("a stuck one is found at the second look", ("7", "7", "7"), (False, True, True)),
        ("no metrics, no excuse", ("", "", ""), (True, True, True)),
    ],
)
async def test_a_late_token_counts_only_when_the_engine_stands_still(
    why, steps, ailments, monkeypatch
):
    async def late(_port):
        return "DEADLINE_EXCEEDED: too late"

    pages = iter(steps)
    monkeypatch.setattr(tp, "one_token", late)
    monkeypatch.setattr(tp, "metrics_page", lambda _port: METRICS.format(next(pages)))
    program = tp.TritonProcess(SETTINGS)
    assert [bool(await program.ailment()) for _ in steps] == list(ailments), why


async def test_one_token_says_unavailable_where_nobody_listens():
    assert (await tp.one_token(1)).startswith("UNAVAILABLE")
