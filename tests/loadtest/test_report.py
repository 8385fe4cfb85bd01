"""The report's arithmetic, by tables: what counts, what is a miss, what it cost."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadtest.outcome import Move, of_json, to_json
from loadtest.pages import html, markdown, write
from loadtest.plan import Slo
from loadtest.report import calibration, percentiles, report
from offers import CHAT, outcome, plan

SLO = Slo(ttft_ms=1000, tpot_ms=100, e2e_ms=5000)
REFUSED = {"ended": "refused", "code": "RESOURCE_EXHAUSTED", "ttft_ms": None, "itl_ms": ()}


@pytest.mark.parametrize(
    ("why", "changed", "missed"),
    [
        ("well inside", {}, ""),
        ("TTFT met exactly", {"ttft_ms": 1000.0, "e2e_ms": 1500.0}, ""),
        ("TTFT just missed", {"ttft_ms": 1000.1, "e2e_ms": 1500.0}, "ttft"),
        ("no token at all", {"ttft_ms": None, "completion_tokens": 0}, "ttft"),
        ("TPOT met exactly", {"e2e_ms": 1200.0}, ""),
        ("TPOT just missed", {"e2e_ms": 1210.0}, "tpot"),
        ("one token has no TPOT", {"completion_tokens": 1, "e2e_ms": 4000.0}, ""),
        ("E2E missed", {"completion_tokens": 1, "e2e_ms": 5000.1}, "e2e"),
        ("refused", REFUSED, "refused"),
        ("failed after tokens in time", {"ended": "failed"}, "failed"),
        ("cut off by the run's end", {"ended": "unfinished"}, "unfinished"),
        ("left as planned, in time", {"ended": "hung_up"}, ""),
        ("left as planned, too late", {"ended": "hung_up", "ttft_ms": 3000.0}, "ttft"),
        ("a slow reader sets its own pace", {"slow": True, "e2e_ms": 60000.0}, ""),
        ("a slow reader's TTFT counts", {"slow": True, "ttft_ms": 3000.0}, "ttft"),
    ],
)
def test_missed(why, changed, missed):
    assert outcome(**changed).missed(SLO) == missed, why


def test_every_offered_request_counts():
    """Ten offered in ten seconds: six met, of those nobody else can take from the denominator."""
    found = [outcome(number=n) for n in range(6)]
    found += [outcome(**REFUSED), outcome(ended="failed", code="UNAVAILABLE")]
    found += [outcome(ended="unfinished", code="UNFINISHED"), outcome(ttft_ms=1500.0)]
    body = report(plan(), found).body
    assert body["offered"] == 10
    assert body["met"] == 6
    assert body["attainment"] == pytest.approx(0.6)
    assert body["goodput_rps"] == pytest.approx(0.6)
    assert body["missed"] == {"failed": 1, "refused": 1, "ttft": 1, "unfinished": 1}
    assert body["ended"] == {"failed": 1, "refused": 1, "served": 7, "unfinished": 1}


def test_the_warm_up_is_not_judged_and_the_rate_is_of_the_rest():
    found = [outcome(scheduled_s=at) for at in (0.5, 1.9, 2.0, 5.0, 9.9)]
    body = report(plan(warmup_s=2), found).body
    assert body["offered"] == 3
    assert body["goodput_rps"] == pytest.approx(3 / 8)


def test_attainment_and_goodput_by_class_mode_and_tier():
    classes = [CHAT, {**CHAT, "name": "code", "slo": {"ttft_ms": 100, "attainment": 0.9}}]
    found = [
        outcome(tier="paid"),
        outcome(mode="thorough"),
        outcome(klass="code", mode="thorough"),
        outcome(klass="code", mode="thorough", ttft_ms=50.0),
    ]
    body = report(plan(classes=classes), found).body
    attained = {name: one["attainment"] for name, one in body["classes"].items()}
    assert attained == {"chat": 1.0, "code": 0.5}
    assert body["modes"]["fast"]["attainment"] == 1.0
    assert body["modes"]["thorough"]["attainment"] == pytest.approx(2 / 3)
    assert body["modes"]["thorough"]["goodput_rps"] == pytest.approx(0.2)
    assert list(body["tiers"]) == ["paid"]
    assert {c["what"]: c["passed"] for c in body["checks"]} == {
        "generator: send lag p99, ms at most": True,
        "generator: loop late p99, ms at most": True,
        "generator: busy, share of its time at most": True,
        "requests offered, at least": True,
        "chat: attainment, at least": True,
        "code: attainment, at least": False,
    }


def test_a_class_that_nobody_asked_for_is_told_and_not_judged():
    made = report(plan(classes=[CHAT, {**CHAT, "name": "idle"}]), [outcome()])
    assert made.body["classes"]["idle"]["attainment"] is None
    assert made.passed


def test_a_run_that_offered_nothing_has_not_passed():
    assert not report(plan(), []).passed


@pytest.mark.parametrize(
    ("why", "lag_ms", "passed"),
    [("in time", 49.9, True), ("at the bound", 50.0, True), ("behind", 50.1, False)],
)
def test_a_generator_that_falls_behind_fails_the_run(why, lag_ms, passed):
    found = [outcome(sent_s=1.0 + lag_ms / 1000) for _ in range(10)]
    made = report(plan(), found)
    assert made.body["generator"]["kept_up"] is passed, why
    assert made.passed is passed, why
    assert ("The generator fell behind" in markdown(made)) is not passed, why


@pytest.mark.parametrize(
    ("why", "said", "passed"),
    [
        ("idle", {"loop_late_ms": [1.0] * 100, "busy": 0.2}, True),
        ("its loop wakes late", {"loop_late_ms": [1.0] * 98 + [90.0] * 2}, False),
        ("it drowns in answers, though it sends in time", {"busy": 0.8}, False),
    ],
)
def test_a_generator_at_its_end_fails_the_run(why, said, passed):
    made = report(plan(), [outcome()], **said)
    assert made.body["generator"]["kept_up"] is passed, why
    assert made.passed is passed, why


def test_spend_is_usage_times_price():
    cloud = (Move("spill", "cloud", "ttft_slo"),)
    found = [
        outcome(),
        outcome(moves=cloud, prompt_tokens=1000, completion_tokens=500),
        outcome(moves=cloud, prompt_tokens=1000, completion_tokens=0, ended="failed"),
    ]
    prices = {"cloud": {"input_usd_per_mtok": 0.2, "output_usd_per_mtok": 0.8}}
    body = report(plan(prices=prices, checks={"usd_at_most": 0.0005}), found).body
    assert body["spend"]["cloud"] == {
        "requests": 1,
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "usd": pytest.approx(0.0006),
    }
    assert body["usd"] == pytest.approx(0.0006)
    assert body["spilled"] == 2
    assert body["checks"][-1]["passed"] is False


def test_decisions_and_errors_are_counted_by_reason():
    found = [outcome(), outcome(), outcome(**REFUSED, reason="overloaded", moves=())]
    body = report(plan(), found).body
    assert body["decisions"] == [
        {"move": "first", "reason": "headroom", "target": "local", "count": 2}
    ]
    assert body["errors"] == [{"code": "RESOURCE_EXHAUSTED", "reason": "overloaded", "count": 1}]


@pytest.mark.parametrize(
    ("why", "changed", "pair"),
    [
        ("the router's own", {"router_ttft_ms": 180.0}, (150.0, 180.0)),
        ("the client's, from when it sent", {"sent_s": 1.02}, (150.0, 180.0)),
    ],
)
def test_predictions_are_held_against_what_was_observed(why, changed, pair):
    found = calibration([outcome(predicted_ttft_ms=150.0, **changed), outcome()])
    assert found == [pytest.approx(pair)], why


def test_prediction_errors_have_percentiles():
    found = [outcome(predicted_ttft_ms=100.0, router_ttft_ms=100.0 + n) for n in range(101)]
    said = report(plan(), found).body["prediction"]
    assert said["ttft_absolute_error_ms"]["p50"] == 50
    assert said["ttft_absolute_error_ms"]["p90"] == 90
    assert said["ttft_bias_ms"] == pytest.approx(-50)


def test_percentiles_of_nothing_are_none():
    assert percentiles([]) == {
        "count": 0,
        "p50": None,
        "p90": None,
        "p95": None,
        "p99": None,
        "max": None,
    }


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_ordered_and_among_the_values(values):
    said = percentiles(values)
    ranks = [said[name] for name in ("p50", "p90", "p95", "p99", "max")]
    assert ranks == sorted(ranks)
    assert min(values) - 0.001 <= said["p50"] <= max(values) + 0.001


def test_an_outcome_survives_its_line():
    one = outcome(
        predicted_ttft_ms=150.25,
        scheduled_s=1234.567891,
        moves=(Move("spill", "cloud", "ttft_slo"),),
    )
    assert of_json(json.loads(json.dumps(to_json(one)))) == replace(one, reason="")


def test_the_page_needs_nothing_beside_it(tmp_path):
    classes = [CHAT, {**CHAT, "name": "evil.name"}]
    found = [
        outcome(number=n, predicted_ttft_ms=100.0 + n, router_ttft_ms=110.0, scheduled_s=n / 10)
        for n in range(90)
    ]
    found.append(outcome(code="<script>alert(1)</script>", ended="failed"))
    made = report(plan(classes=classes), found)
    page = html(made)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 5
    assert min(len(list(ET.fromstring(one).iter())) for one in drawings) >= 4
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "<script>" not in page
    for title in ("Timeline", "ECDF", "Goodput against load", "Spill against cost", "Predicted"):
        assert title in page
    names = sorted(path.name for path in write(made, tmp_path / "out"))
    assert names == ["outcomes.jsonl", "report.html", "report.json", "report.md"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["offered"] == 91


def test_a_run_that_goes_on_is_judged_until_now():
    found = [outcome(scheduled_s=1.0), outcome(scheduled_s=3.0, ended="failed")]
    body = report(plan(), found, until_s=2.0).body
    assert body["offered"] == 1
    assert body["duration_s"] == 2.0
