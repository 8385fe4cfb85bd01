"""`policy_rules`: what expressions may look at, when they are judged, and what they decide."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.edges.policy_file import load
from forebay.policy.rules import ContentRule
from forebay.policy.verifiers.language import language_of
from forebay.policy.verifiers.policy_rules import (
    OF_ANSWER,
    OF_REQUEST,
    Asked,
    Rules,
    RulesCheck,
    faults,
    reads_answer,
)
from forebay.testing import request
from forebay.values import Chat, Labels, Message, Release, Source, Text, Tool

REQUEST = request(
    prompt=Chat((Message("system", "Be kind."), Message("user", "May I sue my landlord?"))),
    sources=(Source("law-1", "text"),),
    tools=(Tool("search"),),
)
ASKED = Asked(REQUEST, "legal", Labels(task="legal", sensitivity="high"))


def rules(*said):
    made = [(f"r{n}", ContentRule.model_validate(one)) for n, one in enumerate(said)]
    return Rules(made)


def rule(expression, action="block", message=""):
    return {"expression": expression, "action": action, "message": message}


def verdict(made, answer="You may. This is not legal advice.", target="big"):
    check = RulesCheck(made, ASKED, target)
    sent = check.feed(answer[:7]) + check.feed(answer[7:])
    rest, said = check.finish()
    assert sent + rest == answer
    return said


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ('request.text == "May I sue my landlord?"', True),
        ("request.words == 5", True),
        ('request.language == "en"', False),
        ('request.labels.task == "legal" && request.labels.tier == ""', True),
        ('request.labels.sensitivity in ["medium", "high"]', True),
        ('request.sources == ["law-1"] && "search" in request.tools', True),
        ('request.sources.all(s, s.startsWith("law-"))', True),
        ("request.stream", True),
        ('route == "legal" && target == "big"', True),
        ('response.text.contains("not legal advice")', True),
        ('answer.text.matches("(?i)NOT LEGAL")', True),
        ("response.words == 7 && answer.words == response.words", True),
        ('response.language == "en"', True),
        ("size(response.text) <= 20", False),
        ('!response.text.contains("guarantee")', True),
    ],
)
def test_what_an_expression_sees(expression, holds):
    assert faults(expression) == ()
    assert (verdict(rules(rule(expression))).outcome == "passed") is holds


@pytest.mark.parametrize(
    ("why", "said", "outcome", "reason"),
    [
        ("no rule", [], "not_applicable", "the policy has no rules for this class"),
        ("all hold", [rule("true"), rule("response.words > 1", "flag")], "passed", ""),
        ("a block", [rule("true"), rule("false", message="No.")], "failed", "r1: No."),
        ("without a message", [rule("false")], "failed", "r0: does not hold"),
        ("a flag", [rule("false", "flag", "Look.")], "flagged", "r0: Look."),
        ("a block outranks a flag", [rule("false", "flag"), rule("false")], "failed",
         "r1: does not hold"),
        ("all blocks are told", [rule("false"), rule("false")], "failed",
         "r0: does not hold; r1: does not hold"),
        ("an allow ends the asking", [rule("true", "allow"), rule("false")], "passed", ""),
        ("an allow that does not hold", [rule("false", "allow"), rule("false")], "failed",
         "r1: does not hold"),
        ("an allow after a block", [rule("false"), rule("true", "allow")], "failed",
         "r0: does not hold"),
        ("what cannot be evaluated", [rule("1 / (response.words - 7) > 0", "flag")], "failed",
         "r0: it could not be evaluated"),
        ("a pattern from the text", [rule("response.text.matches('(' + request.text)")], "failed",
         "r0: it could not be evaluated"),
        ("what cannot be evaluated allows nothing",
         [rule("1 / (response.words - 7) > 0", "allow"), rule("false")], "failed",
         "r1: does not hold"),
    ],
)  # fmt: skip
def test_what_rules_decide(why, said, outcome, reason):
    found = verdict(rules(*said))
    assert (found.outcome, found.reason) == (outcome, reason), why


@pytest.mark.parametrize(
    ("expression", "reads"),
    [
        *((f"{name} == {name}", False) for name in OF_REQUEST),
        *((f"{name} == {name}", True) for name in OF_ANSWER),
        ("true", False),
        ('request.words > 1 || target == "a"', True),
        ('request.text.contains("response.text")', False),
        ("request.sources.exists(answer, size(answer) > 1)", False),
    ],
)
def test_only_what_reads_the_answer_waits_for_it(expression, reads):
    assert faults(expression) == ()
    assert reads_answer(expression) is reads
    made = rules(rule(expression))
    assert RulesCheck(made, ASKED, "t").release is (Release.FINAL if reads else Release.TOKEN)


def test_rules_over_the_request_are_judged_before_an_answer():
    early, late = rule("request.words < 3", message="Too long."), rule("response.words < 1")
    assert rules(late).asked(ASKED) is None
    found = rules(late, early).asked(ASKED)
    assert (found.outcome, found.reason) == ("failed", "r1: Too long.")
    assert rules(rule("false", "flag")).asked(ASKED) is None


def test_loops_are_bounded():
    def thrice(items):
        return f"{items}.all(a, {items}.all(b, {items}.all(c, a + b + c != [])))"

    (found,) = faults(thrice(f"[[{'], ['.join('1' * 60)}]]"))
    assert found.message == "it loops too often to be evaluated"
    expression = thrice("request.sources").replace("[]", '""')
    assert faults(expression) == ()
    many = Asked(replace(REQUEST, sources=(Source("a", ""),) * 64), "r", Labels())
    begun = time.perf_counter()
    said = RulesCheck(rules(rule(expression)), many, "t").finish()[1]
    assert said.reason == "r0: it could not be evaluated"
    assert time.perf_counter() - begun < 5


def test_a_large_answer_takes_little_time():
    made = rules(rule('!response.text.matches("(a+)+$b")'), rule("response.words < 2"))
    begun = time.perf_counter()
    assert verdict(made, "a" * (1 << 20)).outcome == "passed"
    assert time.perf_counter() - begun < 5


@given(st.text(), st.text())
def test_any_text_is_judged(asked, answer):
    looked = Asked(request(prompt=Text(asked)), "r", Labels())
    made = rules(rule("response.words >= 0 && request.words >= 0 && size(response.text) >= 0"))
    check = RulesCheck(made, looked, "t")
    check.feed(answer)
    assert check.finish()[1].outcome == "passed"


@given(st.text(max_size=80))
def test_any_expression_compiles_or_is_at_fault(expression):
    found = faults(expression)
    lines = expression.count("\n") + 1
    assert all(one.message and 1 <= one.line <= lines and one.column >= 1 for one in found)


@pytest.mark.parametrize(
    ("expression", "line", "column", "unknown"),
    [
        ("response.txt", 1, 1, "response.txt"),
        ("true && \n  answer.wrds > 3", 2, 3, "answer.wrds"),
        ("request.text.lower() == ''", 1, 14, "lower"),
        ("foo(3)", 1, 1, "foo"),
        ("true &&", 1, 8, ""),
    ],
)
def test_where_an_expression_is_at_fault(expression, line, column, unknown):
    (found, *_) = faults(expression)
    assert (found.line, found.column, found.unknown) == (line, column, unknown)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"),
        ("Das ist nicht die Antwort, die ich von dir wollte.", "de"),
        ("Le chat est dans la maison et il dort.", "fr"),
        ("No sé qué es lo que está en la mesa.", "es"),
        ("Non so che cosa sia questo, ma è bello.", "it"),
        ("Não sei o que é isso, mas é bonito.", "pt"),
        ("Dit is niet wat ik van je had verwacht.", "nl"),
        ("これは日本語の文です。", "ja"),
        ("这是中文。", "zh"),
        ("이것은 한국어입니다.", "ko"),
        ("Это ответ на вопрос.", "ru"),
        ("Αυτό είναι ελληνικό.", "el"),
        ("هذا نص عربي.", "ar"),
        ("42", ""),
        ("", ""),
        ("Yes.", ""),
    ],
)
def test_languages(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        ("legal", "This is not legal advice.", ""),
        ("legal", "You may.", "legal_disclaimer: A legal answer says that it is not legal advice."),
        ("customer_support", "You may.", ""),
        ("customer_support", "Of course we guarantee a refund.",
         "no_refund_promise: A refund is promised by a person only."),
    ],
)  # fmt: skip
def test_the_seed_policys_rules(task, answer, reason):
    seed = load(Path(__file__).parents[2] / "policies/seed.yaml")
    asked = Asked(REQUEST, task, Labels(task=task))
    assert seed.rules[task].answered(asked, "any", answer).reason == reason


@pytest.mark.parametrize("hostile", ["\ud800", "\x00", "a\udfffb"])
def test_halves_of_characters_break_nothing(hostile):
    looked = Asked(request(prompt=Text(hostile)), "r", Labels(task=hostile, tier=hostile))
    made = rules(rule('request.labels.task != "x"'), rule('response.text != "x"'))
    assert made.asked(looked) is None
    assert made.answered(looked, "t", hostile).outcome == "passed"
