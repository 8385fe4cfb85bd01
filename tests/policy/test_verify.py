"""The gate: what leaves when, in which order, and what fails closed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest, NotBuilt
from forebay.policy.rules import Route
from forebay.policy.verify import BUILT, CHANGING, Gate, strictest, subject
from forebay.testing import request
from forebay.values import Guide, Release, Source, Tool

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ASKED = Guide("json_schema", json.dumps(NUMBER))


def gate(verify=(), *, schema=None, guide=None, enforced=False, stream=None):
    route = Route(model="here", verify=tuple(verify), json_schema=schema)
    looked = subject(route, request(guide=guide), enforced=enforced)
    return Gate(route.verify, looked, stream=stream)


@pytest.mark.parametrize(
    ("why", "made", "release"),
    [
        ("no verifier", {}, Release.TOKEN),
        ("pii", {"verify": ["pii_redaction"]}, Release.WINDOW),
        ("no schema to check", {"verify": ["json_schema"]}, Release.TOKEN),
        ("a schema", {"verify": ["json_schema"], "guide": ASKED}, Release.FINAL),
        ("enforced", {"verify": ["json_schema"], "guide": ASKED, "enforced": True}, Release.TOKEN),
        (
            "the route's schema is nothing the engine was asked for",
            {"verify": ["json_schema"], "schema": NUMBER, "enforced": True},
            Release.FINAL,
        ),
        (
            "the strictest",
            {"verify": ["json_schema", "pii_redaction"], "guide": ASKED, "enforced": True},
            Release.WINDOW,
        ),
        ("the route is stricter", {"stream": Release.FINAL}, Release.FINAL),
        (
            "the route cannot be freer",
            {"verify": ["json_schema"], "guide": ASKED, "stream": Release.TOKEN},
            Release.FINAL,
        ),
        ("a regex is no schema", {"verify": ["json_schema"], "guide": Guide("regex", "a+")},
         Release.TOKEN),
    ],
)  # fmt: skip
def test_release(why, made, release):
    assert gate(**made).release is release, why


def test_strictest_of_none_is_token():
    assert strictest(()) is Release.TOKEN


@pytest.mark.parametrize(
    ("guide", "schema", "answer", "outcome"),
    [
        (ASKED, None, '{"n": 1}', "passed"),
        (ASKED, None, '{"n": "1"}', "failed"),
        (None, NUMBER, '{"n": "1"}', "failed"),
        (Guide("json_schema", '{"type": "array"}'), NUMBER, "[]", "passed"),
        (Guide("json"), NUMBER, "[]", "passed"),
        (Guide("json"), None, "no", "failed"),
        (Guide("regex", "n"), NUMBER, "n", "failed"),
        (Guide("regex", "n"), None, "n", "not_applicable"),
        (None, None, "n", "not_applicable"),
    ],
)
def test_the_requests_schema_is_checked_or_else_the_routes(guide, schema, answer, outcome):
    made = gate(["json_schema"], guide=guide, schema=schema)
    sent = made.feed(answer)
    rest, (verdict,) = made.finish()
    assert sent + rest == answer
    assert verdict.outcome == outcome


def test_final_sends_nothing_before_its_verdict():
    made = gate(["json_schema"], guide=ASKED)
    assert [made.feed(part) for part in ('{"n"', ": 1", "}")] == ["", "", ""]
    rest, (verdict,) = made.finish()
    assert (rest, verdict.outcome) == ('{"n": 1}', "passed")


def test_enforced_text_leaves_at_once_and_is_still_judged():
    made = gate(["json_schema"], guide=ASKED, enforced=True)
    assert [made.feed(part) for part in ('{"n"', ": 1")] == ['{"n"', ": 1"]
    rest, (verdict,) = made.finish()
    assert (rest, verdict.outcome) == ("", "failed")


ORDERS = [("json_schema", "pii_redaction"), ("pii_redaction", "json_schema")]
MAIL = {"properties": {"mail": {"type": "string", "pattern": "@"}}}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("why", "schema", "answer", "rest", "outcome"),
    [
        ("still of its form", {"type": "object"}, '{"mail": "ada@example.com"}',
         '{"mail": "[EMAIL]"}', "passed"),
        ("not of its form any more", MAIL, '{"mail": "ada@example.com"}',
         '{"mail": "[EMAIL]"}', "failed"),
        ("no JSON any more", {"type": "object"}, '{"phone": 2125550123}',
         '{"phone": [PHONE]}', "failed"),
        ("escapes hide nothing and stay whole", {"type": "object"},
         r'{"a": "hi\nann\u0040firma.de"}', r'{"a": "hi[EMAIL]"}', "passed"),
    ],
)  # fmt: skip
def test_what_leaves_is_what_was_judged(order, why, schema, answer, rest, outcome):
    made = gate(order, schema=schema)
    assert made.feed(answer) == ""
    whole, verdicts = made.finish()
    assert whole == rest, why
    assert [verdict.verifier for verdict in verdicts] == list(order)
    outcomes = {verdict.verifier: verdict.outcome for verdict in verdicts}
    assert outcomes == {"json_schema": outcome, "pii_redaction": "redacted"}, why


def test_what_is_not_built_is_refused_by_name():
    with pytest.raises(NotBuilt, match="verifier horoscope is not built yet"):
        gate(["pii_redaction", "horoscope"])


@pytest.mark.parametrize("source", ["", " ", "{", '{"type": 5}', '{"$ref": "#"}'])
def test_a_hostile_schema_is_refused_before_any_engine_is_called(source):
    with pytest.raises(InvalidRequest, match="JSON schema"):
        gate(["json_schema"], guide=Guide("json_schema", source))


parts = st.lists(
    st.sampled_from(['{"n"', ": 1", "}", " bob@", "x.org ", "4111 ", "é", "", "2125550123"])
)


@given(parts, st.sampled_from(ORDERS))
def test_a_text_that_passed_is_json_of_its_form_as_it_leaves(pieces, order):
    made = gate(order, guide=ASKED)
    rest = "".join(made.feed(piece) for piece in pieces)
    last, verdicts = made.finish()
    if all(verdict.outcome != "failed" for verdict in verdicts):
        assert isinstance(json.loads(rest + last)["n"], int)


@given(
    parts,
    st.lists(st.sampled_from(["json_schema", "pii_redaction"]), unique=True),
    st.booleans(),
    st.none() | st.sampled_from(list(Release)),
)
def test_pieces_make_no_difference(pieces, verify, enforced, stream):
    made = {"guide": ASKED, "enforced": enforced, "stream": stream}
    one, many = gate(verify, **made), gate(verify, **made)
    sent = "".join(many.feed(piece) for piece in pieces)
    rest, verdicts = many.finish()
    first = one.feed("".join(pieces))
    last, expected = one.finish()
    assert sent + rest == first + last
    assert verdicts == expected
    assert not (many.release is Release.FINAL and sent)


JUDGING = sorted(BUILT - CHANGING)
prose = st.lists(
    st.sampled_from(['{"name": "look", ', '"arguments": {}}', "I cannot help. ", "Rain [1]. ", "\n",
                     "é", "[9]", "not ", "1783 "])
).map("".join) | st.text()  # fmt: skip


@given(prose, st.integers(0, 40), st.lists(st.sampled_from(JUDGING), unique=True))
def test_verifiers_that_only_judge_hand_on_what_they_were_given(text, cut, names):
    asked = request(tools=(Tool("look"),), sources=(Source("1", "Rain fell in 1783."),))
    route = Route(model="here", verify=tuple(names), json_schema=NUMBER)
    made = Gate(route.verify, subject(route, asked, enforced=False))
    sent = made.feed(text[:cut]) + made.feed(text[cut:])
    rest, verdicts = made.finish()
    assert sent + rest == text
    assert [verdict.verifier for verdict in verdicts] == names
    assert not any("broke" in verdict.reason for verdict in verdicts)
