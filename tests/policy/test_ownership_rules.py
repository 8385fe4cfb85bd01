"""Who owns which replica: everyone agrees, all is owned, shares are fair, little moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.ownership import Holding, assign, holding

ROUTERS = st.sets(st.sampled_from([f"router-{n}" for n in range(8)]), min_size=1)
REPLICAS = st.frozensets(st.sampled_from([f"replica-{n}:8001" for n in range(20)]))


def same(routers, replicas):
    return dict.fromkeys(routers, replicas)


def counts(routers, owner):
    found = Counter(owner.values())
    return [found[router] for router in routers]


@given(ROUTERS, REPLICAS)
def test_every_replica_has_one_live_owner_and_shares_differ_by_at_most_one(routers, replicas):
    owner = assign(same(routers, replicas), {})
    assert owner.keys() == replicas
    assert set(owner.values()) <= routers
    assert max(counts(routers, owner)) - min(counts(routers, owner)) <= 1


@given(ROUTERS, REPLICAS, st.randoms(use_true_random=False))
def test_whoever_computes_it_finds_the_same(routers, replicas, random):
    listed = sorted(routers)
    random.shuffle(listed)
    assert assign(same(listed, replicas), {}) == assign(same(sorted(routers), replicas), {})


@given(ROUTERS, REPLICAS)
def test_it_stays_as_it_is_when_nothing_happens(routers, replicas):
    owner = assign(same(routers, replicas), {})
    assert assign(same(routers, replicas), owner) == owner


@given(ROUTERS, REPLICAS)
def test_a_router_that_joins_takes_its_share_and_nothing_else_moves(routers, replicas):
    before = assign(same(routers, replicas), {})
    after = assign(same({*routers, "new"}, replicas), before)
    moved = {r for r in replicas if after[r] != before[r]}
    assert all(after[r] == "new" for r in moved)
    assert len(moved) == len(replicas) // (len(routers) + 1)


@given(ROUTERS.filter(lambda r: len(r) > 1), REPLICAS, st.data())
def test_of_a_router_that_leaves_only_its_own_move(routers, replicas, data):
    before = assign(same(routers, replicas), {})
    gone = data.draw(st.sampled_from(sorted(routers)))
    left = routers - {gone}
    after = assign(same(left, replicas), before)
    assert {r for r in replicas if after[r] != before[r]} == {
        r for r in replicas if before[r] == gone
    }
    assert max(counts(left, after)) - min(counts(left, after)) <= 1


@given(ROUTERS, REPLICAS, st.data())
def test_from_any_state_no_more_moves_than_fairness_asks(routers, replicas, data):
    owners = st.sampled_from([*sorted(routers), "gone"])
    held = {r: data.draw(owners) for r in sorted(replicas)}
    after = assign(same(routers, replicas), held)
    kept = sum(after[r] == held[r] for r in replicas)
    each, odd = divmod(len(replicas), len(routers))
    holds = sorted((Counter(held.values())[r] for r in routers), reverse=True)
    assert kept == sum(min(h, each + (n < odd)) for n, h in enumerate(holds))


@given(st.dictionaries(st.sampled_from("abcd"), REPLICAS, min_size=1))
def test_nobody_owns_what_it_does_not_see(seen):
    owner = assign(seen, {})
    assert owner.keys() == frozenset().union(*seen.values())
    assert all(replica in seen[router] for replica, router in owner.items())
    assert assign(seen, owner) == owner


def test_where_one_sees_less_the_other_makes_room():
    seen = {"a": frozenset("123"), "b": frozenset("1234")}
    after = assign(seen, {"1": "b", "2": "b", "3": "a", "4": "a"})
    assert after["4"] == "b"
    assert Counter(after.values()) == {"a": 2, "b": 2}
    assert assign(seen, after) == after


def test_a_tie_is_not_always_the_same_routers():
    owners = {assign(same("ab", frozenset({f"r{n}"})), {})[f"r{n}"] for n in range(20)}
    assert owners == {"a", "b"}


R = frozenset({"r1", "r2", "r3"})


@pytest.mark.parametrize(
    ("why", "router", "seen", "held", "expected"),
    [
        ("one router", "a", {"a": R}, dict.fromkeys(R, "a"), Holding(R)),
        ("one router that has claimed nothing yet", "a", {"a": R}, {}, Holding(R)),
        ("two routers", "a", same("ab", R), {"r1": "a", "r2": "b", "r3": "b"},
         Holding(frozenset({"r1"}))),
        ("more routers than replicas: an owner", "a", same("abcd", R),
         {"r1": "a", "r2": "b", "r3": "c"}, Holding(frozenset({"r1"}), alone=False)),
        ("more routers than replicas: the rest", "d", same("abcd", R),
         {"r1": "a", "r2": "b", "r3": "c"}, Holding(R, alone=False)),
        ("the idle one sees others", "a", {"a": R, "b": frozenset({"r2"}), "c": frozenset({"r2"})},
         {"r1": "a", "r3": "a", "r2": "b"}, Holding(frozenset({"r1", "r3"}))),
        ("what it owns is out of its sight", "a",
         {"a": frozenset({"r2"}), "b": R}, {"r1": "a", "r2": "b", "r3": "b"},
         Holding(frozenset({"r2"}), alone=False)),
        ("it sees nothing", "a", {"a": frozenset(), "b": R}, dict.fromkeys(R, "b"),
         Holding(frozenset(), alone=False)),
    ],
)  # fmt: skip
def test_what_a_router_may_send_to(why, router, seen, held, expected):
    assert holding(router, seen, held) == expected, why
