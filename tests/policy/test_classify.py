"""Labels: what rules find in a text, and that sensitivity only ever rises."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.classify import Classifier, merge, text_of
from forebay.policy.rules import Classify, Set, When
from forebay.testing import request
from forebay.values import (
    SENSITIVITIES,
    Chat,
    Labels,
    Message,
    Source,
    Text,
    Tool,
    ToolCall,
)


def rules(*written):
    return Classifier(tuple(Classify.model_validate(rule) for rule in written))


SUM = {"when": {"words": ["summarise", "tl;dr", "été", "c++"]}, "set": {"task": "summarize"}}
LEGAL = {"when": {"words": "contract"}, "set": {"task": "legal", "sensitivity": "high"}}
ORDER = {"when": {"pattern": r"(?i)order #\d+"}, "set": {"sensitivity": "medium"}}
BOTH = {"when": {"words": ["refund"], "pattern": r"\d{4}"}, "set": {"tier": "gold"}}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("nothing said", Labels(sensitivity="low")),
        ("", Labels(sensitivity="low")),
        ("Summarise this", Labels("summarize", "low")),
        ("summarised already", Labels(sensitivity="low")),
        ("unsummarise", Labels(sensitivity="low")),
        ("(tl;dr)", Labels("summarize", "low")),
        ("un ÉTÉ chaud", Labels("summarize", "low")),
        ("étés", Labels(sensitivity="low")),
        ("in c++.", Labels("summarize", "low")),
        ("the contract", Labels("legal", "high")),
        ("Order #12", Labels(sensitivity="medium")),
        ("order #", Labels(sensitivity="low")),
        ("refund 123", Labels(sensitivity="low")),
        ("refund 1234", Labels(tier="gold", sensitivity="low")),
        ("the first that sets a label wins: summarise a contract", Labels("summarize", "high")),
        ("half a pair \ud83d and a contract", Labels("legal", "high")),
        ("contract\x00", Labels("legal", "high")),
    ],
)
def test_what_rules_find(text, labels):
    found = rules(SUM, LEGAL, ORDER, BOTH).labels(request(prompt=Text(text)))
    assert found == labels


def test_only_users_say_what_is_asked_for():
    turns = tuple(
        Message(role, f"{role} says summarise") for role in ("system", "assistant", "tool")
    )
    chat = Chat((*turns, Message("user", "hello"), Message("user", "there")))
    assert text_of(request(prompt=chat)) == "hello\nthere"
    assert rules(SUM, LEGAL).labels(request(prompt=chat)) == Labels(sensitivity="low")


def chat(*before, **last):
    return {"prompt": Chat((*before, Message("user", "Summarise it", **last)))}


CALLED = ToolCall("c", "look", r'{"at": ["the con\u0074ract"]}')


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("system", chat(Message("system", "the contract"))),
        ("developer", chat(Message("developer", "the contract"))),
        ("assistant", chat(Message("assistant", "the contract"))),
        ("tool", chat(Message("tool", "the contract"))),
        ("a role nobody knows", chat(Message("other", "the contract"))),
        ("a call, behind an escape", chat(Message("assistant", "", (CALLED,)))),
        (
            "a call that is no JSON",
            chat(Message("assistant", "", (ToolCall("c", "x", "contract"),))),
        ),
        ("a call's name", chat(Message("assistant", "", (ToolCall("c", "contract", "{}"),)))),
        ("a source", {**chat(), "sources": (Source("s", "the contract"),)}),
        ("a tool", {**chat(), "tools": (Tool("x", "reads a contract"),)}),
        ("a tool's schema", {**chat(), "tools": (Tool("x", "", {"a": [{"contract": 1}]}),)}),
        ("beside a text", {"prompt": Text("Summarise"), "sources": (Source("contract", ""),)}),
    ],
)
def test_sensitivity_is_found_in_whatever_a_request_brings(why, changed):
    found = rules(SUM, LEGAL).labels(request(**changed))
    assert found == Labels("summarize", "high"), why


@pytest.mark.parametrize(
    "text",
    [
        "the con\u200btract",
        "the con\u00adtract",
        "the c\u043entr\u0430ct",
        "the \uff43\uff4f\uff4e\uff54\uff52\uff41\uff43\uff54",
        "the c\u0336o\u0336n\u0336tract",
        "un e\u0301te\u0301",
        "un \u00e9\u200bt\u00e9",
        "un \u00e9t\u00e9",
    ],
)
def test_disguised_words_are_found(text):
    seen = {"when": {"words": ["contract", "\u00e9t\u00e9"]}, "set": {"sensitivity": "high"}}
    assert rules(seen).labels(request(prompt=Text(text))) == Labels(sensitivity="high")


said = st.text(max_size=20) | st.sampled_from(["contract", "order #1", "refund 1234"])


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "tool"]), said)), said)
def test_more_text_never_lowers_sensitivity(turns, more):
    found = rules(SUM, LEGAL, ORDER)
    turns = tuple(Message(role, text) for role, text in turns)
    before = found.labels(request(prompt=Chat(turns)))
    after = found.labels(request(prompt=Chat((*turns, Message("tool", more)))))
    ranks = [SENSITIVITIES.index(one.sensitivity) for one in (before, after)]
    assert ranks == sorted(ranks)
    assert before.task == after.task


names = st.none() | st.sampled_from(["a", "b"])
sensitivities = st.none() | st.sampled_from(SENSITIVITIES)
labels = st.builds(Labels, names, sensitivities, names, names, names)
sets = st.builds(Set, task=names, sensitivity=sensitivities, tier=names, language=names, mode=names)


@given(labels, st.lists(sets))
def test_sensitivity_is_never_lowered_and_the_clients_words_win(client, found):
    merged = merge(client, found)
    said = [client.sensitivity, *(rule.sensitivity for rule in found)]
    ranks = [SENSITIVITIES.index(one) for one in said if one]
    assert SENSITIVITIES.index(merged.sensitivity) == max(ranks, default=0)
    for key in ("task", "tier", "language", "mode"):
        mine, theirs = getattr(client, key), [getattr(rule, key) for rule in found]
        assert getattr(merged, key) == (mine or next((one for one in theirs if one), None))


def test_a_hostile_pattern_stays_linear():
    slow_elsewhere = {"when": {"pattern": "^(a+)+$"}, "set": {"task": "x"}}
    found = rules(slow_elsewhere).labels(request(prompt=Text("a" * 200_000 + "!")))
    assert found.task is None


@pytest.mark.parametrize("tower", ["\u0301\u0316", "\u0301", "\u20dd\u0327", "\u0e38\u0301"])
def test_towers_of_marks_are_read_in_linear_time(tower):
    """Normalising a run of marks is quadratic: a hundred times the text must not take minutes."""
    made = Classifier((Classify(when=When(words=("password",)), set=Set(sensitivity="high")),))
    text = "pass" + tower * 500_000 + "word my p\u00e1ssword password"
    began = time.process_time()
    assert made.labels(request(text)).sensitivity == "high"
    assert time.process_time() - began < 10
