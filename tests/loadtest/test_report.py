"""The report's arithmetic, by tables: what counts, what is a miss, what it cost."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from loadtest.__main__ import main
from loadtest.locust_run import Run
from loadtest.outcome import Move, of_json, to_json
from loadtest.pages import again, html, markdown, write
from loadtest.plan import PlanError, Slo
from loadtest.report import calibration, offered_percentiles, percentiles, report
from offers import CHAT, judged, outcome, plan

SLO = Slo(ttft_ms=1000, tpot_ms=100, e2e_ms=5000)
REFUSED = {"ended": "refused", "code": "RESOURCE_EXHAUSTED", "ttft_ms": None, "itl_ms": ()}

ONE = {"ended": "hung_up", "completion_tokens": 1, "itl_ms": ()}
LEFT = {"ended": "hung_up", "ttft_ms": None, "itl_ms": (), "completion_tokens": 0}


@pytest.mark.parametrize(
    ("why", "changed", "missed"),
    [
        ("well inside", {}, ""),
        ("TTFT met exactly", {"ttft_ms": 1000.0, "e2e_ms": 1500.0}, ""),
        ("TTFT just missed", {"ttft_ms": 1000.1, "e2e_ms": 1500.0}, "ttft"),
        ("no token at all", {"ttft_ms": None, "completion_tokens": 0}, "empty"),
        ("tokens that nobody saw", {"ttft_ms": None}, "empty"),
        ("text without a token", {"completion_tokens": 0}, "empty"),
        ("as long as was asked", {"asked_tokens": 11}, ""),
        ("shorter than was asked", {"asked_tokens": 12}, "length"),
        ("longer than was asked", {"asked_tokens": 10}, "length"),
        ("a length is told before a time", {"asked_tokens": 12, "ttft_ms": 3000.0}, "length"),
        ("TPOT met exactly", {"e2e_ms": 1200.0}, ""),
        ("TPOT just missed", {"e2e_ms": 1210.0}, "tpot"),
        ("one token has no TPOT", {"completion_tokens": 1, "e2e_ms": 4000.0}, ""),
        ("E2E missed", {"completion_tokens": 1, "e2e_ms": 5000.1}, "e2e"),
        ("refused", REFUSED, "refused"),
        ("failed after tokens in time", {"ended": "failed"}, "failed"),
        ("cut off by the run's end", {"ended": "unfinished"}, "unfinished"),
        ("left as planned, in time", {"ended": "hung_up"}, ""),
        ("left as planned, too late", {"ended": "hung_up", "ttft_ms": 3000.0}, "ttft"),
        ("left before the length", {"ended": "hung_up", "asked_tokens": 50}, ""),
        ("left before a token, in time", {**LEFT, "e2e_ms": 1000.0}, ""),
        ("left before a token, too late", {**LEFT, "e2e_ms": 1000.1}, "ttft"),
        ("left while the next might yet be in time", {"ended": "hung_up", "e2e_ms": 1300.0}, ""),
        ("left while it waited for more", {"ended": "hung_up", "e2e_ms": 4000.0}, "tpot"),
        ("left after one token and a while", {**ONE, "e2e_ms": 3000.0}, "tpot"),
        ("left after one token, soon", {**ONE, "e2e_ms": 250.0}, ""),
        ("left after E2E", {"ended": "hung_up", "completion_tokens": 90, "e2e_ms": 5000.1}, "e2e"),
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
    body = judged(plan(classes=classes), found).body
    attained = {name: one["attainment"] for name, one in body["classes"].items()}
    assert attained == {"chat": 1.0, "code": 0.5}
    assert body["modes"]["fast"]["attainment"] == 1.0
    assert body["modes"]["thorough"]["attainment"] == pytest.approx(2 / 3)
    assert body["modes"]["thorough"]["goodput_rps"] == pytest.approx(0.2)
    assert list(body["tiers"]) == ["paid"]
    assert {c["what"]: c["passed"] for c in body["checks"]} == {
        "generator: processes that broke off, at most": True,
        "generator: send lag p99, ms at most": True,
        "generator: loop late p99, ms at most": True,
        "generator: busy, share of its time at most": True,
        "requests offered, at least": True,
        "chat: attainment, at least": True,
        "code: attainment, at least": False,
    }


def test_a_class_that_nobody_asked_for_fails_a_run_that_was_not_stopped():
    said = plan(classes=[CHAT, {**CHAT, "name": "idle"}])
    made = judged(said, [outcome()])
    assert made.body["classes"]["idle"]["attainment"] is None
    failed = [check for check in made.checks if not check.passed]
    assert [(c.what, c.found) for c in failed] == [("idle: requests offered, at least", 0)]
    assert judged(said, [outcome()], until_s=2.0).passed


def test_a_run_that_offered_nothing_has_not_passed():
    assert not report(plan(), []).passed


@pytest.mark.parametrize(
    ("why", "lag_ms", "passed"),
    [("in time", 49.9, True), ("at the bound", 50.0, True), ("behind", 50.1, False)],
)
def test_a_generator_that_falls_behind_fails_the_run(why, lag_ms, passed):
    found = [outcome(sent_s=1.0 + lag_ms / 1000) for _ in range(10)]
    made = judged(plan(), found)
    assert made.body["generator"]["kept_up"] is passed, why
    assert made.passed is passed, why
    assert ("The generator fell behind" in markdown(made)) is not passed, why


@pytest.mark.parametrize(
    ("why", "said", "passed"),
    [
        ("idle", {"loop_late_ms": [1.0] * 100, "busy": 0.2}, True),
        ("nobody measured its loop", {"loop_late_ms": []}, False),
        ("nobody measured how busy it was", {"busy": None}, False),
        ("its loop wakes late", {"loop_late_ms": [1.0] * 98 + [90.0] * 2}, False),
        ("it drowns in answers, though it sends in time", {"busy": 0.8}, False),
    ],
)
def test_a_generator_at_its_end_fails_the_run(why, said, passed):
    made = judged(plan(), [outcome()], **said)
    assert made.body["generator"]["kept_up"] is passed, why
    assert made.passed is passed, why


def test_a_generator_that_nobody_measured_is_said_to_be_so():
    page = markdown(report(plan(), [outcome()]))
    assert "| generator: loop late p99, ms at most | 50 | not measured | NO |" in page
    assert "How late the generator was is not known" in page


@pytest.mark.parametrize(
    ("why", "told", "status", "complaint", "broken_off"),
    [
        ("its own end", True, 0, "a warning", []),
        ("killed", False, -9, "", ["grpc: exit status -9"]),
        ("an error", True, 1, "Traceback\nOSError: gone.\n", ["grpc: OSError: gone"]),
        ("no last line", False, 0, "", ["grpc: exit status 0"]),
        (
            "wrong use",
            False,
            2,
            "loadtest: no router answers",
            ["grpc: loadtest: no router answers"],
        ),
    ],
)
def test_a_generator_that_breaks_off_fails_the_run(why, told, status, complaint, broken_off):
    run = Run()
    run.plan, run.outcomes, run.busy = plan(), [outcome()], 0.1
    run.loop_late_ms = {"grpc": [1.0]}
    if told:
        run.told.add("grpc")
    run.close("grpc", status, complaint)
    made = run.report(None)
    assert made.body["generator"]["broken_off"] == broken_off, why
    assert made.passed is (not broken_off), why
    assert run.wrong_use is (status == 2), why
    assert all(f"A generator broke off: {one}." in markdown(made) for one in broken_off)


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


def test_what_was_paid_to_a_target_without_a_price_is_not_known_and_so_not_little():
    found = [outcome(moves=(Move("spill", "dear", "ttft_slo"),)), outcome()]
    prices = {"cloud": {"input_usd_per_mtok": 0.2}}
    made = judged(plan(prices=prices, checks={"usd_at_most": 1.0}), found)
    (check,) = (one for one in made.checks if one.what.startswith("spend"))
    assert check.found is None
    assert not check.passed
    assert judged(plan(prices=prices, checks={"usd_at_most": 1.0}), found[1:]).passed


@pytest.mark.parametrize(
    ("why", "move", "target", "known"),
    [
        ("an engine that is down sends it to a cloud", "failover", "dear", False),
        ("a hedge was faster", "hedge", "dear", False),
        ("another replica of the same pool", "failover", "local", True),
        ("a weaker engine of ours", "downgrade", "small", True),
        ("a cloud with a price", "failover", "cloud", True),
    ],
)
def test_what_any_move_paid_must_be_known(why, move, target, known):
    found = [outcome(moves=(Move("first", "local", "headroom"), Move(move, target, "engine_down")))]
    prices = {"cloud": {"input_usd_per_mtok": 0.2}}
    assert judged(plan(prices=prices, checks={"usd_at_most": 1.0}), found).passed is known, why


def test_a_door_that_is_always_late_does_not_drown_among_those_of_another():
    late = [outcome(number=n, door="openai", sent_s=2.0) for n in range(2)]
    made = judged(plan(), [*(outcome(number=n) for n in range(2, 1000)), *late])
    assert not made.body["generator"]["kept_up"]
    assert made.body["generator"]["send_lag_ms"]["p99"] == pytest.approx(1000)


def test_a_report_of_some_doors_is_held_to_their_classes_alone():
    run = Run()
    classes = [CHAT, {**CHAT, "name": "code", "door": "openai"}]
    run.plan, run.outcomes, run.busy = plan(classes=classes), [outcome()], 0.1
    run.loop_late_ms = {"grpc": [1.0]}
    run.generators["grpc"] = None
    assert run.report(None).passed
    run.generators["openai"] = None
    assert not run.report(None).passed


def test_a_loop_that_is_late_does_not_drown_in_that_of_another_door():
    run = Run()
    run.plan, run.outcomes, run.busy = plan(), [outcome()], 0.1
    run.loop_late_ms = {"grpc": [1.0] * 98 + [900.0] * 2, "openai": [1.0] * 9900}
    run.generators["grpc"] = None
    assert not run.report(None).passed


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


@pytest.mark.parametrize(
    ("why", "values", "p50", "p90", "highest"),
    [
        ("all came", [1.0, 2.0, 3.0], 2.0, 2.8, 3.0),
        ("one of eleven never came", [*map(float, range(10)), None], 5.0, 9.0, None),
        ("half never came", [1.0, 2.0, None, None], None, None, None),
        ("the rank is that of the last that came", [1.0, 2.0, None], 2.0, None, None),
        ("nobody was answered", [None, None], None, None, None),
    ],
)
def test_who_got_no_first_token_waited_for_ever(why, values, p50, p90, highest):
    said = offered_percentiles(values)
    assert said["count"] == len(values), why
    assert (said["p50"], said["p90"], said["max"]) == (p50, p90 and pytest.approx(p90), highest), (
        why
    )


def test_a_policy_that_answers_nothing_shows_it():
    page = markdown(judged(plan(), [outcome(**REFUSED)] * 3))
    assert "| chat | TTFT | 0 | - | - | - | - | - |" in page
    assert "| chat | TTFT, all offered | 3 | never | never | never | never | never |" in page
    assert "| chat | E2E | 0 | - | - | - | - | - |" in page


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
    assert "asked_tokens" not in to_json(one)
    assert to_json(replace(one, asked_tokens=11))["asked_tokens"] == 11


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
    assert names == ["outcomes.jsonl", "report.html", "report.json", "report.md", "run.json"]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["offered"] == 91


def test_a_run_that_goes_on_is_judged_until_now():
    found = [outcome(scheduled_s=1.0), outcome(scheduled_s=3.0, ended="failed")]
    body = report(plan(), found, until_s=2.0).body
    assert body["offered"] == 1
    assert body["duration_s"] == 2.0


def test_a_run_that_was_stopped_says_so():
    made = judged(plan(), [outcome()], until_s=2.0)
    said = "The run was ended early: only what was due in the first 2 s of 10 s is judged."
    assert said in markdown(made)
    assert said not in markdown(judged(plan(), [outcome()], until_s=10.0))
    assert "is in none of these figures" in html(made, live=True)


@pytest.mark.parametrize(
    ("why", "known"),
    [
        ("kept up", {}),
        ("fell behind", {"loop_late_ms": [1.0] * 9 + [300.0]}),
        ("computed too much", {"busy": 0.9}),
        ("broke off", {"broken_off": ["grpc: gone"]}),
        ("stopped", {"until_s": 2.0}),
        ("nobody measured", {"busy": None}),
    ],
)
def test_a_report_that_is_made_again_says_the_same(tmp_path, why, known):
    said = plan(warmup_s=0.5, arrivals={"kind": "steps", "rates_rps": [1, 2]})
    made = judged(said, [outcome(asked_tokens=11)], **known)
    write(made, tmp_path)
    second = again(tmp_path / "outcomes.jsonl")
    assert second.plan == said, why
    assert second.body == made.body, why
    words = ["report", str(tmp_path / "outcomes.jsonl"), "--out", str(tmp_path / "second")]
    assert CliRunner().invoke(main, words).exit_code == int(not made.passed), why


@pytest.mark.parametrize(
    ("why", "said", "line", "told"),
    [
        ("a longer judgement", {"warmup_s": 1}, None, "begins after a warm-up of 2 s"),
        ("no such class", {"classes": [{**CHAT, "name": "code"}]}, None, "has no class chat"),
        ("torn", {}, '{"number": 1', "outcomes.jsonl:2: is no outcome"),
        ("not an outcome", {}, '{"one": 1}', "outcomes.jsonl:2: is no outcome"),
        ("gone", {}, "", "outcomes.jsonl: cannot be read: No such file"),
    ],
)
def test_outcomes_that_cannot_be_judged_are_told(tmp_path, why, said, line, told):
    path = tmp_path / "outcomes.jsonl"
    write(judged(plan(warmup_s=2), [outcome(scheduled_s=3.0)]), tmp_path)
    if line == "":
        path.unlink()
    elif line is not None:
        path.write_text(path.read_text() + line + "\n")
    with pytest.raises(PlanError, match=told):
        again(path, plan(**{"warmup_s": 2, **said}))


def test_outcomes_alone_need_a_plan_and_pass_nothing(tmp_path):
    write(judged(plan(), [outcome()]), tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(PlanError, match="say by which plan: --plan FILE"):
        again(tmp_path / "outcomes.jsonl")
    assert not again(tmp_path / "outcomes.jsonl", plan()).passed
