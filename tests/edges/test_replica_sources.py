"""Where replicas are, as it changes: lists, names and files, and what keeps the last good set."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.edges.replicas import DnsReplicas, FileReplicas, StaticReplicas
from forebay.edges.replicas.dns import addresses
from forebay.edges.replicas.file import SIZE_MAX, listed
from forebay.errors import SettingsError
from forebay.policy.replicas import ReplicaAddress
from forebay.policy.rules import Lookup
from forebay.testing import ManualClock

ONE, TWO = ReplicaAddress("a:8001"), ReplicaAddress("b:8001", "http://b:8002/metrics")


async def test_a_list_is_told_once():
    told = []
    await StaticReplicas([ONE, TWO, ONE], told.append).run()
    assert told == [frozenset({ONE, TWO})]


@contextlib.asynccontextmanager
async def running(watching):
    task = asyncio.create_task(watching.run())
    async with asyncio.timeout(5):
        yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- names ------------------------------------------------------------------------------------


class Names:
    """A name server that says what a test tells it to: addresses, or an error to raise."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.gate = None

    def __call__(self, name, family):
        self.asked.append((name, family))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.gate is not None:
            self.gate.wait(5)
        if isinstance(answer, Exception):
            raise answer
        return frozenset(answer)


def watched(names, rule=None, **options):
    told, clock = [], ManualClock()
    rule = rule or Lookup(dns="triton.svc")
    return told, clock, DnsReplicas(rule, told.append, clock, resolve=names, **options)


def at(*ips):
    return frozenset(ReplicaAddress(f"{ip}:8001", f"http://{ip}:8002/metrics") for ip in ips)


async def test_every_address_of_a_name_is_a_replica_and_only_changes_are_told():
    names = Names(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.2"])
    told, _, watching = watched(names)
    for _ in range(4):
        await watching.once()
    assert told == [at("10.0.0.1", "10.0.0.2"), at("10.0.0.2")]


@pytest.mark.parametrize(
    ("rule", "family", "expected"),
    [
        (Lookup(dns="n"), socket.AF_UNSPEC,
         {ReplicaAddress("[fd00::1]:8001", "http://[fd00::1]:8002/metrics")}),
        (Lookup(dns="n", family="ipv6", port=9, metrics_port=None), socket.AF_INET6,
         {ReplicaAddress("[fd00::1]:9")}),
        (Lookup(dns="n", family="ipv4", metrics_port=7), socket.AF_INET,
         {ReplicaAddress("[fd00::1]:8001", "http://[fd00::1]:7/metrics")}),
    ],
)  # fmt: skip
async def test_ports_and_families(rule, family, expected):
    names = Names(["fd00::1"])
    told, _, watching = watched(names, rule)
    await watching.once()
    assert names.asked == [("n", family)]
    assert told == [frozenset(expected)]


@pytest.mark.parametrize("failure", [socket.gaierror(-2, "Name not known"), OSError("down"), []])
async def test_a_lookup_that_fails_keeps_the_last_set_and_its_age_grows(failure):
    told, clock, watching = watched(Names(["10.0.0.1"], failure, failure, ["10.0.0.3"]))
    assert watching.age_s is None
    await watching.once()
    clock.time_s += 30
    await watching.once()
    await watching.once()
    assert told == [at("10.0.0.1")]
    assert watching.age_s == 30
    await watching.once()
    assert told == [at("10.0.0.1"), at("10.0.0.3")]
    assert watching.age_s == 0


async def test_a_resolver_that_hangs_is_asked_by_one_thread_and_its_late_answer_is_taken():
    names = Names(["10.0.0.1"])
    names.gate = threading.Event()
    told, _, watching = watched(names, timeout_s=0.02)
    for _ in range(5):
        await watching.once()
    assert len(names.asked) == 1
    assert told == []
    names.gate.set()
    async with asyncio.timeout(5):
        while not told:
            await watching.once()
    assert told == [at("10.0.0.1")]


def test_a_loop_that_ends_meanwhile_does_not_wait_for_the_resolver():
    names = Names(["10.0.0.1"])
    names.gate = threading.Event()
    told, _, watching = watched(names, timeout_s=0.01)
    asyncio.run(watching.once())
    names.gate.set()
    for thread in threading.enumerate():
        if thread.name == "resolve triton.svc":
            thread.join(5)
    assert told == []


async def test_it_asks_over_and_over():
    told = asyncio.Queue()
    names = Names(["10.0.0.1"], OSError("down"), ["10.0.0.2"])
    rule = Lookup(dns="n")
    watching = DnsReplicas(rule, told.put_nowait, ManualClock(), resolve=names, period_s=0.001)
    async with running(watching):
        assert [await told.get(), await told.get()] == [at("10.0.0.1"), at("10.0.0.2")]


def test_the_systems_resolver():
    assert addresses("localhost", socket.AF_INET) == {"127.0.0.1"}
    with pytest.raises(OSError, match="label"):
        addresses("x" * 70, socket.AF_INET)


# ---- files ------------------------------------------------------------------------------------

GOOD = "- a:8001\n- {address: b:8001, metrics: 'http://b:8002/metrics'}\n"


@pytest.fixture
def file(tmp_path):
    told, path = [], tmp_path / "replicas.yaml"
    return told, path, FileReplicas(path, told.append, period_s=0.001)


async def looks(watching, times=2):
    for _ in range(times):
        await watching.once()


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        '["a:8001", {"address": "b:8001", "metrics": "http://b:8002/metrics"}]',
        "\ufeff# two\n- 'a:8001'\n- metrics: http://b:8002/metrics\n  address: b:8001\n",
    ],
)
async def test_a_list_in_yaml_or_json(file, content):
    told, path, watching = file
    path.write_text(content)
    assert watching.read() == {ONE, TWO}
    await watching.once()
    assert told == [frozenset({ONE, TWO})], "the first look is believed at once"
    await looks(watching, 5)
    assert len(told) == 1


async def test_an_edit_is_taken_when_it_has_settled(file):
    told, path, watching = file
    path.write_text(GOOD)
    await watching.once()
    path.write_text(GOOD[:9])
    await watching.once()
    path.write_text(GOOD + "- c:8001\n")
    await watching.once()
    assert len(told) == 1, "a half-written file removes nobody"
    await watching.once()
    assert told[1:] == [{ONE, TWO, ReplicaAddress("c:8001")}]


async def test_a_file_that_was_away_has_to_settle_too(file):
    told, path, watching = file
    path.write_text(GOOD)
    await watching.once()
    path.unlink()
    await watching.once()
    path.write_text(GOOD[:9])
    await watching.once()
    path.write_text(GOOD)
    await looks(watching)
    assert len(told) == 1


async def test_an_edit_that_changes_neither_size_nor_time_is_seen(file):
    import os

    told, path, watching = file
    path.write_text("- a:8001\n")
    before = path.stat()
    await watching.once()
    path.write_text("- b:8001\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await looks(watching)
    assert told[-1] == {ReplicaAddress("b:8001")}


async def test_one_that_is_drained_is_told_as_that(file):
    told, path, watching = file
    path.write_text(GOOD)
    await watching.once()
    path.write_text("- {address: a:8001, drain: true}\n- {address: b:8001, metrics: 'http://b:8002/"
                    "metrics', drain: false}\n")  # fmt: skip
    await looks(watching)
    assert told[1:] == [{ReplicaAddress("a:8001", drain=True), TWO}]


@pytest.mark.parametrize("broken", ["- a\n", "- [", "", "[]", None])
async def test_a_broken_edit_keeps_the_last_good_list(file, broken, capsys):
    told, path, watching = file
    path.write_text(GOOD)
    await watching.once()
    path.unlink() if broken is None else path.write_text(broken)
    capsys.readouterr()
    await looks(watching, 6)
    assert len(told) == 1
    said = capsys.readouterr()
    assert (said.out + said.err).count("replicas not read") == 1, "told once"
    path.write_text(GOOD)
    await looks(watching)
    assert len(told) == 1, "the same list again is no change"
    path.write_text("- c:8001")
    await looks(watching)
    assert told[1:] == [{ReplicaAddress("c:8001")}]


FORM = "host:port or {address: host:port, metrics: URL, drain: true}"


async def test_a_file_that_comes_later(tmp_path):
    told, path = asyncio.Queue(), tmp_path / "replicas.yaml"
    watching = FileReplicas(path, told.put_nowait, period_s=0.001)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        watching.read()
    async with running(watching):
        await asyncio.sleep(0.01)
        path.write_text(GOOD)
        assert await told.get() == {ONE, TWO}


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("a: 1", ["1:1: expected a list of replicas, each host:port or "
                  "{address: host:port, metrics: URL, drain: true}"]),
        ("[a:1", ["1:5: not valid YAML: expected ',' or ']', but got '<stream end>'"]),
        ("- a:1\n- a\n- a:1\n- {address: b:0, metrics: x}", [
            '2:3: expected host:port, not "a"',
            "3:3: a:1 is listed twice",
            '4:13: expected host:port, not "b:0"',
            '4:27: expected a page like http://host:8002/metrics, not "x"']),
        ("- {adress: a:1}\n- [a:1]\n- {address: [a]}\n- {address: a:1, address: b:1}", [
            "1:4: unknown key; known: address, metrics, drain",
            f"1:3: expected {FORM}",
            f"2:3: expected {FORM}",
            "3:13: expected a word",
            f"3:3: expected {FORM}",
            "4:18: the key address is here twice"]),
        ("- {address: a:1, drain: yes}", ["1:25: expected true or false"]),
        ('- "\\U55555555"', ["1:1: not valid YAML"]),
        (f"- a:{'9' * 5000}", [f'1:3: expected host:port, not "a:{"9" * 53}..."']),
        ("[" * 100_000, ["1:1: not valid YAML"]),
        ("- &a [*a]", [f"1:3: expected {FORM}"]),
        ("- a:1\n" * 1025, ["1:1: lists more than 1,024 replicas"]),
        ("#" * (SIZE_MAX + 1), [f"1:1: the file is larger than {SIZE_MAX:,} bytes"]),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path, content, sentences):
    with pytest.raises(SettingsError) as caught:
        listed(content.encode(), tmp_path / "r.yaml")
    said = [line.removeprefix(f"{tmp_path / 'r.yaml'}:") for line in str(caught.value).split("\n")]
    assert said == sentences


BITS = st.sampled_from(
    ["a:8001", "- ", "\n", "{", "}", "address", ": ", "[", "]", ", ", "'", "&a", "*a", "!!x",
     "metrics", "http://b/", "\x00", "é", "---\n", "? ", '"', "\\U55555555", "drain", "true"]
)  # fmt: skip


@given(st.lists(BITS, max_size=30).map("".join))
def test_no_content_breaks_it(tmp_path_factory, text):
    with contextlib.suppress(SettingsError):
        assert listed(text.encode(), tmp_path_factory.getbasetemp())
