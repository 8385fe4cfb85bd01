"""Nothing that was learnt keeps requests away for ever."""

from __future__ import annotations

import pytest
from policy.scene import CHAT, CLOUD, SPEED, ask, place, replica, scene

from forebay.policy.admission import Controller, Terms
from forebay.policy.admission.memory import ClassMemory, Memory
from forebay.values import Admit


def asked_all_day(made, every_s=60.0):
    """Ask once a minute for a day; return the kinds of decisions."""
    found, at_s = [], 0.0
    for _ in range(24 * 60):
        at_s += every_s
        made.refit(at_s)
        ticket, decided = place(made, ask(CHAT, at=at_s, prompt=10), at_s)
        while decided is None:
            decided = dict(made.drain(made.due_s())).get(ticket)
        found.append(type(decided))
        made.ended(ticket, "cancelled", at_s)
    return found


def test_a_margin_of_an_earlier_life_that_keeps_every_request_away_is_disproved_some_day():
    kept = ClassMemory(ttft=4.0, rate=4.0, output_tokens=50, mean_tokens=50, answers=500)
    made = scene(prior=SPEED.scaled(3))
    made.state.memory = Memory(classes={"chat": kept})
    assert Admit in asked_all_day(made)


@pytest.mark.parametrize("what", [{"ttft_spread_s": 0.6}, {"lag_s": 1.0}])
def test_an_idle_engine_that_once_was_mispredicted_is_called_again_some_day(what):
    made = scene()
    for name, value in what.items():
        setattr(replica(made), name, value)
    assert Admit in asked_all_day(made)


def test_a_cloud_that_kept_no_deadline_is_tried_again_once_that_is_old():
    made = Controller([CLOUD])
    for n in range(100):
        made.state.exits.clouds["cloud"].saw(9.0, 0.01, float(n))
    plain = Terms("chat", promised=False)
    for at_s in (200.0, 2_000.0, 100_000.0):
        asked = ask(plain, target="cloud", at=at_s, deadline_s=at_s + 5.0)
        ticket = made.ask(asked, at_s)
        ((_, decided),) = made.drain(at_s)
        made.ended(ticket, "cancelled", at_s)
    assert isinstance(decided, Admit)
