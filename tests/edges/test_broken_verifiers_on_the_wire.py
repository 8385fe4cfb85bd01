"""A verifier that raises, is late or talks nonsense: what a client's socket gets then."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from streams import DOORS, REFUSED, End, asked, asking, standing
from structlog.testing import capture_logs
from told import Judge, Told

from forebay.policy.guard import BUDGET_S
from forebay.testing import ManualClock
from forebay.values import Release, Verdict

PIECES = ("Otters ", "hold ", "hands.")
WHOLE = "".join(PIECES)
SECRET = "what the answer said"
ROUTE = {"verify": ["grounding"]}


def raises(_right):
    raise KeyError(SECRET)


def verdict(**changed):
    return lambda right: (right[0], replace(right[1], **changed))


WRONG_TEXT = {
    "raises": raises,
    "nothing": lambda _: None,
    "bytes": str.encode,
    "another text": lambda right: right + "!",
}
WRONG_VERDICT = {
    "raises": raises,
    "nothing": lambda _: None,
    "true": lambda _: True,
    "no verdict": lambda right: (right[0], "passed"),
    "an unknown outcome": verdict(outcome="fine"),
    "another's": verdict(verifier="safety"),
    "no reason": verdict(reason=None),
    "a span behind the end": verdict(spans=((0, 1783),)),
    "a span turned round": verdict(spans=((4, 2),)),
    "no spans": verdict(spans=None),
    "more text": lambda right: (right[0] + "!", right[1]),
}


async def sent(door, back, judge, **kept):
    """Return how a stream of `PIECES` ended, and all bytes of it."""
    engine = Told()
    async with asking(door, back, engine, judge=judge, **kept) as stream:
        await engine.say(*PIECES)
        engine.end()
        end = await stream.ended()
    assert SECRET.encode() not in stream.raw
    return end, bytes(stream.raw)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("release", list(Release))
async def test_one_that_breaks_at_the_first_piece_lets_no_byte_go(door, release):
    async with standing(door, route=ROUTE) as back:
        for why, wrong in WRONG_TEXT.items():
            end, raw = await sent(door, back, Judge(release, wrong=wrong, at=1))
            assert end == REFUSED, why
            assert not any(piece.strip().encode() in raw for piece in PIECES), why
            assert b"the verifier broke" in raw, why


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("release", "left"),
    [(Release.TOKEN, WHOLE), (Release.WINDOW, WHOLE[: -Judge.TAIL]), (Release.FINAL, "")],
)
async def test_one_that_breaks_at_its_verdict_lets_nothing_more_go(door, release, left):
    async with standing(door, route=ROUTE) as back:
        for why, wrong in WRONG_VERDICT.items():
            end, raw = await sent(door, back, Judge(release, wrong=wrong))
            assert end == replace(REFUSED, text=left), why
            assert left or not any(piece.strip().encode() in raw for piece in PIECES), why
            assert b"the verifier broke" in raw, why


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("release", "left"), [("token", "Otters hold "), ("window", "Otters")])
async def test_one_that_breaks_on_the_way_lets_nothing_more_go(door, release, left):
    async with standing(door, route=ROUTE) as back:
        end, raw = await sent(door, back, Judge(Release(release), wrong=raises, at=3))
    assert end == replace(REFUSED, text=left)
    assert b"hands" not in raw


class Stopped(ManualClock):
    """A clock that stands still but for what a verifier is said to have taken."""

    def __init__(self, took_s):
        super().__init__(time.monotonic())
        self._took_s = took_s

    def taken(self, right):
        self.time_s += self._took_s
        return right


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("release", list(Release))
@pytest.mark.parametrize("at", [0, 1], ids=["verdict", "piece"])
async def test_each_has_50_ms_of_its_own_for_a_piece_and_for_its_verdict(door, release, at):
    for took_s, whole in ((0.049, True), (0.051, False)):
        clock = Stopped(took_s)
        judge = Judge(release, wrong=clock.taken, at=at)
        async with standing(door, route=ROUTE, clock=clock) as back:
            assert BUDGET_S == 0.05
            end, raw = await sent(door, back, judge, budget_s=BUDGET_S)
        assert end.whole is whole
        assert end.reason == ("" if whole else "answer_refused")
        if not whole:
            assert b"it took 51 ms, and has 50" in raw
            assert not (at and end.text), "what took too long does not leave"


@pytest.mark.parametrize("door", DOORS)
async def test_what_a_broken_redaction_holds_leaves_not_even_flagged(door):
    judge = Judge(Release.WINDOW, name="pii_redaction", wrong=raises, at=2)
    route = {"verify": ["pii_redaction"], "stream": "final", "on_exhausted": "flag"}
    async with standing(door, route=route) as back:
        end, raw = await sent(door, back, judge)
    assert end == End("O", whole=True, reason=""), "what it had let go before it broke"
    assert not any(piece.strip().encode() in raw for piece in PIECES)


class Unfit:
    """A verifier that does not say when text may leave."""

    name = "grounding"
    release = "soon"

    def feed(self, text):
        return text

    def finish(self):
        return "", Verdict(self.name, "passed")


@pytest.mark.parametrize("door", DOORS)
async def test_one_that_is_no_verifier_lets_no_request_reach_an_engine(door):
    engine = Told()
    with capture_logs():
        async with asked(door, engine, route=ROUTE, judge=Unfit()) as (back, stream):
            assert await stream.ended() == End("", whole=False, reason="internal")
    assert engine.calls == []
    assert back.held == 0
