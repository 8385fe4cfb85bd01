"""Prompts that come later: a stream bears them once it has been faster than it was promised."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from policy.scene import CHAT, PLAIN, PRIVATE, ask, filled, place, scene, settled
from policy.scene import replica as of

from forebay.values import Admit, Reason, Refuse

WHOLE_STEP = {"kv_tokens": 1_000_000, "step_tokens": 4096}
"""An engine that takes 4,096 tokens in by one step of 0.42 s: far more than a token may take."""

LONG = 3000
"""Tokens of a prompt that such an engine takes 0.31 s for, while a stream may be 0.1 s a token."""


def streaming(made, tokens, step_s=0.011):
    """Return one stream that has had so many tokens, and when it had the last."""
    (ticket,) = filled(made, 1, terms=CHAT)
    for number in range(1, tokens):
        made.tokens(ticket, 1, number * step_s)
    return ticket, (tokens - 1) * step_s


@pytest.mark.parametrize(
    ("tokens", "prompt", "placed"),
    [
        (1, LONG, False),
        (2, LONG, False),
        (3, LONG, True),
        (1, 1500, True),
        (1, 2000, False),
        (2, 2000, True),
    ],
)
def test_a_stream_bears_the_longer_a_prompt_the_more_tokens_it_has_had(tokens, prompt, placed):
    made = scene(**WHOLE_STEP)
    _, now_s = streaming(made, tokens)
    waits, found = place(made, ask(prompt=prompt, at=now_s), now_s)
    assert isinstance(found, Admit) is placed
    assert waits.why is (None if placed else Reason.SLO_AT_RISK)


def test_a_prompt_that_waits_for_a_stream_is_placed_when_that_bears_it():
    made = scene(**WHOLE_STEP)
    stream, now_s = streaming(made, 1)
    waits, found = place(made, ask(prompt=LONG), now_s)
    assert found is None
    for number in range(1, 10):
        made.tokens(stream, 1, now_s + 0.011 * number)
    made.changed(of(made))
    assert isinstance(dict(made.drain(0.1))[waits], Admit)


def test_a_stream_whose_tokens_were_slow_bears_none():
    made = scene(**WHOLE_STEP)
    _, now_s = streaming(made, 10, step_s=0.099)
    assert place(made, ask(prompt=LONG, at=now_s), now_s)[1] is None


@pytest.mark.parametrize(("now_s", "placed"), [(0.09, False), (0.11, True)])
def test_a_stream_that_has_lost_its_pace_or_is_read_slowly_has_nothing_to_lose(now_s, placed):
    made = scene(**WHOLE_STEP)
    streaming(made, 1)
    _, found = place(made, ask(prompt=LONG, at=now_s), now_s)
    assert isinstance(found, Admit) is placed


def test_who_comes_late_anyway_breaks_no_stream():
    made = scene(**WHOLE_STEP)
    streaming(made, 1)
    hasty = replace(PRIVATE, ttft_s=0.05)  # no engine begins so long a prompt in time
    found = settled(made, ask(hasty, prompt=LONG))
    assert (type(found), found.reason) == (Refuse, Reason.SLO_AT_RISK)
    assert isinstance(settled(scene(**WHOLE_STEP), ask(hasty, prompt=LONG)), Admit)


def test_a_prompt_behind_one_that_has_no_token_yet_would_come_right_after_its_first():
    made = scene(**WHOLE_STEP)
    before, _ = place(made, ask(prompt=100, name="before"))
    assert place(made, ask(prompt=LONG, name="long"))[1] is None
    assert isinstance(place(made, ask(prompt=300, name="short"))[1], Admit)
    assert before.first_s is None


def test_an_engine_that_takes_prompts_in_by_small_parts_need_not_wait():
    made = scene(kv_tokens=1_000_000, step_tokens=512)
    streaming(made, 1)
    assert isinstance(place(made, ask(prompt=LONG))[1], Admit)


def test_streams_that_are_promised_no_pace_bear_anything():
    made = scene(**WHOLE_STEP)
    filled(made, 2, terms=PLAIN)
    assert isinstance(place(made, ask(prompt=LONG))[1], Admit)


def test_who_may_not_leave_is_held_to_the_promise_and_not_to_its_doubts():
    made = scene(**WHOLE_STEP)
    made.state.learnt(CHAT).rate.log = math.log(2.0)
    streaming(made, 1)
    assert place(made, ask(prompt=900))[1] is None
    assert isinstance(place(made, ask(PRIVATE, prompt=900))[1], Admit)
    assert place(made, ask(PRIVATE, prompt=2000))[1] is None


@pytest.mark.parametrize(("step_tokens", "strains"), [(512, False), (1024, True)])
def test_an_engine_strains_where_a_full_step_is_longer_than_a_pace_that_is_kept(
    step_tokens, strains
):
    made = scene(step_tokens=step_tokens)
    assert not of(made).strains, "nobody is inside"
    filled(made, 1, terms=CHAT)
    assert of(made).strains is strains


def test_a_request_leaves_as_surely_as_still_can_be():
    """Where the slowest of fifty clouds' answers can be kept, it is not the slowest of twenty."""
    made = scene()
    for first_s in [0.3] * 192 + [0.7] * 5 + [5.0] * 3:
        made.state.exits.clouds["cloud"].saw(first_s, 0.02, 0.0)
    filled(made, 8)
    ticket, _ = place(made, ask())
    assert ticket.leave_s == pytest.approx(1.0 - 0.7)
