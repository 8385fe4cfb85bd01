"""How a policy says where an engine's replicas are."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.check import check
from forebay.policy.replicas import ReplicaAddress, address_fault, at, host_fault, page_fault
from forebay.policy.rules import Document, Lookup, Triton

ONE = ReplicaAddress("a:8001")


@pytest.mark.parametrize(
    ("why", "said", "static", "lookup"),
    [
        ("the stack's own", {}, (), None),
        ("one, the short form", {"address": "a:8001"}, (ONE,), None),
        ("one with its page", {"address": "a:8001", "metrics": "http://a:8002/metrics"},
         (ReplicaAddress("a:8001", "http://a:8002/metrics"),), None),
        ("several", {"replicas": ["a:8001", {"address": "b:8001", "metrics": "http://b/m"}]},
         (ONE, ReplicaAddress("b:8001", "http://b/m")), None),
        ("a name", {"replicas": {"dns": "n"}}, (),
         Lookup(dns="n", port=8001, metrics_port=8002, family="any")),
        ("a name without pages", {"replicas": {"dns": "n", "metrics_port": None}}, (),
         Lookup(dns="n", metrics_port=None)),
        ("a file", {"replicas": {"file": "r.yaml"}}, (), Lookup(file="r.yaml")),
    ],
)  # fmt: skip
def test_forms(why, said, static, lookup):
    rule = Triton.model_validate(said)
    assert (rule.static, rule.lookup) == (static, lookup), why


def said(**triton):
    models = {"here": {"triton": {"engine": "e", **triton}}}
    found = check(Document.model_validate({"models": models, "default": {"model": "here"}}))
    return [(".".join(map(str, f.path[2:])), f.message) for f in found]


@pytest.mark.parametrize(
    ("why", "triton", "expected"),
    [
        ("sound", {"replicas": ["a:1", "[::1]:1", {"address": "b:1", "metrics": "http://b:2/"}]},
         []),
        ("a sound name", {"replicas": {"dns": "llm.default.svc.cluster.local.", "port": 1}}, []),
        ("a sound file", {"replicas": {"file": "r.yaml"}}, []),
        ("one sound address", {"address": "a:1", "metrics": "https://a/m?x=1"}, []),
        ("an address that is none", {"address": "a"},
         [("triton.address", 'expected host:port, not "a"')]),
        ("a page that is none", {"metrics": "a:8002"},
         [("triton.metrics", 'expected a page like http://host:8002/metrics, not "a:8002"')]),
        ("a page with a password", {"metrics": "http://me:secret@a/m"},
         [("triton.metrics", "a metrics page takes no password")]),
        ("said twice", {"address": "a:1", "replicas": ["b:1"]},
         [("triton.address", "replicas: says where the engine is; address: goes there")]),
        ("a page beside", {"metrics": "http://a/", "replicas": ["b:1"]},
         [("triton.metrics", "replicas: says where the engine is; metrics: goes there")]),
        ("no engine", {"engine": None, "replicas": ["b:1"]},
         [("triton.replicas",
           "replicas: needs engine:, the directory with their tokenizer and limits")]),
        ("one twice", {"replicas": ["b:1", "c:1", "b:1"]},
         [("triton.replicas.2.address", "b:1 is listed twice")]),
        ("neither", {"replicas": {}},
         [("triton.replicas",
           "replicas: is a list, or has exactly one of dns, file; it has none")]),
        ("both", {"replicas": {"dns": "n", "file": "f"}},
         [("triton.replicas",
           "replicas: is a list, or has exactly one of dns, file; it has both")]),
        ("a port of no name", {"replicas": {"file": "f", "port": 1}},
         [("triton.replicas.port", "port: belongs to dns:")]),
        ("no name", {"replicas": {"dns": "not a name"}},
         [("triton.replicas.dns", 'expected a host\'s name, not "not a name"')]),
    ],
)  # fmt: skip
def test_findings_on_replicas(why, triton, expected):
    assert said(**triton) == expected, why


@pytest.mark.parametrize(
    ("address", "sound"),
    [
        ("a:1", True), ("a-b.c_d:65535", True), ("10.0.0.1:8001", True), ("[fe80::1]:1", True),
        ("a.:1", True), ("", False), (":1", False), ("a:", False), ("a:0", False),
        ("a:65536", False), ("a:" + "1" * 5_000, False),
        ("a:x", False), ("a:-1", False), ("a: 1", False), ("a b:1", False),
        ("::1:1", False), ("[::1]", False), ("[a]:1", False), ("a:1\n", False), ("a:\u0661", False),
        ("-a:1", False), ("a..b:1", False), ("x" * 64 + ":1", False), ("http://a:1", False),
        ("[::1%eth0]:1", True), ("a" + ".a" * 127 + ":1", False),
    ],
)  # fmt: skip
def test_addresses(address, sound):
    assert (address_fault(address) is None) is sound


@pytest.mark.parametrize(
    ("page", "sound"),
    [
        ("http://a/metrics", True), ("https://[::1]:1/m?x=y", True), ("http://a", True),
        ("ftp://a/", False), ("http://", False), ("//a/m", False), ("http://a:x/", False),
        ("http://a:99999/", False), ("http://a:0/", False), ("http://a/ b", False),
        ("http://a/\r\nX: y", False), ("http://[a/", False), ("http://é/", False),
    ],
)  # fmt: skip
def test_pages(page, sound):
    assert (page_fault(page) is None) is sound


@given(st.ip_addresses(), st.integers(1, 65_535), st.none() | st.integers(1, 65_535))
def test_what_a_name_resolves_to_is_an_address_and_a_page(ip, port, metrics_port):
    replica = at(str(ip), port, metrics_port)
    assert address_fault(replica.address) is None
    assert replica.metrics is None or page_fault(replica.metrics) is None
    assert (replica.metrics is None) is (metrics_port is None)


@given(st.text(max_size=40))
def test_no_text_breaks_the_checks(text):
    for fault in (host_fault, address_fault, page_fault):
        told = fault(text)
        assert told is None or (len(told) < 200 and "\n" not in told)


async def test_grpc_takes_what_is_sound():
    for address in ("a:1", "[::1]:1", "10.0.0.1:8001"):
        await grpc.aio.insecure_channel(address).close()
