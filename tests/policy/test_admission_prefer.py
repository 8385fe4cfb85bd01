"""Which of several equal first choices is taken: by cost, latency or quality, if it takes it."""

import pytest

from forebay.policy.admission import Offer
from forebay.policy.admission.prefer import prefer
from forebay.policy.rules import AnyOf
from forebay.values import Admit, Prediction, Queue, Reason, Refuse


def admit(usd, e2e_s=None):
    predicted = None if e2e_s is None else Prediction(0.1, 0.01, e2e_s)
    return Offer(Admit("x", predicted=predicted), usd)


FULL = Offer(Refuse("x", Reason.TARGET_FULL, "", 1.0), 0.0)
WAITS = Offer(Queue("x", Reason.TARGET_FULL, 1.0), 0.0)


@pytest.mark.parametrize(
    ("why", "by", "offers", "quality", "order"),
    [
        ("the cheapest", "cost", [admit(3.0), admit(1.0), admit(2.0)], {}, "bca"),
        ("the soonest", "latency", [admit(1, 3.0), admit(9, 1.0), admit(5, 2.0)], {}, "bca"),
        ("the best", "quality", [admit(1), admit(1), admit(1)], {"a": 0.5, "c": 0.9}, "cab"),
        ("equals keep the policy's order", "cost", [admit(1.0), admit(1.0), admit(0.5)], {}, "cab"),
        ("who is full comes last, free or not", "cost", [FULL, admit(9.0), admit(8.0)], {}, "cba"),
        ("so does who lets wait", "quality", [WAITS, admit(1), FULL], {"a": 1.0}, "bac"),
        ("nobody takes it: as listed", "cost", [FULL, WAITS, FULL], {}, "abc"),
        ("an unknown latency is the longest", "latency", [admit(1), admit(1, 9.0), FULL], {},
         "bac"),
    ],
)  # fmt: skip
def test_order(why, by, offers, quality, order):
    said = {name: quality.get(name) for name in "abc"}
    found = prefer(AnyOf(any_of=("a", "b", "c"), prefer=by), offers, said)
    assert "".join(found) == order, why
