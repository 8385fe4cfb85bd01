"""The retry budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.retries import MOST, SHARE, RetryBudget


@given(st.lists(st.booleans(), max_size=400))
def test_retries_never_exceed_their_share_of_requests(wanted):
    """Each request may want to be tried again; however they do, the share holds."""
    budget, retried = RetryBudget(), 0
    for asked, again in enumerate(wanted, start=1):
        budget.asked()
        retried += again and budget.spend()
        assert retried <= MOST + SHARE * asked


def test_a_storm_is_not_fed_and_a_calm_pays_it_back():
    budget = RetryBudget(share=0.2, most=10)
    tries = 0
    for _ in range(1000):
        budget.asked()
        tries += budget.spend()
    assert tries == 209
    assert not budget.spend()
    for _ in range(5):
        budget.asked()
    assert budget.spend()
