"""A replica that breaks: another of the same target is called before anybody else is."""

from __future__ import annotations

import pytest

from forebay.corridor import Corridor
from forebay.errors import EngineFailed, EngineUnavailable
from forebay.policy.admission import ReplicaSpec
from forebay.testing import FakeEngine, MemoryLedger, held, house, request
from forebay.values import Done, Failed, Scrape

NAMES = ("local", "second", "third")
"""Replicas of the target `local`, in the order in which equals are called."""

MOST = 4
DOCUMENT = {
    "models": {
        "local": {"triton": {}, "limits": {"max_inflight": MOST}},
        "other": {"triton": {}},
        "cloud": {"openai": {"model": "m"}},
    },
    "default": {"model": "local", "spill": "never"},
}


class Replicated(FakeEngine):
    """Breaks where its call goes to a replica of `broken`, after `error_after` words."""

    broken = frozenset()

    async def generate(self, call):
        self.error = EngineUnavailable("gone") if call.replica in self.broken else None
        if self.error is not None and self.error_after:
            self.error = EngineFailed("it broke off")
        async for chunk in FakeEngine.generate(self, call):
            yield chunk


async def walked(
    broken, *, after=0, spent=False, replicas=NAMES, full=(), broken_targets=(), **route
):
    """Return what became of one request, and its steps."""
    local, ledger = Replicated(error_after=after), MemoryLedger()
    local.broken = frozenset(broken)
    engines = {"local": local, "other": FakeEngine(), "cloud": FakeEngine()}
    for name in broken_targets:
        engines[name].error = EngineUnavailable("gone")
    document = {**DOCUMENT, "default": {**DOCUMENT["default"], **route}}
    made = house(engines, document, ledger=ledger)
    controller, now_s = made.admission.controller, made.clock.now_s()
    for name in replicas[1:]:
        replica = controller.join(ReplicaSpec(name, "local"), now_s)
        # Busier than the one that breaks, which is as idle as those that break are.
        controller.scraped(replica, Scrape(now_s, active=MOST if name in full else 1), 0)
    while spent and made.retries.spend():
        pass
    events = [event async for event in Corridor(made).run(request(stream=True))]
    assert held(made) == 0
    return events[-1], [
        f"{a.move}:{a.replica or a.target}:{a.outcome}" for a in ledger.records[0].attempts
    ]


BROKE = "first:local:engine_unavailable"


@pytest.mark.parametrize(
    ("why", "broken", "route", "expected"),
    [
        ("another one answers", {"local"}, {}, [BROKE, "failover:second:answered"]),
        ("or the one after", {"local", "second"}, {},
         [BROKE, "failover:second:engine_unavailable", "failover:third:answered"]),
        ("before the ladder", {"local"}, {"fallback": "other"},
         [BROKE, "failover:second:answered"]),
        ("before a cloud that is paid", {"local"}, {"spill": {"to": "cloud"}},
         [BROKE, "failover:second:answered"]),
        ("then the ladder", set(NAMES), {"fallback": "other"},
         [BROKE, "failover:second:engine_unavailable", "failover:third:engine_unavailable",
          "failover:other:answered"]),
        ("then the cloud", set(NAMES), {"spill": {"to": "cloud"}},
         [BROKE, "failover:second:engine_unavailable", "failover:third:engine_unavailable",
          "failover:cloud:answered"]),
    ],
)  # fmt: skip
async def test_another_replica_is_called_first(why, broken, route, expected):
    last, steps = await walked(broken, **route)
    assert isinstance(last, Done), why
    assert steps == expected, why


async def test_where_all_broke_the_client_is_told():
    last, steps = await walked(NAMES)
    assert isinstance(last, Failed)
    assert str(last.error) == "gone"
    assert len(steps) == len(NAMES), "each was called once"


async def test_one_alone_is_called_once():
    _, steps = await walked(NAMES, replicas=NAMES[:1])
    assert steps == [BROKE]


async def test_the_retry_budget_pays_for_it():
    last, steps = await walked({"local"}, spent=True)
    assert isinstance(last, Failed)
    assert steps == [BROKE]


@pytest.mark.parametrize(
    ("why", "route", "expected"),
    [
        ("the ladder", {"fallback": "other"}, "failover:other:answered"),
        ("the cloud", {"spill": {"to": "cloud"}}, "failover:cloud:answered"),
    ],
)
async def test_where_the_others_are_full_it_goes_on_as_if_the_target_stood_alone(
    why, route, expected
):
    last, steps = await walked({"local"}, full={"second", "third"}, **route)
    assert isinstance(last, Done), why
    assert (steps[0], steps[-1]) == (BROKE, expected), why


async def test_a_cloud_that_was_tried_is_not_spilled_to_from_another_replica():
    """Its ladder ends with the engine's own; what is left of that is another replica."""
    route = {"model": "other", "fallback": "local", "spill": {"to": "cloud"}}
    last, steps = await walked({"local"}, broken_targets=("other", "cloud"), **route)
    assert isinstance(last, Done)
    assert steps == [
        "first:other:engine_unavailable",
        "failover:cloud:engine_unavailable",
        "failover:local:engine_unavailable",
        "failover:second:answered",
    ]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("token", ["first:local:engine_failed"]),
        ("final", ["first:local:engine_failed", "failover:second:answered"]),
    ],
)
async def test_what_was_sent_is_not_said_again(stream, expected):
    last, steps = await walked({"local"}, after=2, stream=stream)
    assert isinstance(last, Done) is (stream == "final")
    assert steps == expected
