"""When text leaves at a raw socket: by each release rule, and through each way to stream."""

from __future__ import annotations

import pytest
from policy.personal import DISGUISED, ENTITIES, left, letter, said, shown
from streams import DOORS, End, asked
from told import Judge, Told

from forebay.policy.verifiers.pii import HELD_MAX
from forebay.values import Release

PIECES = ("Otters ", "hold ", "hands.")
WHOLE = "".join(PIECES)
JUDGED = {"verify": ["grounding"]}
NUMBERS = {"verify": ["json_schema"], "schema": {"items": {"type": "integer"}}}


def of_it(raw, pieces=PIECES):
    """Return the pieces of an answer that stand in bytes of the wire."""
    return [piece for piece in pieces if piece.strip().encode() in raw]


FINAL = [
    ("it passes", JUDGED, "passed", PIECES, End(WHOLE, whole=True, reason="")),
    ("it is flagged", JUDGED, "flagged", PIECES, End(WHOLE, whole=True, reason="")),
    ("it fails", JUDGED, "failed", PIECES, End("", whole=False, reason="answer_refused")),
    ("its form is right", NUMBERS, None, ("[10661783, ", "17832026]"),
     End("[10661783, 17832026]", whole=True, reason="")),
    ("its form is wrong", NUMBERS, None, ("[10661783, ", "17832026"),
     End("", whole=False, reason="answer_refused")),
    ("its route waits", {"verify": ["pii_redaction"], "stream": "final"}, None, PIECES,
     End(WHOLE, whole=True, reason="")),
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("why", "route", "outcome", "pieces", "end"), FINAL, ids=[case[0] for case in FINAL]
)
async def test_final_sends_no_byte_of_text_before_its_verdict(
    door, why, route, outcome, pieces, end
):
    engine, judge = Told(), Judge(Release.FINAL, outcome) if outcome else None
    async with asked(door, engine, route=route, judge=judge) as (back, stream):
        for piece in pieces:
            await engine.say(piece)
            await stream.caught_up()
            assert of_it(stream.raw, pieces) == []
        if door == "http":
            assert stream.raw == b"", "not even a status"
        if judge is not None:
            assert judge.seen is None
            judge.look = lambda: bytes(stream.raw)
        engine.end()
        assert await stream.ended() == end
    assert judge is None or of_it(judge.seen) == []
    assert of_it(stream.raw, pieces) == (list(pieces) if end.whole else [])
    assert len(back.ledger.records) == 1


@pytest.mark.parametrize("door", DOORS)
async def test_of_an_answer_that_fails_its_verdict_no_byte_stands_before_the_next_ones(door):
    first, second, judge = Told(), Told(), Judge(Release.FINAL, "failed")
    async with asked(door, first, second, route=JUDGED, judge=judge) as (back, stream):
        await first.say(*PIECES)
        first.end()
        await second.say("Seals ")
        await stream.caught_up()
        assert of_it(stream.raw, (*PIECES, "Seals")) == []
        judge.outcome = "passed"
        await second.say("do not.")
        second.end()
        assert await stream.ended() == End("Seals do not.", whole=True, reason="")
    assert of_it(stream.raw) == []
    assert [one.move for one in back.ledger.records[0].attempts] == ["first", "escalate"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("outcome", ["passed", "failed"])
async def test_token_sends_text_as_it_is_said_and_an_error_where_its_verdict_fails(door, outcome):
    engine, judge = Told(), Judge(Release.TOKEN, outcome)
    async with asked(door, engine, route=JUDGED, judge=judge) as (_, stream):
        for number, piece in enumerate(PIECES, 1):
            await engine.say(piece)
            await stream.caught_up()
            assert of_it(stream.raw) == list(PIECES[:number])
        assert judge.seen is None
        engine.end()
        whole = outcome == "passed"
        end = End(WHOLE, whole=whole, reason="" if whole else "answer_refused")
        assert await stream.ended() == end


@pytest.mark.parametrize("door", DOORS)
async def test_window_lets_nothing_personal_cross_and_holds_back_what_it_may(door):
    parts = letter(*ENTITIES, *DISGUISED)
    engine, text, sent = Told(), said(parts), ""
    async with asked(door, engine, route={"verify": ["pii_redaction"]}) as (_, stream):
        for fed, character in enumerate(text, 1):
            await engine.say(character)
            await stream.caught_up()
            sent = stream.text()
            assert shown(parts).startswith(sent)
            assert fed - left(parts, sent) <= HELD_MAX
        assert sent.count("[") >= len(ENTITIES), "it leaves while it is said, not at its end"
        engine.end()
        assert await stream.ended() == End(shown(parts), whole=True, reason="")


HOSTILE = "".join(c + "\u200b" * 4 for c in "a" * 64 + "@" + "b" * 124 + "! ") * 2
"""What may be an address up to its last character, between characters that cannot be seen."""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("size", [1, 37])
async def test_window_holds_back_at_most_so_many_characters(door, size):
    engine, most = Told(), 0
    async with asked(door, engine, route={"verify": ["pii_redaction"]}) as (_, stream):
        for fed in range(0, len(HOSTILE), size):
            await engine.say(HOSTILE[fed : fed + size])
            if size > 1 or fed % 100 == 99 or 900 < fed < 960:
                await stream.caught_up()
                most = max(most, len(HOSTILE[: fed + size]) - len(stream.text()))
        engine.end()
        assert (await stream.ended()).text == HOSTILE
    print(f"N = {HELD_MAX} characters; at {door} at most {most} were held back")
    assert HELD_MAX // 2 < most <= HELD_MAX
