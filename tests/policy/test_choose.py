"""Which class takes a request, by what name, and which targets it may climb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import NotBuilt, NotPermitted, UnknownModel, Unmatched
from forebay.policy.choose import RESERVED, Chosen, Policy, choose, name_classes
from forebay.policy.rules import HUMAN, Document, Match, Route
from forebay.testing import request
from forebay.values import SENSITIVITIES, Labels, Reason, Text

TARGETS = {
    "here": {"triton": {}},
    "mid": {"openai": {"model": "m"}},
    "frontier": {"anthropic": {"model": "f"}},
}
ROUTES = [
    {"match": {"task": "summarize", "sensitivity": "low"}, "model": "here", "fallback": "frontier"},
    {"match": {"task": ["chat", "talk"]}, "model": "mid", "fallback": ["frontier", HUMAN]},
    {"match": {"structure": "json"}, "model": "here", "name": "shaped"},
]
SENSITIVE = {"when": {"words": ["secret"]}, "set": {"sensitivity": "high"}}


def policy(**changed):
    document = {"models": TARGETS, "routes": ROUTES, "classify": [SENSITIVE], **changed}
    return Policy(Document.model_validate(document), "v")


def ask(model="auto", text="", changed=None, **labels):
    asked = request(model=model, prompt=Text(text), labels=Labels(**labels))
    return choose(policy(**(changed or {})), asked)


UNSHAPED = {"routes": ROUTES[:2], "default": {"model": "here"}}


@pytest.mark.parametrize(
    ("why", "asked", "route", "reason", "ladder", "spill"),
    [
        (
            "the first match, low where nothing is said",
            {"task": "summarize"},
            "summarize",
            Reason.ROUTE_MATCHED,
            ("here", "frontier"),
            "frontier",
        ),
        (
            "any of a list",
            {"task": "talk", "sensitivity": "high"},
            "chat",
            Reason.ROUTE_MATCHED,
            ("mid", "frontier", HUMAN),
            "frontier",
        ),
        (
            "nothing matches: the default",
            {"task": "else"},
            "default",
            Reason.DEFAULT_ROUTE,
            ("here",),
            None,
        ),
        (
            "found in the text: not low, so not the first route",
            {"task": "summarize", "text": "a secret"},
            "default",
            Reason.DEFAULT_ROUTE,
            ("here",),
            None,
        ),
        (
            "a class by name",
            {"model": "chat"},
            "chat",
            Reason.CLASS_NAMED,
            ("mid", "frontier", HUMAN),
            "frontier",
        ),
        (
            "the default by name",
            {"model": "default", "task": "chat"},
            "default",
            Reason.CLASS_NAMED,
            ("here",),
            None,
        ),
        (
            "a target by name: no other, and no spill",
            {"model": "frontier", "task": "summarize"},
            "summarize",
            Reason.TARGET_NAMED,
            ("frontier",),
            None,
        ),
    ],
)
def test_chosen(why, asked, route, reason, ladder, spill):
    chosen = ask(**asked, changed=UNSHAPED)
    assert isinstance(chosen, Chosen), why
    got = (chosen.of.name, chosen.reason, chosen.ladder, chosen.spill_to)
    assert got == (route, reason, ladder, spill), why


@pytest.mark.parametrize(
    ("why", "asked", "error", "sentence"),
    [
        ("unknown", {"model": "chatt"}, UnknownModel, "no model 'chatt'; did you mean chat"),
        ("a person is no model", {"model": HUMAN}, UnknownModel, "no model"),
        ("very long", {"model": "x" * 100_000}, UnknownModel, "no model"),
        ("no default", {"changed": {"routes": ROUTES[:2]}}, Unmatched, "no route matches"),
        ("cannot be read yet", {"task": "else"}, NotBuilt, "matches on structure"),
        (
            "named, but too sensitive",
            {"model": "summarize", "text": "secret"},
            NotPermitted,
            "takes sensitivity low, and this request was found to be high",
        ),
        (
            "lowered by its label, and found all the same",
            {"model": "summarize", "text": "secret", "sensitivity": "low"},
            NotPermitted,
            "found to be high",
        ),
        (
            "a target of another class",
            {"model": "mid", "task": "summarize"},
            NotPermitted,
            "class summarize may not use mid; it may use here, frontier",
        ),
    ],
)
def test_nobody(why, asked, error, sentence):
    answer = ask(**asked)
    assert type(answer) is error, why
    assert sentence in str(answer), why
    assert len(str(answer)) < 500


@pytest.mark.parametrize(
    ("spill", "fallback", "target"),
    [
        (None, [], None),
        (None, ["here2"], None),
        (None, ["here2", "mid", "frontier"], "mid"),
        (None, [HUMAN], None),
        ("never", ["mid"], None),
        ({"to": "frontier"}, ["mid"], "frontier"),
        ({"to": "here2"}, [], "here2"),
    ],
)
def test_where_a_class_spills(spill, fallback, target):
    models = {**TARGETS, "here2": {"triton": {}}}
    default = {"model": "here", "spill": spill, "fallback": fallback}
    chosen = ask(changed={"models": models, "routes": [], "default": default})
    assert isinstance(chosen, Chosen)
    assert chosen.spill_to == target


@pytest.mark.parametrize(
    ("routes", "names"),
    [
        ([{"task": "a"}, {"task": "b"}], ["a", "b"]),
        ([{"task": "a"}, {"task": "a", "tier": "gold"}], ["a", "a-gold"]),
        ([{"task": ["a", "b"]}, {"task": ["a", "b"]}], ["a", "a-b"]),
        ([{"task": "a"}, {"task": "a"}, {"task": "a"}], ["a", "a-2", "a-3"]),
        ([{}, {}], ["route-1", "route-2"]),
        ([{"task": "auto"}, {"task": "default"}], ["auto-1", "default-2"]),
        ([{"task": "Été & Co"}, {"task": "7b"}], ["class--t----co", "class-7b"]),
        ([{"difficulty": "hard"}], ["hard"]),
    ],
)
def test_names_of_unnamed_routes(routes, names):
    made = tuple(Route(match=Match.model_validate(m), model="x") for m in routes)
    assert [c.name for c in name_classes(made)] == names


def test_a_written_name_is_never_taken_by_another_route_nor_a_targets():
    routes = (
        Route(match=Match(task=("a",)), model="x"),
        Route(name="a", model="x"),
        Route(match=Match(task=("x",)), model="x"),
    )
    assert [c.name for c in name_classes(routes, RESERVED | {"x"})] == ["a-1", "a", "x-3"]


values = st.lists(st.sampled_from(["a", "b", "auto", "default", "here"]), max_size=2, unique=True)
matches = st.builds(
    Match,
    task=values.map(tuple),
    tier=values.map(tuple),
    sensitivity=st.lists(st.sampled_from(SENSITIVITIES), max_size=2, unique=True).map(tuple),
)
words = st.none() | st.sampled_from(["a", "b"])


@given(
    st.lists(matches, max_size=5),
    st.builds(Labels, words, st.sampled_from(SENSITIVITIES), words),
)
def test_the_first_route_whose_match_holds_takes_it(written, labels):
    routes = tuple(Route(match=match, model="here") for match in written)
    models = {"here": {"triton": {}}}
    document = Document.model_validate({"models": models}).model_copy(update={"routes": routes})
    made = Policy(document, "v")
    assert len({c.name for c in made.classes} | {"here", *RESERVED}) == len(routes) + 7
    chosen = choose(made, request(labels=labels))

    def holds(match):
        pairs = [(match.task, labels.task), (match.tier, labels.tier)]
        pairs.append((match.sensitivity, labels.sensitivity))
        return all(not wanted or said in wanted for wanted, said in pairs)

    first = next((n for n, match in enumerate(written) if holds(match)), None)
    if first is None:
        assert isinstance(chosen, Unmatched)
    else:
        assert isinstance(chosen, Chosen)
        assert chosen.of is made.classes[first]
