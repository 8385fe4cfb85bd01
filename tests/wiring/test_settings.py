"""What the environment says: where the doors listen, and what is no address."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from forebay.cli.up import up
from forebay.edges.grpc_door import GrpcSettings
from forebay.edges.router_process import UNREACHABLE, http_status, reached
from forebay.errors import SettingsError
from forebay.wiring import Settings


def test_the_doors_listen_on_loopback_unless_told_otherwise():
    assert Settings.of({}).host == "127.0.0.1"
    assert Settings.of({"FOREBAY_HOST": ""}).host == "127.0.0.1"
    assert Settings.of({"FOREBAY_HOST": "::"}).host == "::"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"FOREBAY_HOST": "router.example"}, "FOREBAY_HOST is 'router.example'; it is the address"),
        ({"FOREBAY_GRPC_PORT": "0"}, "FOREBAY_GRPC_PORT is '0'; a port is a number"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(said, told):
    with pytest.raises(SettingsError, match=told):
        Settings.of(said)


def test_up_takes_no_host_that_is_no_address():
    told = CliRunner(env={"FOREBAY_HOST": "everywhere"}).invoke(up, [])
    assert told.exit_code == 2
    assert "'everywhere' is no IP address" in told.output


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1:7"), ("0.0.0.0", "0.0.0.0:7"), ("::1", "[::1]:7"), ("::", "[::]:7")],
)
def test_an_address_of_grpc_has_ipv6_in_brackets(host, address):
    assert GrpcSettings(host=host, port=7).address == address


@pytest.mark.parametrize(
    ("host", "found"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7"), ("gpu1", "gpu1")],
)
def test_who_listens_everywhere_is_found_on_loopback(host, found):
    assert reached(host) == found


async def test_a_supervisor_asks_where_its_router_listens():
    async def healthy(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(healthy, "127.0.0.2", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await http_status(port, "/healthz", "127.0.0.2") == 200
        assert await http_status(port, "/healthz") == UNREACHABLE
