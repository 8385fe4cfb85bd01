"""Starting and stopping: one stack a home, named ports, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys

import psutil

from forebay.cli.up import CHECKOUT, PORTS


def up(home, ports):
    """Run `forebay up` where it cannot serve and return (exit status, what it said)."""
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "forebay", "up", "--home", str(home)],
        env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_second_stack_on_the_same_home_is_refused_with_the_first_ones_pid(triton):
    status, said = up(triton.home, triton.ports)
    assert status == 1
    assert f"already runs on {triton.home} (pid {triton.up.pid})" in said


def test_a_busy_port_is_named_with_its_holder_and_the_variable_that_moves_it(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        status, said = up(tmp_path, dict.fromkeys(PORTS, 1) | {"FOREBAY_GRPC_PORT": port})
    assert status == 1
    assert f"port {port} is taken by" in said
    assert f"(pid {os.getpid()})" in said
    assert "FOREBAY_GRPC_PORT=" in said


def test_ctrl_c_leaves_no_process_port_or_region(start_stack):
    running = start_stack("--no-router")
    children = psutil.Process(running.up.pid).children(recursive=True)
    assert len(children) >= 2
    assert running.stop() == 0
    assert running.leftovers() == []
    assert not [child for child in children if psutil.pid_exists(child.pid)]


def test_a_killed_supervisor_takes_triton_with_it_and_the_next_start_sweeps(start_stack):
    running = start_stack("--no-router")
    children = psutil.Process(running.up.pid).children(recursive=True)
    running.up.send_signal(signal.SIGKILL)
    running.up.wait(10)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert running.leftovers() == []
