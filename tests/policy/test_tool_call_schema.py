"""`tool_call_schema`: calls in text and calls that an engine makes itself, judged alike."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest, TooLarge
from forebay.policy.rules import Route
from forebay.policy.verifiers.tool_calls import meant
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import Release, Tool, ToolCall

AREA = Tool(
    "area",
    "",
    {
        "type": "object",
        "properties": {"base": {"type": "integer"}, "unit": {"enum": ["m", "cm"]}},
        "required": ["base"],
        "additionalProperties": False,
    },
)
LOOK = Tool("look")


def gate(tools=(AREA, LOOK), choice="auto", verify=("tool_call_schema",)):
    asked = request(tools=tools, tool_choice=choice)
    return Gate(verify, subject(Route(model="m", verify=verify), asked, enforced=False))


def of_text(text, **changed):
    made = gate(**changed)
    assert made.feed(text) == "" if made.release is Release.FINAL else text
    rest, (verdict,) = made.finish()
    assert rest in (text, "")
    return verdict


def of_calls(*calls, text="", **changed):
    made = gate(**changed)
    made.feed(text)
    made.called(tuple(ToolCall(f"id{n}", *call) for n, call in enumerate(calls)))
    return made.finish()[1][0]


@pytest.mark.parametrize(
    ("why", "name", "arguments", "reason"),
    [
        ("a call", "area", '{"base": 3}', None),
        ("all its arguments", "area", '{"base": 3, "unit": "cm"}', None),
        ("no schema", "look", '{"anything": [1]}', None),
        ("another name", "rm", "{}", "call 1: it names no tool that was offered"),
        ("a name in other letters", "Area", '{"base": 3}', "call 1: it names no tool that was"),
        ("none of what is required", "area", "{}", 'call 1 of area: $: "base" is a required prop'),
        ("a wrong type", "area", '{"base": "3"}', "call 1 of area: $.base: the value is not of ty"),
        ("not of the enum", "area", '{"base": 3, "unit": "mile"}', "call 1 of area: $.unit: the "),
        ("unknown", "area", '{"base": 3, "x": 1}', "call 1 of area: $: breaks additionalProperti"),
    ],
)
def test_a_call_in_text_and_one_of_the_engine_are_judged_alike(why, name, arguments, reason):
    text = f'{{"name": "{name}", "arguments": {arguments}}}'
    native, written = of_calls((name, arguments)), of_text(text)
    if reason is None:
        assert (native.outcome, written.outcome) == ("passed", "passed"), why
        return
    assert native.outcome == written.outcome == "failed", why
    assert native.reason.startswith(reason), why
    assert native.spans == ()
    assert written.spans == ((0, len(text)),)


@pytest.mark.parametrize(
    ("why", "arguments", "reason"),
    [
        ("cut short", '{"base": 3', "not JSON"),
        ("nothing", "", "not JSON"),
        ("no number of JSON", '{"base": NaN}', "not JSON"),
        ("half a surrogate pair", '{"base": "\\ud800"}', "not JSON"),
        ("a list", "[3]", "not an object"),
        ("null", "null", "not an object"),
        ("a name twice", '{"base": 3, "base": 4}', "one name twice"),
        ("deep", '{"base": ' + "[" * 100 + "]" * 100 + "}", "deeper than 64"),
        ("very deep", '{"base": ' + "[" * 5000 + "]" * 5000 + "}", "not JSON"),
    ],
)
def test_arguments_that_no_reader_takes(why, arguments, reason):
    verdict = of_calls(("area", arguments))
    assert verdict.outcome == "failed", why
    assert reason in verdict.reason, why


@pytest.mark.parametrize(
    ("why", "choice", "calls", "outcome"),
    [
        ("free to call", "auto", [("area", '{"base": 1}')], "passed"),
        ("free not to", "auto", [], "passed"),
        ("demanded", "required", [], "failed"),
        ("demanded by name", "area", [], "failed"),
        ("another than demanded", "area", [("look", "{}")], "failed"),
        ("as demanded", "area", [("area", '{"base": 1}')], "passed"),
        ("forbidden", "none", [("area", '{"base": 1}')], "failed"),
        ("forbidden and left out", "none", [], "passed"),
        ("one of two is wrong", "auto", [("look", "{}"), ("area", "{}")], "failed"),
    ],
)
def test_the_clients_choice_is_kept(why, choice, calls, outcome):
    verdict = of_calls(*calls, text="" if calls else "Hello.", choice=choice)
    assert verdict.outcome == outcome, why


@pytest.mark.parametrize(
    ("why", "text", "outcome"),
    [
        ("prose", "The area is 12.", "passed"),
        ("JSON that is no call", '{"name": "Ada", "age": 7}', "passed"),
        ("broken", '{"name": "area", "arguments": {"base": 3}', "failed"),
        ("a quote is missing", '{"name: "area", "arguments": {"base": 3}}', "failed"),
        ("other quotes", "{'name': 'area', 'arguments': {'base': 3}}", "failed"),
        ("among prose", 'Now: {"name": "area", "arguments": {"base": 3}}', "failed"),
        ("in a fence", '```json\n{"name": "area", "arguments": {"base": 3}}\n```', "failed"),
        ("another word for arguments", '{"name": "area", "parameters": {"base": 3}}', "failed"),
        ("another form", '<tool_call>{"name": "area"}</tool_call>', "failed"),
    ],
)
def test_text_that_was_meant_as_a_call_and_is_none_fails(why, text, outcome):
    assert of_text(text).outcome == outcome, why


def test_without_tools_nothing_is_judged_and_nothing_waits():
    made = gate(tools=())
    assert made.release is Release.TOKEN
    assert made.feed("Hello") == "Hello"
    assert made.finish()[1][0].outcome == "not_applicable"
    assert of_calls(("area", "{}"), tools=()).outcome == "failed"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [({"type": "dict"}, InvalidRequest), ({"$ref": "https://x.example"}, InvalidRequest),
     ({"title": "x" * 70_000}, TooLarge)],
    ids=range(3),
)  # fmt: skip
def test_a_tool_whose_schema_cannot_be_judged_is_refused_before_any_engine(parameters, error):
    with pytest.raises(error, match="tools: the parameters of bad: ") as caught:
        gate(tools=(Tool("bad", "", parameters),))
    assert caught.value.param == "tools"


def test_a_reason_repeats_no_value():
    verdict = of_calls(
        ("area", '{"base": "4111 1111 1111 1111", "ann@firma.de": 1}'), ("x@y.de", "")
    )
    assert verdict.outcome == "failed"
    assert not any(part in verdict.reason for part in ("4111", "firma", "x@y"))


calls = st.tuples(
    st.sampled_from(["area", "look", "rm", ""]) | st.text(max_size=5),
    st.text(alphabet='{}[]":,\\ base13e', max_size=20)
    | st.dictionaries(st.sampled_from(["base", "unit", "x"]), st.integers() | st.text()).map(
        json.dumps
    ),
)


@given(st.lists(calls, max_size=3), st.text(alphabet='{}":,name argumets\n') | st.text(),
       st.sampled_from(["auto", "none", "required", "area"]))  # fmt: skip
def test_any_answer_ends_in_a_verdict_within_it(made, text, choice):
    verdict = of_calls(*made, text=text, choice=choice)
    assert verdict.outcome in ("passed", "failed")
    assert "broke" not in verdict.reason
    assert all(0 <= first < last <= len(text) for first, last in verdict.spans)
    if verdict.outcome == "passed":
        assert {name for name, _ in made} <= {"area", "look"}


@pytest.mark.parametrize(
    "text",
    ["{" * 2**20, '"name": ' * 2**17, "name" + " " * 2**20, '{"name": "area", ' * 2**16,
     '{"name": "look", "arguments": {}}' * 2**15, "\\" * 2**20],
    ids=range(6),
)  # fmt: skip
def test_a_mebibyte_is_judged_in_bounded_time(text):
    begun = time.perf_counter()
    of_text(text)
    meant(text)
    assert time.perf_counter() - begun < 5
