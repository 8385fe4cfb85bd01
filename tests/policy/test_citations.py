"""`citations_required`: what cites, what is cited, and whether that says it too."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.policy.rules import Route
from forebay.policy.verifiers.citations import ANSWER_MAX, judged
from forebay.policy.verifiers.support import library
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import Release, Source

TREATY = (
    "The Treaty of Paris was signed on September 3, 1783. It formally ended the war and did not "
    "settle the debts of merchants."
)
RAIN = "Mawsynram in India has an average annual rainfall of 11,872 mm. It is a village."
GIVEN = (Source("1", TREATY), Source("kb-2", RAIN), Source("Annual report, 2020", "Sales rose."))


def verdict(answer, sources=GIVEN):
    return judged(answer, library(tuple(sources)).texts)


SIGNED = "The Treaty of Paris was signed in 1783"
WET = "Mawsynram has an average rainfall of 11,872 mm"


@pytest.mark.parametrize(
    ("why", "answer", "outcome"),
    [
        ("in square brackets", f"{SIGNED} [1].", "passed"),
        ("behind the full stop", f"{SIGNED}. [1]", "passed"),
        ("behind it without a space", f"{SIGNED}.[1]", "passed"),
        ("in parentheses", f"{WET} (kb-2).", "passed"),
        ("two sentences", f"{SIGNED} [1]. {WET} [kb-2].", "passed"),
        ("two parts of one", f"{SIGNED} [1], and {WET} [kb-2].", "passed"),
        ("two at once", f"{SIGNED} and {WET} [1][kb-2].", "passed"),
        ("two in one bracket", f"{SIGNED} and {WET} [1, kb-2].", "passed"),
        ("an id with a comma", "Sales rose [Annual report, 2020].", "passed"),
        ("cited first", f"According to [1], {SIGNED}.", "passed"),
        ("in a list", f"Facts:\n- {SIGNED} [1]\n- {WET} [kb-2]", "passed"),
        ("a question and a lead-in", f"When was it signed? Here:\n{SIGNED} [1].", "passed"),
        ("a disclaimer", f"{SIGNED} [1]. This is not legal advice.", "passed"),
        ("another disclaimer", "Please note that this does not constitute legal advice.",
         "not_applicable"),
        ("advice is a claim", "This is the best advice that merchants ever got.", "failed"),
        ("it does not know", "The sources do not say who signed the treaty.", "not_applicable"),
        ("nothing", "", "not_applicable"),
        ("a greeting", "Hello!", "not_applicable"),
        ("an abbreviation", f"Mr. Jay and e.g. others: {SIGNED} [1].", "failed"),
        ("no citation", f"{SIGNED}.", "failed"),
        ("one of two", f"{SIGNED} [1]. {WET}.", "failed"),
        ("cited on another line", f"{SIGNED}.\n[1]", "failed"),
        ("unknown", f"{SIGNED} [2].", "failed"),
        ("unknown beside a known one", f"{SIGNED} [1][2].", "failed"),
        ("unknown in the form of a known one", f"{WET} (kb-3).", "failed"),
        ("in another case", f"{WET} [KB-2].", "failed"),
        ("a look-alike", f"{WET} [kb\u20112].", "failed"),
        ("a link", f"{SIGNED} [1](https://a.example).", "failed"),
        ("numbering is no citation", f"(1) {SIGNED}.", "failed"),
        ("another's citation", f"{SIGNED} [kb-2].", "failed"),
        ("swapped within one sentence", f"{SIGNED} [kb-2], and {WET} [1].", "failed"),
        ("another year", "The Treaty of Paris was signed in 1784 [1].", "failed"),
        ("another name", "The Treaty of London was signed in 1783 [1].", "failed"),
        ("a number in words", "The treaty of Paris was signed on September three [1].", "passed"),
        ("negated", "The Treaty of Paris was not signed in 1783 [1].", "failed"),
        ("negated by a word", "The Treaty of Paris was never signed [1].", "failed"),
        ("negated by another word", "It is false that the treaty was signed [1].", "failed"),
        ("negated in letters that look alike", "The treaty was n\u043et signed [1].", "failed"),
        ("negated with what is not seen", "The treaty was n\u200bot signed [1].", "failed"),
        ("figures of another script", "It was signed in \uff11\uff17\uff18\uff14 [1].", "failed"),
        ("negated as it is there", "It did not settle the debts of merchants [1].", "passed"),
        ("no longer negated", "It did settle the debts of merchants [1].", "failed"),
        (
            "something else",
            "Merchants from Paris love expensive cheese and old wine [1].",
            "failed",
        ),
        ("a long heading is a claim", f"# {SIGNED} and 12 more things happened in it", "failed"),
        ("nothing was left out", f"{SIGNED} [...] [1].", "passed"),
        ("what was redacted is no citation", f"{SIGNED} by [EMAIL] [1].", "passed"),
    ],
)  # fmt: skip
def test_what_passes(why, answer, outcome):
    got = verdict(answer)
    assert got.outcome == outcome, (why, got)
    assert all(0 <= first < last <= len(answer) for first, last in got.spans), why


@pytest.mark.parametrize(
    ("answer", "reason", "spans"),
    [
        (f"{SIGNED} [1]. {WET}.", "sentence 2 cites no source", ((44, 91),)),
        (f"{WET} [9].", "sentence 1 cites a source that was not given", ((0, 51),)),
        ("The Treaty of Paris was signed in 1784 [1].",
         "sentence 1 is not supported by what it cites: a number in it is not there", ((0, 43),)),
        ("The Treaty of Rome was signed [1].",
         "sentence 1 is not supported by what it cites: a name in it is not there", ((0, 34),)),
    ],
    ids=range(4),
)  # fmt: skip
def test_a_verdict_says_where_and_why_and_quotes_nothing(answer, reason, spans):
    got = verdict(answer)
    assert (got.reason, got.spans) == (reason, spans)


def test_without_sources_no_claim_can_be_cited():
    assert verdict(f"{SIGNED} [1].", ()).outcome == "failed"
    assert verdict("I cannot say.", ()).outcome == "not_applicable"


def test_nothing_leaves_before_the_verdict():
    route = Route(model="m", verify=("citations_required",))
    gate = Gate(route.verify, subject(route, request(sources=GIVEN), enforced=False))
    assert gate.release is Release.FINAL
    assert [gate.feed(part) for part in (SIGNED, " [1].")] == ["", ""]
    rest, (got,) = gate.finish()
    assert (rest, got.outcome) == (f"{SIGNED} [1].", "passed")


@pytest.mark.parametrize("answer", ["x" * (ANSWER_MAX + 1), "[" * 2000, "A b c. " * 2000])
def test_what_is_too_much_to_look_up_fails(answer):
    assert verdict(answer).outcome == "failed"


PIECES = (
    *("[1]", "[kb-2]", "(kb-2)", "[9]", "[", "]", "(", ")", ". ", ", ", "\n", "? ", "- "),
    *(" not", "n't ", "Paris", " 1783", "treaty ", "signed ", "11,872"),
    *("é", "\u0301", "漢字", "\ud800"),
)
answers = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text()


@given(answers, st.lists(st.builds(Source, st.text(), st.text()), max_size=3))
def test_any_answer_on_any_sources_ends_in_a_verdict_within_it(answer, brought):
    got = verdict(answer, (*GIVEN, *brought))
    assert got.outcome in ("passed", "failed", "not_applicable")
    assert all(0 <= first < last <= len(answer) for first, last in got.spans)
    assert len(got.reason) < 600


@given(
    st.sampled_from([SIGNED, WET]), st.text(alphabet="0123456789abkKB-. ", min_size=1, max_size=6)
)
def test_a_claim_that_passes_cites_an_id_that_was_given(claim, said):
    got = verdict(f"{claim} [{said}].")
    if got.outcome == "passed":
        assert said.strip() in ("1", "kb-2")


@pytest.mark.parametrize(
    "answer",
    ["[1]" * 2**18, "not " * 2**18, "a. " * 2**18, "\n" * 2**20, "(" * 2**20, "\u0301" * 2**19],
    ids=range(6),
)
def test_a_mebibyte_is_judged_in_bounded_time(answer):
    begun = time.perf_counter()
    verdict(answer)
    verdict(answer[:ANSWER_MAX])
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    "text",
    [
        "a. " * 80_000,
        "word " * 50_000,
        "not x " * 40_000,
        "\n".join(f"w{n} 1" for n in range(25_000)),
        "\u0301" * 60_000,
        "12,3" * 60_000,
    ],
    ids=range(6),
)
def test_the_largest_sources_are_read_in_bounded_time(text):
    begun = time.perf_counter()
    verdict("Word x is 12 [s].", (Source("s", text[: 250 * 1024]),))
    assert time.perf_counter() - begun < 5
