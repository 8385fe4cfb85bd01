"""Admission on a real event loop: waiting, timers, cancellation, and what breaks half-way."""

import asyncio
from dataclasses import replace

import pytest

from forebay.edges.admission import LoopAdmission
from forebay.policy.admission import Ask, Controller, Open, Place, ReplicaSpec, Terms
from forebay.ports import Held
from forebay.testing import LoopClock
from forebay.values import Reason, Refuse, Scrape, Spill

PATIENT = Terms("patient", ttft_s=30.0)
HASTY = Terms("hasty", ttft_s=2.1, spill_to="cloud")
CLOUD = Place("cloud", expect_ttft_s=2.0, expect_tpot_s=0.01)


async def admission(slots=1, outside=None):
    made = Controller([Place("local", "local"), CLOUD], outside=outside)
    now_s = LoopClock().now_s()
    made.join(ReplicaSpec("r0", "local", max_batch=slots), now_s)
    return LoopAdmission(made, LoopClock())


def ask(terms=PATIENT, name="x", target="local"):
    return Ask(name, terms, target, 10, 10, LoopClock().now_s())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def nothing_left(made):
    state = made.controller.state
    assert not made._waiting
    assert (state.by_target.total(), state.by_class.total()) == (0, 0)
    assert all(len(pool.queue) == 0 for pool in state.pools.values())


async def test_a_place_that_is_given_back_goes_to_who_waits():
    made = await admission()
    first = await made.place(ask())
    second = asyncio.create_task(made.place(ask()))
    await settle()
    assert not second.done()
    first.lease.end("served")
    assert isinstance(await second, Held)
    second.result().lease.end("served")
    nothing_left(made)


async def test_a_lease_is_ended_once_and_is_deaf_afterwards():
    made = await admission(slots=2)
    first, second = await made.place(ask()), await made.place(ask())
    for _ in range(3):
        first.lease.end("served")
        first.lease.saw(1, LoopClock().now_s())
    assert made.controller.state.by_target["local"] == 1
    second.lease.end("served")
    nothing_left(made)


async def test_the_timer_sends_a_request_on_when_its_last_moment_comes():
    made = await admission()
    first = await made.place(ask())
    began_s = LoopClock().now_s()
    found = await asyncio.wait_for(made.place(ask(HASTY)), 5)
    assert isinstance(found, Spill)
    assert found.reason is Reason.TARGET_FULL
    assert 0.03 < LoopClock().now_s() - began_s < 2.0
    first.lease.end("served")
    nothing_left(made)


async def test_a_sooner_timer_replaces_a_later_one():
    made = await admission()
    first = await made.place(ask())
    late = asyncio.create_task(made.place(ask()))
    await settle()
    assert isinstance(await asyncio.wait_for(made.place(ask(HASTY)), 5), Spill)
    assert not late.done()
    first.lease.end("served")
    (await late).lease.end("served")
    nothing_left(made)


async def test_who_hangs_up_while_waiting_leaves_nothing_behind():
    made = await admission()
    first = await made.place(ask())
    waiting = [asyncio.create_task(made.place(ask(name=str(n)))) for n in range(20)]
    await settle()
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*waiting, return_exceptions=True)
    )
    first.lease.end("served")
    nothing_left(made)


async def test_a_place_given_in_the_turn_in_which_its_client_left_goes_to_the_next():
    made = await admission()
    first = await made.place(ask())
    leaves, stays = (asyncio.create_task(made.place(ask(name=n))) for n in ("leaves", "stays"))
    await settle()
    first.lease.end("served")
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    held = await asyncio.wait_for(stays, 5)
    held.lease.end("served")
    nothing_left(made)


async def test_a_thousand_clients_that_left_at_once_cost_no_stack():
    """Each place that is given to one of them is given back while places are being given."""
    made = await admission()
    first = await made.place(ask())
    waiting = [asyncio.create_task(made.place(ask(name=str(n)))) for n in range(1000)]
    await settle()
    for task in waiting:
        task.cancel()
    first.lease.end("served")
    await asyncio.gather(*waiting, return_exceptions=True)
    nothing_left(made)


class Breaks(Open):
    """A budget whose ledger is broken."""

    def bars(self, target, ask, usd, now_s):
        raise RuntimeError("no ledger")


async def test_a_decision_that_breaks_is_its_own_requests_and_nobody_elses():
    made = await admission(outside=Breaks())
    first = await made.place(ask())
    waits = asyncio.create_task(made.place(ask()))
    await settle()
    broken = [made.place(ask(HASTY, name=str(n))) for n in range(3)]
    ends = await asyncio.wait_for(asyncio.gather(*broken, return_exceptions=True), 5)
    assert [str(end) for end in ends] == ["no ledger"] * 3
    assert not waits.done()
    first.lease.end("served")
    (await waits).lease.end("served")
    nothing_left(made)


async def test_metrics_that_show_room_let_somebody_in():
    made = await admission(slots=4)
    [engine] = made.controller.state.pools["local"].replicas.values()
    made.scraped(engine, Scrape(LoopClock().now_s(), active=4), 0)
    waits = asyncio.create_task(made.place(ask()))
    await settle()
    assert not waits.done()
    made.scraped(engine, Scrape(LoopClock().now_s(), active=3), 0)
    (await asyncio.wait_for(waits, 5)).lease.end("served")
    nothing_left(made)


async def test_a_replica_that_goes_sends_its_waiters_on():
    made = await admission()
    first = await made.place(ask())
    waits = asyncio.create_task(made.place(ask()))
    await settle()
    [engine] = made.controller.state.pools["local"].replicas.values()
    made.controller.leave(engine)
    made.stirred()
    found = await asyncio.wait_for(waits, 5)
    assert isinstance(found, Refuse)
    assert found.reason is Reason.ENGINE_DOWN
    first.lease.end("served")
    nothing_left(made)


async def test_an_offer_reserves_nothing():
    made = await admission()
    for _ in range(3):
        assert made.offer(ask()).placement.replica == "r0"
    assert made.offer(replace(ask(), target="cloud")).placement.target == "cloud"
    nothing_left(made)


async def test_speeds_are_learnt_while_it_serves():
    made = await admission(slots=4)
    learning = asyncio.create_task(made.learn())
    held = await made.place(ask(replace(PATIENT, tpot_s=1.0)))
    at_s = LoopClock().now_s()
    for number in range(200):
        held.lease.saw(1, at_s + number * 0.002)
    await asyncio.sleep(0.7)
    [engine] = made.controller.state.pools["local"].replicas.values()
    assert engine.learnt
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    held.lease.end("served")
    nothing_left(made)


async def test_many_that_may_go_at_once_all_go_and_the_loop_goes_round_in_between():
    made = await admission()
    first = await made.place(ask())
    waiting = [asyncio.create_task(made.place(ask(name=str(n)))) for n in range(100)]
    await settle()
    made.controller.join(ReplicaSpec("r1", "local"), LoopClock().now_s())
    made.stirred()
    assert 0 < sum(1 for ticket in made._waiting if ticket.state == "waiting") < 100
    places = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    for held in (first, *places):
        held.lease.end("served")
    nothing_left(made)
