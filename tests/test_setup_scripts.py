"""What `make` says before anything is installed: which Python, what is wrong, what mends it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

distribution = importlib.import_module("distribution")
interpreter = importlib.import_module("interpreter")
machine = importlib.import_module("machine")
pip_failure = importlib.import_module("pip_failure")


def test_the_python_that_runs_the_tests_fits():
    assert interpreter.choose(sys.executable)[1] == ""


def test_a_python_that_does_not_run_is_named():
    assert interpreter.choose("/no/python") == ("", "/no/python does not serve: it does not run")


def test_another_version_is_skipped_and_named_where_nothing_else_is_found(tmp_path, monkeypatch):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\necho \'["/x", "it is Python 3.9"]\'\n')
    old.chmod(0o755)
    monkeypatch.setattr(interpreter, "CANDIDATES", (str(old),))
    assert interpreter.choose("") == ("", f"{old} does not serve: it is Python 3.9")
    monkeypatch.setattr(interpreter, "CANDIDATES", (str(old), sys.executable))
    assert interpreter.choose("")[0] == str(Path(sys.executable).resolve())


def test_a_full_disk_is_said_with_what_is_needed(tmp_path):
    what, remedy = machine.fault(tmp_path, needed_gib=10**9)
    assert f"free in {tmp_path}" in what
    assert "free some space" in remedy


def test_preflight_stops_with_one_sentence_and_the_command_that_mends_it():
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "preflight.py")],
        env={"PYTHON": "/no/python"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "/no/python does not serve" in done.stderr
    assert distribution.python_remedy() in done.stderr


@pytest.mark.parametrize(
    ("log", "what"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full."),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM", "another file than the one locked"),
        ("Retrying after connection broken by NewConnectionError", "cannot be reached"),
        ("CERTIFICATE_VERIFY_FAILED", "certificate is not trusted"),
        ("ERROR: No matching distribution found for x", "lacks a locked package"),
        ("Segmentation fault", "the end of its log"),
    ],
)
def test_each_failure_of_pip_has_its_sentence(log, what):
    assert what in pip_failure.explain(log)[0]


def test_no_network_is_told_before_the_missing_package_it_causes():
    log = "NewConnectionError\nERROR: No matching distribution found for x"
    assert "cannot be reached" in pip_failure.explain(log)[0]
