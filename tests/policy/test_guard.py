"""The gate's guard: a verifier that raises, is late or talks nonsense lets nothing go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.rules import Route
from forebay.policy.verify import Gate, check, subject
from forebay.testing import ManualClock, request
from forebay.values import Release, ToolCall, Verdict

NAME = "grounding"
GOOD = Verdict(NAME, "passed")


class Odd:
    """A verifier that does as a test says."""

    name = NAME

    def __init__(self, *, feed=None, finish=None, release=Release.TOKEN):
        self._feed = feed or (lambda text: text)
        self._finish = finish or (lambda: ("", GOOD))
        self.release = release

    def feed(self, text):
        return self._feed(text)

    def finish(self):
        return self._finish()


def gate(odd, verify=(NAME,), clock=None, **changed):
    looked = subject(Route(model="m", verify=verify), request(), enforced=False)
    clock = clock or ManualClock()

    def make(name, subject):
        return odd if name == odd.name else check(name, subject)

    return Gate(verify, looked, now_s=clock.now_s, make=make, **changed)


def raises(*_):
    raise KeyError("a secret")


@pytest.mark.parametrize(
    ("why", "made", "reason"),
    [
        ("feed raises", {"feed": raises}, "it raised KeyError"),
        ("feed raises of itself", {"feed": [].index}, "it raised ValueError"),
        ("finish raises", {"finish": raises}, "it raised KeyError"),
        ("no text", {"feed": lambda _: None}, "it returned what is no text"),
        ("bytes", {"feed": lambda text: text.encode()}, "it returned what is no text"),
        ("another text", {"feed": str.upper}, "it returned another text than it was given"),
        ("more text", {"feed": lambda text: text * 2}, "it returned another text than it was"),
        ("text at the end", {"finish": lambda: ("more", GOOD)}, "it returned another text"),
        ("text swallowed", {"feed": lambda _: ""}, "it returned another text"),
        ("no pair", {"finish": lambda: GOOD}, "it raised TypeError"),
        ("nothing", {"finish": lambda: None}, "it raised TypeError"),
        ("no verdict", {"finish": lambda: ("", True)}, "it returned no verdict of its own"),
        ("another's verdict", {"finish": lambda: ("", Verdict("safety", "passed"))},
         "it returned no verdict of its own"),
        ("an unknown outcome", {"finish": lambda: ("", Verdict(NAME, "ok"))}, "it returned no out"),
        ("no reason", {"finish": lambda: ("", Verdict(NAME, "passed", None))},
         "it returned no outcome and reason"),
        ("a span behind the end", {"finish": lambda: ("", Verdict(NAME, "passed", "", ((0, 99),)))},
         "it returned a span outside the answer"),
        ("a span turned round", {"finish": lambda: ("", Verdict(NAME, "passed", "", ((2, 1),)))},
         "it returned a span outside the answer"),
        ("spans that are none", {"finish": lambda: ("", Verdict(NAME, "passed", "", (1,)))},
         "it raised TypeError"),
    ],
)  # fmt: skip
def test_a_verifier_that_breaks_fails_and_releases_nothing(why, made, reason):
    broken = gate(Odd(release=Release.FINAL, **made))
    assert [broken.feed(part) for part in ("Hello", " there")] == ["", ""], why
    rest, (verdict,) = broken.finish()
    assert rest == "Hello there", why
    assert (verdict.verifier, verdict.outcome) == (NAME, "failed"), why
    assert verdict.reason.startswith(f"the verifier broke: {reason}"), why
    assert "secret" not in verdict.reason


@pytest.mark.parametrize("where", ["feed", "finish"])
@pytest.mark.parametrize(("took_s", "outcome"), [(0.049, "passed"), (0.051, "failed")])
def test_a_verifier_has_a_budget_for_each_step(where, took_s, outcome):
    clock = ManualClock()

    def late(*said):
        clock.time_s += took_s
        return said[0] if said else ("", GOOD)

    made = gate(Odd(**{where: late}), clock=clock, stream=Release.FINAL)
    assert [made.feed(part) for part in "abc"] == ["", "", ""]
    rest, (verdict,) = made.finish()
    assert (rest, verdict.outcome) == ("abc", outcome)
    if outcome == "failed":
        assert verdict.reason == "the verifier broke: it took 51 ms, and has 50"


def test_the_budget_is_the_gates():
    clock = ManualClock()

    def late(text):
        clock.time_s += 0.2
        return text

    made = gate(Odd(feed=late), clock=clock, budget_s=0.3)
    assert made.feed("Hi") == "Hi"
    assert made.finish()[1][0].outcome == "passed"


def test_once_a_verifier_broke_nothing_more_leaves_a_stream():
    said = iter(["a", "b"])
    made = gate(Odd(feed=lambda _: next(said)))
    assert [made.feed(part) for part in "abcd"] == ["a", "b", "", ""]
    rest, (verdict,) = made.finish()
    assert (rest, verdict.outcome) == ("cd", "failed")


class Leaky(Odd):
    name = "pii_redaction"


def test_what_a_broken_redaction_holds_is_never_handed_on():
    made = gate(Leaky(feed=raises), ("pii_redaction", "grounding"))
    assert made.feed("ann@firma.de") == ""
    sent = made.called((ToolCall("1", "mail", '{"to": "ann@firma.de"}'),))
    rest, verdicts = made.finish()
    assert rest == ""
    assert "ann" not in repr(sent)
    assert verdicts[0].outcome == "failed"


def test_a_verifier_that_knows_no_calls_reads_them_as_text():
    seen = []

    def feed(text):
        seen.append(text)
        return text

    made = gate(Odd(feed=feed))
    assert made.feed("Hi") == "Hi"
    made.called((ToolCall("1", "mail", '{"to": "\\u0041nn"}'),))
    assert made.finish() == ("", (GOOD,))
    assert seen == ["Hi", '\n{"name": "mail", "arguments": {"to": "Ann"}}']


def test_spans_are_of_the_text_alone():
    said = Verdict(NAME, "failed", "both", ((0, 2), (1, 20)))
    made = gate(Odd(finish=lambda: ("", said)))
    assert made.feed("Hi") == "Hi"
    made.called((ToolCall("1", "mail", '{"to": "Ann"}'),))
    assert made.finish()[1] == (Verdict(NAME, "failed", "both", ((0, 2),)),)


def test_what_a_verifier_holds_back_leaves_without_the_calls_it_read():
    held = []

    def feed(text):
        held.append(text)
        return ""

    made = gate(Odd(feed=feed, finish=lambda: ("".join(held), GOOD)))
    assert made.feed("Hi") == ""
    made.called((ToolCall("1", "mail", "no JSON"),))
    assert made.finish() == ("Hi", (GOOD,))


odd_values = st.none() | st.booleans() | st.text(max_size=3) | st.integers()
verdicts = st.builds(
    Verdict,
    st.sampled_from([NAME, "safety"]) | odd_values,
    st.sampled_from(["passed", "failed", "ok"]) | odd_values,
    odd_values,
    st.lists(st.tuples(st.integers(), st.integers()) | odd_values, max_size=2).map(tuple)
    | odd_values,
)


@given(st.lists(odd_values, max_size=3), st.tuples(odd_values, verdicts) | odd_values)
def test_whatever_a_verifier_returns_it_passes_only_by_a_verdict_that_is_one(fed, finished):
    says = iter(fed)
    made = gate(Odd(feed=lambda text: next(says, text), finish=lambda: finished))
    sent = [made.feed(part) for part in ("Hel", "lo")]
    rest, (verdict,) = made.finish()
    assert "".join(sent) + rest == "Hello"
    if verdict.outcome != "failed":
        assert isinstance(finished, tuple)
        assert finished[1] == verdict
        assert verdict.verifier == NAME
