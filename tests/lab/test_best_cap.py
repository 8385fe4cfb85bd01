"""The search for the best cap finds what playing every cap would, whatever the curve."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.lab.best_cap import PATIENCE, Tried, best_cap

OFFERED, MOST = 1000, 128


def searched(attainment, usd, wanted=0.99):
    """Return the cap found on two curves over caps, and the caps that were played."""
    played = []

    def play(cap, *, missed_max, usd_max):
        played.append(cap)
        missed = OFFERED * (1.0 - attainment(cap))
        through = missed <= missed_max and usd(cap) <= usd_max
        return Tried(attainment(cap) if through else None, usd(cap), reached=True)

    found = best_cap(play, MOST, wanted, OFFERED)
    assert len(played) == len(set(played)), "each cap once"
    return found, played


@pytest.mark.parametrize("knee", [1, 2, 17, 34, 100, 128])
def test_it_is_the_highest_before_too_many_miss(knee):
    found, played = searched(lambda cap: 0.995 if cap <= knee else 0.9, lambda cap: 200 - cap)
    assert found == knee
    assert max(played) >= min(MOST, knee + PATIENCE)


@pytest.mark.parametrize("best", [1, 6, 40, 128])
def test_where_none_attains_it_is_the_one_that_attains_most(best):
    found, _ = searched(lambda cap: 0.9 - abs(cap - best) / 1000, lambda cap: 200 - cap)
    assert found == best


def test_attaining_more_than_is_wanted_makes_no_cap_better():
    found, _ = searched(lambda cap: 1.0 - cap / 1000, lambda cap: 200 - cap, wanted=0.95)
    assert found == 50


@settings(max_examples=25)
@given(st.lists(st.integers(-3, 3), min_size=MOST + 1, max_size=MOST + 1), st.integers(20, 60))
def test_luck_that_differs_from_cap_to_cap_hides_nothing_near_the_knee(luck, knee):
    def attainment(cap):
        return 0.99 - (cap - knee + luck[cap]) / 1000

    found, _ = searched(attainment, lambda cap: 200 - cap)
    attaining = [cap for cap in range(1, MOST + 1) if attainment(cap) >= 0.99]
    assert found == max(attaining)


def test_caps_above_one_that_nobody_met_are_not_played():
    played = []

    def play(cap, *, missed_max, usd_max):
        played.append(cap)
        return Tried(1.0, max(0.0, 9.0 - cap), reached=cap < 9)

    assert best_cap(play, MOST, 0.99, OFFERED) >= 9
    assert max(played) == played[0], "all above the first are the same run"
