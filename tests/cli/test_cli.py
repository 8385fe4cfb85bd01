"""What the commands say when they are used wrongly: an exit status, a sentence, no traceback."""

import contextlib
import io
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from click.testing import CliRunner
from rich.console import Console

from forebay.cli import main, top

POLICY = """models: {here: {triton: {model: ensemble}}}
default: {model: here}
"""


def ran(*argv):
    """Run a command; whatever it raises but its own exit fails the test."""
    result = CliRunner().invoke(main, argv, catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("command", ["ask", "explain"])
@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["hi", "--seed", "9" * 23], "0<=x<=18446744073709551615"),
        (["hi", "--seed", "-1"], "is not in the range"),
        (["hi", "--max-tokens", "99999999999"], "1<=x<=2147483647"),
        (["hi", "--max-tokens", "0"], "1<=x<=2147483647"),
        (["hi", "--deadline-ms", "99999999999"], "1<=x<=2147483647"),
        (["hi", "--grpc-port", "0"], "1<=x<=65535"),
        (["hi", "--grpc-port", "65536"], "1<=x<=65535"),
        (["hi", "--raw", "--system", "be brief"], "cannot go with --system"),
        (["hi", "--schema", "SCHEMA", "--regex", "x"], "give one"),
        (["hi", "--schema", "LATIN1"], "is not UTF-8 text"),
        ([""], "it is empty; say what to ask"),
        (["\udcff"], "it is not UTF-8 text"),
        (["hi", "--system", "\udcff"], "it is not UTF-8 text"),
        (["hi", "--regex", "\udcff"], "it is not UTF-8 text"),
        (["hi", "--model", "\udcff"], "it is not UTF-8 text"),
        (["hi", "--task", "\udcff"], "it is not UTF-8 text"),
    ],
)
def test_a_request_that_cannot_be_sent_is_a_usage_error(tmp_path, command, argv, sentence):
    files = {"SCHEMA": b"{}", "LATIN1": b'{"title": "\xe9"}'}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    result = ran(command, *(str(tmp_path / word) if word in files else word for word in argv))
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["ask", "explain"])
def test_a_router_that_is_not_there_is_told_with_its_address(command):
    port = free_port()
    result = ran(command, "hi", "--grpc-port", port, "--json")
    assert result.exit_code == 1
    assert f"no router answers at 127.0.0.1:{port}; start one" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "UNAVAILABLE"


@contextlib.contextmanager
def grpc_server():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield str(port)
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def page(content):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield str(server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "door",
    [grpc_server(), page(b""), page(b"these are words\n"), page(b"\xff\n")],
    ids=["a gRPC port", "no such page", "another page", "not UTF-8"],
)
def test_top_says_what_gives_no_metrics(door):
    with door as port:
        result = ran("top", "--http-port", port)
    assert result.exit_code == 1
    assert f"http://127.0.0.1:{port}/metrics gives no metrics of a router (" in result.stderr


def test_top_without_a_router_names_the_address():
    port = free_port()
    result = ran("top", "--http-port", port)
    assert result.exit_code == 1
    assert f"no router answers at http://127.0.0.1:{port}/metrics" in result.stderr


@pytest.mark.parametrize("port", ["0", "65536"])
def test_top_takes_only_ports(port):
    assert ran("top", "--http-port", port).exit_code == 2


def test_top_says_which_engines_are_known_by_our_own_requests_alone():
    serves = {
        (("engine", "127.0.0.1:8001/tensorrt_llm"), ("target", "small")): 1.0,
        (("engine", "gpu:8001/tensorrt_llm"), ("target", "large")): 1.0,
    }
    scraped = {(("engine", "127.0.0.1:8001/tensorrt_llm"), ("what", "active")): 3.0}
    rows = top.engines({"forebay_serves": serves, "forebay_engine": scraped})
    assert rows == [
        {"engine": "127.0.0.1:8001/tensorrt_llm", "load": "scraped", "active": 3.0},
        {"engine": "gpu:8001/tensorrt_llm", "load": "own in flight only"},
    ]


def test_top_shows_whole_engine_names_and_names_refused_requests():
    refused = (("door", "grpc"), ("route", ""), ("status", "invalid"), ("target", ""))
    name = "127.0.0.1:8001/" + "long" * 10
    now = {
        "forebay_requests_total": {refused: 2.0},
        "forebay_engine": {
            (("engine", "a"), ("what", "kv")): 0.25,
            (("engine", name), ("what", "queue")): 3.0,
        },
    }
    assert [row["class"] for row in top.classes(now, {}, 1.0)] == ["(refused)"]
    told = io.StringIO()
    Console(file=told, width=40).print(top._table("engines", top.engines(now)))
    assert "…" not in told.getvalue()
    rows = [line.split("│") for line in told.getvalue().splitlines() if line.startswith("│")]
    assert name in "".join(row[1].strip() for row in rows)
    assert ["3", "-"] in [[cell.strip() for cell in row[3:5]] for row in rows]
    assert "kv" in told.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "p.yaml: no such file"),
        ("a: }\n", "p.yaml:1:4: not valid YAML: expected the node content, but found '}'"),
        ("nonsense: 1\n", "p.yaml:1:1: "),
    ],
)
def test_policy_check_tells_errors_on_stderr(tmp_path, content, sentence):
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_text(content)
    said = ran("policy", "check", str(path))
    assert (said.exit_code, said.stdout) == (1, "")
    assert sentence in said.stderr
    assert "FOREBAY_POLICY" not in said.stderr
    as_json = ran("policy", "check", str(path), "--json")
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    assert sentence in "\n".join(json.loads(as_json.stdout)["errors"])


def test_policy_check_tells_a_name_that_is_too_long():
    said = ran("policy", "check", "n" * 300)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "cannot be read: File name too long" in said.stderr


def test_policy_check_tells_a_good_policy_on_stdout(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(POLICY)
    said = ran("policy", "check", str(path))
    assert (said.exit_code, said.stderr) == (0, "")
    assert "policy" in said.stdout


def up(tmp_path, *argv):
    folders = [
        f"--{name}={tmp_path / name}" for name in ("home", "repository", "environment", "policy")
    ]
    return ran("up", *folders, *argv)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "no such file; name one with FOREBAY_POLICY"), ("nonsense: 1\n", "policy:1:1: ")],
)
def test_up_tells_a_wrong_policy_before_anything_is_made(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "policy").write_text(content)
    result = up(tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert not (tmp_path / "home").exists()


def test_up_names_both_variables_of_one_port(tmp_path):
    (tmp_path / "policy").write_text(POLICY)
    port = free_port()
    result = up(tmp_path, "--grpc-port", port, "--http-port", port)
    assert result.exit_code == 1
    assert f"FOREBAY_GRPC_PORT and FOREBAY_HTTP_PORT are both {port}" in result.stderr
