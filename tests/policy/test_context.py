"""What a request brings beside its text: bounds, and faults told of the client's own fields."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest, TooLarge
from forebay.policy.context import (
    MAX_CONTEXT_BYTES,
    MAX_GUIDE_BYTES,
    NOTHING,
    Context,
    checked,
    checked_choice,
    checked_guide,
    context_of_json,
    earlier,
    few,
    fit,
    unknown_model,
)
from forebay.values import Chat, Guide, Labels, Sampling, Source, Text, Tool


def test_nothing_said_is_nothing():
    assert context_of_json("{}") == NOTHING


def test_all_that_can_be_said():
    said = {
        "labels": {
            "task": "chat",
            "sensitivity": "high",
            "tier": "gold",
            "language": "de",
            "mode": "draft",
        },
        "sources": [{"id": "a", "text": "b"}],
        "tools": [{"name": "look", "description": "d", "parameters": {"type": "object"}}],
        "deadline_ms": 800,
        "explain": True,
    }
    assert context_of_json(json.dumps(said).encode()) == Context(
        Labels("chat", "high", "gold", "de", "draft"),
        (Source("a", "b"),),
        (Tool("look", "d", {"type": "object"}),),
        800,
        explain=True,
    )


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("{", "forebay is not JSON: unexpected end of data at line 1, column 2"),
        ("[]", "forebay must be an object"),
        ('{"label":{}}', "forebay.label is not known"),
        ('{"labels":[]}', "forebay.labels must be an object"),
        ('{"labels":{"tsak":"x"}}', "forebay.labels.tsak is not known"),
        ('{"labels":{"task":""}}', "forebay.labels.task must not be empty"),
        ('{"labels":{"task":1}}', "forebay.labels.task must be text"),
        (
            '{"labels":{"sensitivity":"none"}}',
            "forebay.labels.sensitivity must be 'low', 'medium' or 'high'",
        ),
        ('{"labels":{"tier":"' + "x" * 129 + '"}}', "forebay.labels.tier must be at most 128 char"),
        ('{"sources":{}}', "forebay.sources must be a list"),
        ('{"sources":[{"id":"a"}]}', "forebay.sources[0].text must be given"),
        ('{"sources":[{"id":"a","text":"","x":1}]}', "forebay.sources[0].x is not known"),
        (
            '{"sources":[{"id":"a","text":""},{"id":"a","text":""}]}',
            "forebay.sources names 'a' twice",
        ),
        ('{"tools":[{"name":"a b"}]}', "forebay.tools[0].name must match"),
        ('{"tools":[{"name":"a"},{"name":"a"}]}', "forebay.tools names 'a' twice"),
        (
            '{"tools":[{"name":"a","parameters":' + '{"a":' * 400 + "1" + "}" * 400 + "}]}",
            "forebay.tools[0].parameters is nested too deeply",
        ),
        ('{"deadline_ms":0}', "forebay.deadline_ms must be at least 1"),
        ('{"deadline_ms":1.5}', "forebay.deadline_ms must be a whole number"),
        ('{"deadline_ms":true}', "forebay.deadline_ms must be a whole number"),
        ('{"deadline_ms":86400001}', "forebay.deadline_ms must be at most 86400000"),
        ('{"explain":"yes"}', "forebay.explain must be true or false"),
    ],
)
def test_a_fault_is_told_of_its_field(raw, sentence):
    with pytest.raises(InvalidRequest) as caught:
        context_of_json(raw)
    assert str(caught.value).startswith(sentence)
    assert caught.value.param == sentence.split()[0]


def test_size_is_bounded_before_it_is_read():
    with pytest.raises(TooLarge, match="forebay holds 262145 bytes"):
        context_of_json("x" * (MAX_CONTEXT_BYTES + 1))


@given(st.text() | st.binary())
def test_whatever_is_sent_is_a_context_or_a_sentence(raw):
    try:
        told = context_of_json(raw)
    except InvalidRequest as error:
        told = str(error)
    assert isinstance(told, Context) or told.startswith("forebay")


@pytest.mark.parametrize(
    ("why", "values", "fault"),
    [
        ("greedy", {"temperature": 0.0}, None),
        ("hottest", {"temperature": 2.0}, None),
        ("too hot", {"temperature": 2.1}, "temperature"),
        ("below zero", {"temperature": -0.1}, "temperature"),
        ("not a number", {"temperature": float("nan")}, "temperature"),
        ("endless", {"temperature": float("inf")}, "temperature"),
        ("whole mass", {"top_p": 1.0}, None),
        ("no mass", {"top_p": 0.0}, "top_p"),
        ("one token", {"max_tokens": 1}, None),
        ("no token", {"max_tokens": 0}, "max_tokens"),
        ("beyond INT32", {"max_tokens": 2**31}, "max_tokens"),
        ("least as most", {"min_tokens": 4, "max_tokens": 4}, None),
        ("least over most", {"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ("top_k off", {"top_k": 0}, None),
        ("largest seed", {"seed": 2**64 - 1}, None),
        ("seed beyond UINT64", {"seed": 2**64}, "seed"),
        ("no repetition", {"repetition_penalty": 0.0}, "repetition_penalty"),
        ("most presence", {"presence_penalty": 2.0}, None),
        ("more presence", {"presence_penalty": 2.5}, "presence_penalty"),
        ("least frequency", {"frequency_penalty": -2.0}, None),
        ("16 stops", {"stop": ("x",) * 16}, None),
        ("17 stops", {"stop": ("x",) * 17}, "stop"),
        ("an empty stop", {"stop": ("",)}, "stop"),
        ("a long stop", {"stop": ("x" * 257,)}, "stop"),
        ("129 bad words", {"bad": ("x",) * 129}, "bad"),
    ],
)
def test_sampling_bounds(why, values, fault):
    sampling = Sampling(**values)
    if fault is None:
        assert checked(sampling) is sampling, why
        return
    with pytest.raises(InvalidRequest) as caught:
        checked(sampling, {fault: f"sent_{fault}"})
    assert caught.value.param == f"sent_{fault}", why


@pytest.mark.parametrize(
    ("guide", "wrong"),
    [
        (Guide("json"), False),
        (Guide("json_schema", "true"), False),
        (Guide("json_schema", "{}"), False),
        (Guide("json_schema", "3"), True),
        (Guide("json_schema", ""), True),
        (Guide("json_schema", "[" * 5000), True),
        (Guide("regex", "a"), False),
        (Guide("regex", ""), True),
        (Guide("regex", "a" * (MAX_GUIDE_BYTES + 1)), True),
    ],
)
def test_guides_are_bounded_and_schemas_are_json(guide, wrong):
    if not wrong:
        assert checked_guide(guide, "g") is guide
        return
    with pytest.raises(InvalidRequest) as caught:
        checked_guide(guide, "g")
    assert caught.value.param == "g"


@pytest.mark.parametrize(
    ("choice", "tools", "wrong"),
    [
        ("auto", (), False),
        ("required", (Tool("a"),), False),
        ("a", (Tool("a"),), False),
        ("b", (Tool("a"),), True),
        ("b", (), False),
    ],
)
def test_a_tool_choice_names_a_tool_at_hand(choice, tools, wrong):
    if not wrong:
        assert checked_choice(choice, tools) == choice
        return
    with pytest.raises(InvalidRequest, match="one of a"):
        checked_choice(choice, tools)


@pytest.mark.parametrize(
    ("why", "prompt", "tools", "choice", "wrong"),
    [
        ("a chat shows tools", Chat(()), (Tool("a"),), "a", None),
        ("a text without", Text("x"), (), "auto", None),
        ("a text that wants none", Text("x"), (), "none", None),
        ("a text with tools", Text("x"), (Tool("a"),), "auto", "t.tools"),
        ("a text that must call", Text("x"), (), "required", "tool_choice"),
        ("a text that names one", Text("x"), (), "a", "tool_choice"),
    ],
)
def test_a_text_brings_no_tools(why, prompt, tools, choice, wrong):
    if wrong is None:
        fit(prompt, tools, choice, "t.tools")
        return
    with pytest.raises(InvalidRequest, match="plain text") as caught:
        fit(prompt, tools, choice, "t.tools")
    assert caught.value.param == wrong, why


def test_a_list_may_be_as_long_as_its_bound():
    few("f", 3, 3)
    with pytest.raises(InvalidRequest, match="f must hold at most 3 items, and holds 4"):
        few("f", 4, 3)


def test_the_earlier_deadline_counts():
    assert earlier(10.0) is None
    assert earlier(10.0, None, None) is None
    assert earlier(10.0, 3.0, None, 2.0) == 12.0


def test_an_unknown_model_gets_the_nearest_names():
    assert "did you mean ensemble" in str(unknown_model("ensembel", ["auto", "ensemble"]))
    assert "known: auto, local" in str(unknown_model("zzz", ["auto", "local"]))
