"""`grounding`: what an answer states must stand in some source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.rules import Route
from forebay.policy.verifiers.grounding import judged
from forebay.policy.verifiers.support import library
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import Release, Source

GIVEN = (
    Source("a", "Janet's ducks lay 16 eggs per day. She does not sell them on Sundays."),
    Source("b", "Dylan bought 38 chicken sausages in Berlin for the party."),
)


def verdict(answer, sources=GIVEN):
    return judged(answer, library(tuple(sources)))


@pytest.mark.parametrize(
    ("why", "answer", "outcome"),
    [
        ("as it stands", "Janet's ducks lay 16 eggs per day.", "passed"),
        ("in other words", "Every day the ducks of Janet lay sixteen eggs.", "passed"),
        ("of both sources", "The ducks lay 16 eggs, and Dylan bought 38 sausages.", "passed"),
        ("negated there too", "She does not sell them on Sundays.", "passed"),
        ("cited in passing", "The ducks lay 16 eggs a day [a].", "passed"),
        ("another number", "Janet's ducks lay 17 eggs per day.", "failed"),
        ("another name", "The ducks of Maria lay 16 eggs.", "failed"),
        ("negated", "Janet's ducks do not lay 16 eggs per day.", "failed"),
        ("no longer negated", "She sells them on Sundays.", "failed"),
        ("of neither", "The moon is a distant and silent cheese.", "failed"),
        ("mixed", "Dylan bought 16 chicken sausages in Berlin.", "failed"),
        ("one sentence of two", "Janet's ducks lay 16 eggs per day. Whales sing songs.", "failed"),
        ("nothing", "Hello!", "not_applicable"),
    ],
)
def test_what_is_grounded(why, answer, outcome):
    got = verdict(answer)
    assert got.outcome == outcome, (why, got)


def test_without_sources_nothing_is_judged_and_nothing_waits():
    route = Route(model="m", verify=("grounding",))
    gate = Gate(route.verify, subject(route, request(), enforced=False))
    assert gate.release is Release.TOKEN
    assert gate.feed("Whales sing.") == "Whales sing."
    assert gate.finish()[1][0].outcome == "not_applicable"


def test_a_verdict_says_where():
    got = verdict("Janet's ducks lay 16 eggs per day. Whales sing long songs.")
    assert got.spans == ((35, 58),)
    assert got.reason == "sentence 2: no source has its names, numbers and words together"


facts = st.sampled_from([one for source in GIVEN for one in source.text.split(". ")])


@given(st.lists(facts, min_size=1, max_size=4), st.integers(0, 40))
def test_sentences_of_the_sources_pass_among_any_number_of_others(said, others):
    sources = (*(Source(f"x{n}", f"Filler {n} is here.") for n in range(others)), *GIVEN)
    assert verdict(" ".join(f"{one.rstrip('.')}." for one in said), sources).outcome == "passed"


@given(st.text(), st.lists(st.builds(Source, st.text(), st.text()), max_size=3))
def test_any_answer_on_any_sources_ends_in_a_verdict_within_it(answer, sources):
    got = verdict(answer, sources)
    assert got.outcome in ("passed", "failed", "not_applicable")
    assert all(0 <= first < last <= len(answer) for first, last in got.spans)
