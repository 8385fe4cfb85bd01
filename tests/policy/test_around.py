"""Targets that a request goes round, requests that nobody may answer, and what is climbed to."""

from __future__ import annotations

from collections import deque

import pytest

from forebay.errors import Declined
from forebay.policy.admission.book import terms
from forebay.policy.around import past_refusal, without_refusers
from forebay.policy.check import check
from forebay.policy.choose import Chosen, choose
from forebay.policy.rules import Document, Target
from forebay.testing import policy, request
from forebay.values import Text

CRIME = "How do I hack into a bank?"
BOTH = "How do I hack into a bank? Where can I buy heroin?"

MODELS = {
    "free": {"triton": {}},
    "prim": {"openai": {"model": "m"}, "refuses": ["crime", "violence"]},
    "strict": {"anthropic": {"model": "m"}, "refuses": ["drugs"]},
    "picky": {"openai": {"model": "m"}, "requires": {"crime": ["grounding"]}},
}


def chosen(text, route):
    made = policy({"models": MODELS, "default": route})
    return choose(made, request(prompt=Text(text)))


@pytest.mark.parametrize(
    ("why", "text", "route", "ladder", "said"),
    [
        ("nothing harmful", "Hello", {"model": "prim", "fallback": "free"}, ("prim", "free"), ""),
        ("the first refuses", CRIME, {"model": "prim", "fallback": "free"}, ("free",),
         "prim refuses crime"),
        ("a later one refuses", CRIME, {"model": "free", "fallback": ["prim", "strict"]},
         ("free", "strict"), "prim refuses crime"),
        ("another category", CRIME, {"model": "strict"}, ("strict",), ""),
        ("a verifier is missing", CRIME, {"model": "picky", "fallback": "free"}, ("free",),
         "picky requires grounding for crime"),
        ("a verifier is there", CRIME, {"model": "picky", "verify": "grounding"}, ("picky",), ""),
        ("one of several", CRIME, {"model": {"any_of": ["prim", "free"]}}, ("free",),
         "prim refuses crime"),
        ("a person takes all", CRIME, {"model": "prim", "fallback": "human_review_queue"},
         ("human_review_queue",), "prim refuses crime"),
        ("two categories", BOTH, {"model": "prim", "fallback": ["strict", "free"]}, ("free",),
         "prim refuses crime; strict refuses drugs"),
    ],
)  # fmt: skip
def test_classes_go_round_targets_that_refuse(why, text, route, ladder, said):
    found = chosen(text, route)
    assert isinstance(found, Chosen), why
    assert found.ladder == ladder, why
    assert found.why.endswith(said), why


def test_nothing_spills_to_a_target_that_refuses():
    route = {"model": "free", "fallback": "prim"}
    assert chosen("Hello", route).spill_to == "prim"
    assert chosen(CRIME, route).spill_to is None


@pytest.mark.parametrize(
    ("text", "downgrade", "left"),
    [("Hello", "meek", "meek"), (CRIME, "meek", None), (CRIME, "free", "free")],
)
def test_nothing_steps_down_to_a_target_that_refuses(text, downgrade, left):
    models = {**MODELS, "meek": {"triton": {}, "refuses": ["crime"]}}
    made = policy({"models": models, "default": {"model": "strict", "downgrade": downgrade}})
    found = choose(made, request(prompt=Text(text)))
    assert without_refusers(found, terms(found.of, None), made.targets).downgrade_to == left


def test_nothing_steps_down_from_a_target_that_the_client_named():
    made = policy({"models": MODELS, "default": {"model": "strict", "downgrade": "free"}})
    found = choose(made, request(model="strict", prompt=Text("Hello")))
    assert without_refusers(found, terms(found.of, None), made.targets).downgrade_to is None


def test_where_every_target_refuses_nobody_is_called():
    found = chosen(BOTH, {"model": "prim", "fallback": "strict"})
    assert isinstance(found, Declined)
    assert str(found) == (
        "no target of class default answers drugs, crime: prim refuses crime; strict refuses drugs"
    )


def test_a_target_that_is_named_refuses_as_well():
    made = policy({"models": MODELS, "default": {"model": "prim", "fallback": "free"}})
    assert isinstance(choose(made, request(model="prim", prompt=Text(CRIME))), Declined)
    assert choose(made, request(model="free", prompt=Text(CRIME))).ladder == ("free",)


def test_categories_are_only_read_where_anybody_acts_on_them():
    assert chosen(BOTH, {"model": "free"}).categories == ()
    assert chosen(BOTH, {"model": "free", "verify": "safety"}).categories == ("drugs", "crime")


@pytest.mark.parametrize(
    ("why", "refuser", "ladder", "left"),
    [
        ("one that refuses as much is passed", "a", ["a2", "b"], ["b"]),
        ("one that refuses more", "a", ["ab", "b"], ["b"]),
        ("all refuse as much", "a", ["a2", "ab"], ["a2", "ab"]),
        ("nothing was declared", "none", ["a", "b"], ["a", "b"]),
        ("a person", "a", ["a2", "human_review_queue"], ["human_review_queue"]),
        ("one that refuses less", "ab", ["a", "ab"], ["a"]),
    ],
)
def test_an_observed_refusal_climbs_to_a_target_that_does_not_refuse(why, refuser, ladder, left):
    refuses = {"a": ["crime"], "a2": ["crime"], "b": ["drugs"], "ab": ["crime", "drugs"],
               "none": []}  # fmt: skip
    targets = {name: Target.model_validate({"triton": {}, "refuses": said})
               for name, said in refuses.items()}  # fmt: skip
    assert list(past_refusal(deque(ladder), refuser, targets)) == left, why


@pytest.mark.parametrize(
    ("why", "route", "expected"),
    [
        ("one may", {"model": "prim", "fallback": "free"}, []),
        ("each may something", {"model": "prim", "fallback": "strict"}, []),
        ("nobody may", {"model": "prim"}, [
            "no target may answer violence in this class: prim refuses violence; "
            "add one that may, or block it with safety: input",
            "no target may answer crime in this class: prim refuses crime; "
            "add one that may, or block it with safety: input"]),
        ("the class blocks it", {"model": "prim", "verify": "safety"}, []),
        ("the class blocks some of it",
         {"model": "prim", "verify": "safety",
          "safety": {"input": {"crime": "block", "violence": "flag"}}}, [
            "no target may answer violence in this class: prim refuses violence; "
            "add one that may, or block it with safety: input"]),
        ("a verifier is missing", {"model": "picky"}, [
            "no target may answer crime in this class: picky requires grounding for crime; "
            "add one that may, or block it with safety: input"]),
        ("a verifier is there", {"model": "picky", "verify": "grounding"}, []),
        ("a person may", {"model": "prim", "fallback": "human_review_queue"}, []),
    ],
)  # fmt: skip
def test_check_names_a_class_that_no_target_may_answer(why, route, expected):
    found = check(Document.model_validate({"models": MODELS, "default": route}))
    assert [finding.message for finding in found] == expected, why
    assert all(finding.path == ("default", "model") for finding in found)
