"""Labels: what rules find in a text, and that sensitivity only ever rises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.classify import Classifier, merge, text_of
from forebay.policy.rules import Classify, Set
from forebay.testing import request
from forebay.values import SENSITIVITIES, Chat, Labels, Message, Text


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


def test_only_users_are_read():
    turns = tuple(
        Message(role, f"{role} says contract") for role in ("system", "assistant", "tool")
    )
    chat = Chat((*turns, Message("user", "hello"), Message("user", "there")))
    assert text_of(request(prompt=chat)) == "hello\nthere"
    assert rules(LEGAL).labels(request(prompt=chat)) == Labels(sensitivity="low")


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
