"""The supervisor with small programs: started, judged, restarted, stopped, swept."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from forebay.edges.processes import State, Supervisor, host, supervisor
from forebay.edges.processes.host import bound, log_tail, rotate
from forebay.edges.processes.supervisor import back_off_s
from forebay.errors import SettingsError


@dataclass
class Start:
    argv: tuple[str, ...]
    environment: dict[str, str]
    python: str = sys.executable


@dataclass
class Script:
    """A program that serves once its file `ready` exists."""

    folder: Path
    code: str
    name: str = "script"
    start_s: float = 10.0
    grace_s: float = 5.0
    sweeps: int = 0
    states: list[State] = field(default_factory=list)

    @property
    def log(self):
        return self.folder / "logs" / "script.log"

    def prepare(self):
        return Start((sys.executable, "-c", self.code), {**os.environ, "READY": str(self.ready)})

    @property
    def ready(self):
        return self.folder / "ready"

    async def ailment(self):
        return "" if self.ready.exists() else "not yet"

    def sweep(self):
        self.sweeps += 1
        self.ready.unlink(missing_ok=True)

    async def reach(self, phase, times=1):
        async with asyncio.timeout(10):
            while True:
                told = [s for s in self.states if s.phase == phase]
                if len(told) >= times:
                    return told[-1]
                await asyncio.sleep(0.02)


SERVE = "import os, time; open(os.environ['READY'], 'w'); time.sleep(60)"
DEAF = "import signal; signal.signal(15, signal.SIG_IGN);"
WITH_CHILD = f"import subprocess; p = subprocess.Popen(['sleep', '60']); {SERVE}"


async def stopped(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("failures", "expected_s"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (8, 30), (10**6, 30)]
)
def test_back_off(failures, expected_s):
    assert back_off_s(failures) == expected_s


def test_a_large_log_is_set_aside_at_the_next_start(tmp_path):
    log = tmp_path / "x.log"
    for size, kept in ((10, True), (host.LOG_MOST_BYTES + 1, False)):
        log.write_bytes(b"x" * size)
        rotate(log)
        assert log.exists() is kept
    assert (tmp_path / "x.log.1").stat().st_size > host.LOG_MOST_BYTES


def test_the_tail_of_a_log_that_is_not_there_is_empty(tmp_path):
    assert log_tail(tmp_path / "none") == ""


def test_the_tail_of_a_log_begins_where_the_start_did(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("an error of yesterday\n")
    begin = rotate(log)
    with log.open("a") as file:
        file.write("an error of today\n")
    assert log_tail(log, begin) == "an error of today"


def test_a_log_past_its_bound_is_emptied_for_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "LOG_MOST_BYTES", 3)
    log = tmp_path / "x.log"
    for content, left in (("abc", "abc"), ("abcd", "")):
        log.write_text(content)
        bound(log)
        assert log.read_text() == left
    assert (tmp_path / "x.log.1").read_text() == "abcd"


async def test_a_log_that_cannot_be_emptied_does_not_end_the_watch(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PROBE_EVERY_S", 0.05)
    program = Script(tmp_path, SERVE)
    task = asyncio.create_task(Supervisor(program, program.states.append).run())
    await program.reach("serving")
    program.log.unlink()
    program.log.mkdir()
    monkeypatch.setattr(host, "LOG_MOST_BYTES", -1)
    await asyncio.sleep(0.3)
    assert [s.phase for s in program.states] == ["starting", "serving"]
    await stopped(task)
    assert program.states[-1].phase == "stopped"


async def test_a_killed_program_is_started_again_at_once_and_stopped_by_cancelling(tmp_path):
    program = Script(tmp_path, SERVE)
    task = asyncio.create_task(Supervisor(program, program.states.append).run())
    first = await program.reach("serving")
    os.kill(first.pid, signal.SIGKILL)
    second = await program.reach("serving", times=2)
    assert "SIGKILL; again in 0 s" in (await program.reach("restarting")).detail
    await stopped(task)
    assert [s.phase for s in program.states[-2:]] == ["stopping", "stopped"]
    assert not psutil.pid_exists(second.pid)


async def test_a_dead_child_restarts_the_whole_program(tmp_path):
    program = Script(tmp_path, WITH_CHILD)
    task = asyncio.create_task(Supervisor(program, program.states.append).run())
    first = await program.reach("serving")
    child = psutil.Process(first.pid).children()[0]
    child.kill()
    assert f"worker process {child.pid} died" in (await program.reach("restarting")).detail
    await program.reach("serving", times=2)
    assert not psutil.pid_exists(first.pid)
    await stopped(task)


async def test_failing_probes_in_a_row_restart_a_program_that_still_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PROBE_EVERY_S", 0.05)
    program = Script(tmp_path, SERVE)
    task = asyncio.create_task(Supervisor(program, program.states.append).run())
    await program.reach("serving")
    program.ready.unlink()
    assert "3 probes in a row failed (not yet)" in (await program.reach("restarting")).detail
    await stopped(task)


async def test_a_program_deaf_to_sigterm_is_killed_with_its_children_after_the_grace(tmp_path):
    program = Script(tmp_path, DEAF + WITH_CHILD, grace_s=0.2)
    task = asyncio.create_task(Supervisor(program, program.states.append).run())
    serving = await program.reach("serving")
    pids = [serving.pid, *(child.pid for child in psutil.Process(serving.pid).children())]
    await stopped(task)
    async with asyncio.timeout(5):
        await asyncio.gather(*map(host.ended, pids))
    assert (len(pids), program.sweeps) == (2, 2)


async def test_hurry_gives_up_the_grace(tmp_path):
    program = Script(tmp_path, DEAF + SERVE, grace_s=60)
    supervisor = Supervisor(program, program.states.append)
    task = asyncio.create_task(supervisor.run())
    await program.reach("serving")
    task.cancel()
    await program.reach("stopping")
    supervisor.hurry()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("why", "code", "start_s", "sentence"),
    [
        ("it exits", "print('no such thing'); raise SystemExit(3)", 10, "exit status 3"),
        ("it hangs", "import time; time.sleep(60)", 0.3, r"within 0.3 s \(not yet\)"),
    ],
)
async def test_a_first_start_that_fails_ends_the_supervisor_with_the_log(
    tmp_path, why, code, start_s, sentence
):
    program = Script(tmp_path, code, start_s=start_s)
    program.log.parent.mkdir()
    program.log.write_text("an error of an earlier run\n")
    with pytest.raises(SettingsError, match=sentence) as caught:
        await Supervisor(program, program.states.append).run()
    assert "earlier run" not in str(caught.value)
    if why == "it exits":
        assert "no such thing" in str(caught.value)


async def test_a_program_dies_with_its_supervisor(tmp_path):
    """The supervisor is killed, so nobody is left to stop the program: the kernel tells it."""
    code = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from test_processes import SERVE, Script; from forebay.edges.processes import Supervisor\n"
        "p = Script(Path(sys.argv[2]), SERVE)\n"
        "asyncio.run(Supervisor(p, lambda s: print(s.phase, s.pid, flush=True)).run())"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert supervisor.stdout is not None
    _, pid = (await supervisor.stdout.readline()).split()
    assert (await supervisor.stdout.readline()).startswith(b"serving")
    supervisor.kill()
    await supervisor.wait()
    async with asyncio.timeout(5):
        await host.ended(int(pid))
