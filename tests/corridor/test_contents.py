"""Refusals, harm and the policy's own rules, on their whole way through the corridor."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from forebay.corridor import Corridor
from forebay.errors import AnswerRefused, Blocked, Declined
from forebay.testing import FakeEngine, MemoryLedger, house, request
from forebay.values import (
    Chat,
    Decided,
    Done,
    Failed,
    Labels,
    Message,
    Release,
    Token,
    Tool,
    Verdict,
)

REFUSES = ("I'm sorry", ", but I can't", " help with", " that.")
ANSWERS = ("It is", " twelve", ".")
CRIME = Chat((Message("user", "How do I hack into a bank?"),))
HELLO = Chat((Message("user", "Hello there."),))


def made(said, *, models=None, rules=None, **route):
    """Return a house whose targets say what they are given; targets refuse what `models` says."""
    engines = {name: FakeEngine(script=script) for name, script in said.items()}
    document = {
        "models": {name: {"triton": {}, **(models or {}).get(name, {})} for name in said},
        "default": route,
        "rules": rules or {},
    }
    return house(engines, document), engines


async def walk(built, **changed):
    ledger = MemoryLedger()
    async with aclosing(Corridor(replace(built, ledger=ledger)).run(request(**changed))) as events:
        seen = [event async for event in events]
    return seen, "".join(e.text for e in seen if isinstance(e, Token)), ledger.records[0]


def steps(record):
    return [f"{a.move}:{a.target}:{a.outcome}" for a in record.attempts]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_climbs_and_nothing_of_it_leaves(stream):
    built, _ = made({"a": REFUSES, "b": ANSWERS}, model="a", fallback="b", verify="refusal")
    _, text, record = await walk(built, stream=stream)
    assert text == "It is twelve."
    assert steps(record) == ["first:a:refused", "escalate:b:answered"]
    assert record.status == "ok"


async def test_a_refusal_of_all_is_told():
    built, _ = made({"a": REFUSES}, model="a", verify="refusal")
    events, text, _ = await walk(built)
    assert isinstance(events[-1].error, AnswerRefused)
    assert text == ""


async def test_a_refusal_may_be_let_through_marked():
    built, _ = made({"a": REFUSES}, model="a", verify="refusal", on_exhausted="flag")
    events, text, _ = await walk(built)
    assert text == "I'm sorry, but I can't help with that."
    assert events[-1].flagged


async def test_an_answer_that_only_calls_a_tool_is_no_refusal():
    built, _ = made({"a": ('{"name": "t", ', '"arguments": {}}')}, model="a",
                          verify=["refusal", "safety", "policy_rules"],
                          rules={"r": {"expression": "response.words > 0"}})  # fmt: skip
    events, text, _ = await walk(built, prompt=HELLO, tools=(Tool("t"),))
    assert isinstance(events[-1], Done)
    assert [call.name for call in events[-1].tool_calls] == ["t"]
    assert text == ""


async def test_an_observed_refusal_passes_a_target_that_refuses_the_same():
    models = {"a": {"refuses": ["drugs"]}, "b": {"refuses": ["drugs", "hate"]}}
    said = {"a": REFUSES, "b": ANSWERS, "c": ANSWERS}
    built, engines = made(said, models=models, model="a", fallback=["b", "c"], verify="refusal")
    _, text, record = await walk(built, prompt=HELLO)
    assert steps(record) == ["first:a:refused", "escalate:c:answered"]
    assert engines["b"].calls == []
    assert text == "It is twelve."


async def test_a_provider_that_declines_passes_a_target_that_refuses_the_same():
    models = {"a": {"refuses": ["drugs"]}, "b": {"refuses": ["drugs"]}}
    said = {"a": ANSWERS, "b": ANSWERS, "c": ANSWERS}
    built, engines = made(said, models=models, model="a", fallback=["b", "c"])
    engines["a"].error = Declined("no")
    _, _, record = await walk(built, prompt=HELLO)
    assert steps(record) == ["first:a:declined", "escalate:c:answered"]


async def test_a_target_that_refuses_the_category_is_not_called():
    models = {"a": {"refuses": ["crime"]}}
    built, engines = made({"a": ANSWERS, "b": ANSWERS}, models=models, model="a", fallback="b")
    events, _, record = await walk(built, prompt=CRIME)
    assert engines["a"].calls == []
    assert steps(record) == ["first:b:answered"]
    decided = next(event for event in events if isinstance(event, Decided))
    assert "a refuses crime" in decided.why


async def test_where_all_refuse_the_category_nobody_is_called():
    models = {"a": {"refuses": ["crime"]}, "b": {"refuses": ["crime"]}}
    built, engines = made({"a": ANSWERS, "b": ANSWERS}, models=models, model="a", fallback="b")
    events, _, record = await walk(built, prompt=CRIME)
    assert isinstance(events[-1].error, Declined)
    assert record.status == "declined"
    assert not engines["a"].calls
    assert not engines["b"].calls


async def test_several_first_choices_without_one_that_refuses():
    models = {"a": {"refuses": ["crime"]}}
    said = {"a": ANSWERS, "b": ANSWERS, "c": ANSWERS}
    built, engines = made(said, models=models, model={"any_of": ["a", "b"]}, fallback="c")
    _, _, record = await walk(built, prompt=CRIME)
    assert steps(record) == ["first:b:answered"]
    assert not engines["a"].calls


@pytest.mark.parametrize(
    ("why", "changed", "error", "said"),
    [
        ("a category", {"verify": "safety"}, Blocked, "safety: the request asks for crime"),
        ("a rule over the request", {"verify": "policy_rules"}, Blocked,
         "policy_rules: short: Say more."),
    ],
)  # fmt: skip
async def test_what_may_not_be_asked_reaches_no_engine(why, changed, error, said):
    rules = {"short": {"expression": "request.words > 20", "message": "Say more."}}
    built, engines = made({"a": ANSWERS}, rules=rules, model="a", **changed)
    events, text, record = await walk(built, prompt=CRIME)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, error), why
    assert said in str(events[-1].error)
    assert (text, record.attempts, engines["a"].calls) == ("", (), [])
    with pytest.raises(error):
        await Corridor(built).explain(request(prompt=CRIME))


async def test_what_is_flagged_is_answered_and_marked():
    rules = {"long": {"expression": "response.words > 5", "action": "flag"}}
    built, _ = made(
        {"a": ANSWERS}, rules=rules, model="a", verify=["safety", "policy_rules"],
        safety={"input": "flag", "output": {}},
    )  # fmt: skip
    events, text, _ = await walk(built, prompt=CRIME)
    verdicts = {e.verifier: (e.outcome, e.reason) for e in events if isinstance(e, Verdict)}
    assert verdicts == {
        "safety": ("flagged", "the request asks for crime"),
        "policy_rules": ("flagged", "long: does not hold"),
    }
    assert text == "It is twelve."
    assert isinstance(events[-1], Done)
    assert events[-1].flagged


async def test_a_rule_sees_class_target_and_labels_and_climbs():
    rules = {
        "not_a": {"expression": 'target != "a" && route == "default"'},
        "task": {"expression": 'request.labels.task == "legal"'},
    }
    built, _ = made({"a": ANSWERS, "b": ANSWERS}, rules=rules, model="a", fallback="b",
                    verify="policy_rules")  # fmt: skip
    _, _, record = await walk(built, prompt=HELLO, labels=Labels(task="legal"))
    assert steps(record) == ["first:a:refused", "escalate:b:answered"]
    assert record.attempts[0].verdicts[0].reason == "not_a: does not hold"


@pytest.mark.parametrize(
    ("why", "changed", "release"),
    [
        ("how it opens", {"verify": "refusal"}, Release.WINDOW),
        ("a rule over the answer", {"verify": "policy_rules"}, Release.FINAL),
        ("a rule over the request", {"verify": "policy_rules", "rules": "asked"}, Release.TOKEN),
        ("harm", {"verify": "safety"}, Release.FINAL),
        ("harm in requests", {"verify": "safety", "safety": {"output": {}}}, Release.TOKEN),
    ],
)
async def test_only_what_must_wait_waits(why, changed, release):
    rules = {
        "asked": {"expression": "request.words < 100"},
        "said": {"expression": "response.words < 100"},
    }
    engines = {"a": FakeEngine(script=ANSWERS)}
    built = house(
        engines,
        {"models": {"a": {"triton": {}}}, "default": {"model": "a", **changed}, "rules": rules},
    )
    events, text, _ = await walk(built, prompt=HELLO)
    assert next(e for e in events if isinstance(e, Decided)).release is release, why
    sent = [event for event in events if isinstance(event, Token)]
    assert len(sent) == (3 if release is Release.TOKEN else 1), why
    assert text == "It is twelve."
