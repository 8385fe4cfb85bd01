"""Who is next: order, shares, and that nobody stands behind who cannot go anyway."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.scene import CHAT, PLAIN, PRIVATE, ask, filled, place, scene

from forebay.policy.admission import Place, Ticket
from forebay.policy.admission.controller import SPARE_TIMERS
from forebay.policy.admission.decide import LOOK
from forebay.policy.admission.queue import Queue
from forebay.values import Admit, Refuse, Spill


def ticket(number, leave_s=1.0, tier="", terms=CHAT):
    return Ticket(ask(terms, tier=tier, name=str(number)), number, leave_s)


def heads(queue, look=4, **more):
    return [one.number for one in queue.heads(look, **more)]


def test_who_may_not_leave_comes_first_then_who_must_leave_soonest():
    queue = Queue({})
    for one in (
        ticket(1, 3.0),
        ticket(2, 1.0),
        ticket(3, 9.0, terms=PRIVATE),
        ticket(4, 5.0, terms=PRIVATE),
        ticket(5, 1.0),
    ):
        queue.push(one)
    assert heads(queue) == [4, 3, 2, 5, 1]


def test_each_tier_is_looked_at_though_the_first_has_many():
    queue = Queue({"gold": 4.0, "free": 1.0})
    for number in range(10):
        queue.push(ticket(number, tier="gold"))
    queue.push(ticket(99, tier="free"))
    queue.charge(ticket(99, tier="free"), 1.0)
    assert heads(queue) == [0, 1, 2, 3, 99]


def test_tiers_that_nobody_named_share_one_line():
    queue = Queue({"gold": 1.0})
    for number in range(50):
        queue.push(ticket(number, tier=f"mine-{number}"))
    assert heads(queue) == [0, 1, 2, 3]


def test_a_ticket_that_does_not_wait_is_let_be():
    queue, here, other = Queue({}), ticket(1), ticket(1)
    queue.push(here)
    queue.remove(other)
    assert len(queue) == 1
    queue.remove(here)
    queue.remove(here)
    assert (len(queue), heads(queue)) == (0, [])


@given(
    weights=st.lists(st.floats(0.2, 8.0), min_size=2, max_size=4),
    costs=st.lists(st.floats(0.01, 5.0), min_size=30, max_size=120),
)
def test_a_tier_that_waits_gets_its_share_but_for_one_request_of_each(weights, costs):
    names = [f"t{n}" for n in range(len(weights))]
    queue = Queue(dict(zip(names, weights, strict=True)))
    for number in range(len(names) * (len(costs) + 1)):
        queue.push(ticket(number, tier=names[number % len(names)]))
    given_s = dict.fromkeys(names, 0.0)
    for cost in costs:
        first = next(queue.heads(1))
        queue.remove(first)
        queue.charge(first, cost)
        given_s[first.ask.tier] += cost
        for name, weight in zip(names, weights, strict=True):
            share_s = sum(given_s.values()) * weight / sum(weights)
            assert given_s[name] >= share_s - max(costs) * len(names)


def test_a_tier_that_was_alone_for_long_is_not_made_to_pay_for_it():
    queue = Queue({"a": 1.0, "b": 1.0})
    for number in range(1000):
        one = ticket(number, tier="a")
        queue.push(one)
        queue.remove(one)
        queue.charge(one, 1.0)
    for number in range(20):
        queue.push(ticket(number, tier="b"))
        queue.push(ticket(100 + number, tier="a"))
    served = []
    for _ in range(20):
        one = next(queue.heads(1))
        queue.remove(one)
        queue.charge(one, 1.0)
        served.append(one.ask.tier)
    assert 9 <= served.count("a") <= 11


def test_a_full_class_bars_nobody_behind_it():
    made = scene()
    few = replace(CHAT, route="few", max_inflight=1, ttft_s=0.9)
    filled(made, 1, terms=few)
    waiting = [place(made, ask(few, name=str(n))) for n in range(6)]
    assert all(found is None for _, found in waiting)
    # All six must leave before it, and none of them may go.
    [*inside] = filled(made, 7)
    late, found = place(made, ask(CHAT))
    assert found is None
    made.ended(inside[0], "served", 0.0)
    assert [(t, type(d)) for t, d in made.drain(0.0)] == [(late, Admit)]


def test_a_full_target_bars_no_other_of_the_same_engines():
    made = scene(place=Place("local", "local", max_inflight=2))
    made.state.places["other"] = Place("other", "local")
    inside = filled(made, 2, target="other") + filled(made, 6, target="other")
    for number in range(6):
        assert place(made, ask(replace(CHAT, ttft_s=0.9), name=str(number)))[1] is None
    late, found = place(made, ask(CHAT, target="other"))
    assert found is None
    made.ended(inside[0], "served", 0.0)
    assert [(t, type(d)) for t, d in made.drain(0.0)] == [(late, Admit)]


def test_when_one_of_a_full_class_ends_elsewhere_the_next_one_is_placed():
    made = scene()
    one = replace(CHAT, route="one", max_inflight=1)
    spilled, found = place(made, ask(replace(one, spill_to=None), target="cloud"))
    assert isinstance(found, Admit)
    waits, found = place(made, ask(one))
    assert found is None
    made.ended(spilled, "served", 0.1)
    assert made.stirred
    assert [(t, type(d)) for t, d in made.drain(0.1)] == [(waits, Admit)]


def test_who_stood_behind_the_first_few_is_looked_at_when_one_of_them_leaves():
    made = scene(kv_tokens=2_000)
    filled(made, 1, terms=CHAT, prompt=900)
    large = [place(made, ask(PRIVATE, prompt=1_500, name=str(n)))[0] for n in range(LOOK)]
    small, found = place(made, ask(PRIVATE, prompt=100))
    assert found is None
    made.forget(large[0])
    assert [(t, type(d)) for t, d in made.drain(0.0)] == [(small, Admit)]


@pytest.mark.parametrize(("terms", "kind"), [(CHAT, Spill), (PRIVATE, Refuse)])
def test_when_the_last_replica_goes_down_nobody_waits_for_it(terms, kind):
    made = scene()
    filled(made, 8)
    waiting = [place(made, ask(terms, name=str(n)))[0] for n in range(6)]
    [gone] = made.state.pools["local"].replicas.values()
    gone.health = gone.health.drained()
    made.changed(gone)
    assert [(t, type(d)) for t, d in made.drain(0.01)] == [(t, kind) for t in waiting]


def test_when_the_last_replica_leaves_its_streams_end_in_peace():
    made = scene()
    inside = filled(made, 8)
    waits, _ = place(made, ask())
    [gone] = made.state.pools["local"].replicas.values()
    made.leave(gone)
    assert [t for t, _ in made.drain(0.0)] == [waits]
    for one in inside:
        made.tokens(one, 2, 0.1)
        made.ended(one, "served", 0.2)
    assert (gone.own, gone.kv, gone.reserved) == (0, 0, 0)
    assert made.state.by_target.total() == 0


def test_a_replica_that_came_back_under_its_name_is_not_taken_out_for_the_old_one():
    made = scene()
    pool = made.state.pools["local"]
    old = pool.replicas["r0"]
    new = made.join(old.spec, 1.0)
    made.leave(old)
    assert list(pool.replicas.values()) == [new]


def test_timers_of_requests_that_wait_no_more_do_not_pile_up():
    made = scene()
    patient = replace(PLAIN, wait_s=86_400.0)
    for number in range(3 * SPARE_TIMERS):
        one, found = place(made, ask(patient, name=str(number)))
        assert isinstance(found, Admit)
        made.ended(one, "served", 0.0)
    assert len(made._timers) <= SPARE_TIMERS + 1
    assert made.due_s() is None
