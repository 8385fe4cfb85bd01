"""Which class takes a request, by what name, and which targets it may climb."""

from __future__ import annotations

from itertools import product

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
            "a class by name, for what would be another's",
            {"model": "chat", "task": "summarize", "tier": "gold"},
            "chat",
            Reason.CLASS_NAMED,
            ("mid", "frontier", HUMAN),
            "frontier",
        ),
        (
            "the default by name",
            {"model": "default", "task": "else"},
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
            "the default is no way round a route",
            {"model": "default", "task": "chat", "changed": UNSHAPED},
            NotPermitted,
            "class default does not take what is task=chat, sensitivity=low; class chat takes it",
        ),
        ("named, and cannot be read yet", {"model": "shaped"}, NotBuilt, "matches on structure"),
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
        (None, ["edge"], None),
        (None, ["edge", "frontier"], "frontier"),
        (None, ["office"], "office"),
        ({"to": "edge"}, ["frontier"], "edge"),
        ("never", ["mid"], None),
        ({"to": "frontier"}, ["mid"], "frontier"),
        ({"to": "here2"}, [], "here2"),
    ],
)
def test_where_a_class_spills(spill, fallback, target):
    served = {"openai": {"model": "m", "base_url": "http://127.0.0.1:11434/v1"}}
    models = {
        **TARGETS,
        "here2": {"triton": {}},
        "edge": {**served, "residency": "device"},
        "office": {**served, "residency": "on_premises"},
    }
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


GUARDED = {
    "classify": [SENSITIVE],
    "routes": [
        {"name": "fast", "match": {"task": "fast", "sensitivity": "low"}, "model": "here"},
        {"name": "careful", "match": {"sensitivity": ["medium", "high"]}, "model": "here"},
        {"name": "legal", "match": {"task": ["law", "court"], "sensitivity": "high"},
         "model": "here"},
        {"name": "chat", "match": {"task": ["chat", "talk"]}, "model": "mid"},
        {"name": "talk", "match": {"task": ["chat", "talk", "gossip"]}, "model": "mid"},
        {"name": "any", "match": {"tier": "gold"}, "model": "mid"},
    ],
    "default": {"model": "mid"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("why", "named", "text", "labels", "told"),
    [
        ("plain", "chat", "Hi", {}, Labels("chat", "low")),
        ("its own first value", "chat", "Hi", {"task": "x"}, Labels("chat", "low")),
        ("the one that was said", "chat", "Hi", {"task": "talk"}, Labels("talk", "low")),
        ("the one that no earlier route takes", "talk", "Hi", {}, Labels("gossip", "low")),
        ("other labels stay told", "any", "Hi", {"task": "x"}, Labels("x", "low", "gold")),
        ("a name may raise", "careful", "Hi", {}, Labels(None, "medium")),
        ("no further than need be", "careful", "secret", {}, Labels(None, "high")),
        ("sensitive, and chat", "chat", "secret", {}, "careful"),
        ("sensitive, and any", "any", "secret", {"tier": "gold"}, "careful"),
        ("sensitive by its label", "talk", "Hi", {"sensitivity": "medium"}, "careful"),
        ("sensitive, and the default", "default", "secret", {}, "careful"),
        ("too sensitive", "fast", "secret", {}, "careful"),
        ("an earlier route takes all of it", "legal", "secret", {"task": "law"}, "careful"),
        ("the default", "default", "Hi", {}, Labels(None, "low")),
    ],
)
def test_a_name_opens_no_way_that_labels_do_not(why, named, text, labels, told):
    chosen = ask(named, text, GUARDED, **labels)
    if isinstance(told, Labels):
        assert isinstance(chosen, Chosen), why
        assert (chosen.of.name, chosen.labels, chosen.reason) == (
            named, told, Reason.CLASS_NAMED,
        ), why  # fmt: skip
    else:
        assert isinstance(chosen, NotPermitted), why
        assert f"class {told} takes it; ask for model auto" in str(chosen), why


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


@given(
    st.lists(matches, min_size=1, max_size=4),
    st.builds(Labels, words, st.sampled_from(SENSITIVITIES), words),
    st.integers(0, 3),
)
def test_a_class_may_be_named_where_labels_could_lead(written, labels, place):
    routes = tuple(Route(match=match, model="here") for match in written)
    models = {"here": {"triton": {}}}
    document = Document.model_validate({"models": models}).model_copy(update={"routes": routes})
    made = Policy(document, "v")
    wanted = made.classes[place % len(routes)]
    said = [None, "a", "b", "auto", "default", "here"]
    risen = SENSITIVITIES[SENSITIVITIES.index(labels.sensitivity) :]
    ways = [Labels(*way) for way in product(said, risen, said)]
    led = [choose(made, request(labels=way)) for way in ways]
    reached = {found.of.name for found in led if isinstance(found, Chosen)}
    named = choose(made, request(model=wanted.name, labels=labels))
    assert isinstance(named, Chosen) is (wanted.name in reached)
    assert not isinstance(named, Chosen) or named.of is wanted


def priced(usd, **changed):
    cloud = {"openai": {"model": "x"}, "price": {"input_usd_per_mtok": usd}, **changed}
    document = {"models": {"cloud": cloud}, "default": {"model": "cloud"}}
    return Policy(Document.model_validate(document), f"at {usd}")


def test_new_prices_are_taken_over_and_nothing_else_is():
    held = priced(1.0)
    assert held.reprice(priced(2.0))
    assert held.targets["cloud"].price.input_usd_per_mtok == 2.0
    assert held.version == "at 2.0"
    assert not held.reprice(priced(3.0, residency="eu"))
    assert held.targets["cloud"].price.input_usd_per_mtok == 2.0
