"""The policies that ship, and the probes beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.edges.policy_file import load, load_probes
from forebay.errors import NotPermitted, SettingsError
from forebay.policy import verify
from forebay.policy.choose import Chosen, choose
from forebay.policy.probes import Probes, check_probes
from forebay.testing import request
from forebay.values import Labels

POLICIES = Path(__file__).parents[2] / "policies"
SHIPPED = sorted(p for p in POLICIES.glob("*.yaml") if not p.name.endswith(".probes.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_policy_loads_and_its_probes_hold(path):
    policy = load(path)
    assert len(policy.version) == 12
    outcomes = check_probes(policy, load_probes(path.with_suffix(".probes.yaml")))
    assert outcomes
    assert [outcome for outcome in outcomes if outcome.wrong] == []


def test_the_default_policy_is_local_and_needs_nothing_unbuilt():
    policy = load(POLICIES / "default.yaml")
    assert not any(target.is_cloud for target in policy.targets.values())
    for made in policy.by_name.values():
        assert set(made.route.verify) <= verify.BUILT
        assert policy.spill_target(made) is None


NAMES = ("auto", "summarize", "extract", "support", "careful", "code", "chat", "default")


@pytest.mark.parametrize("name", [*NAMES, "smollm2", "smollm2-long"])
@pytest.mark.parametrize("task", [None, "code", "chat", "extract", "else"])
@pytest.mark.parametrize("text", ["My password", "Refund my order", "python code for a salary"])
def test_nothing_sensitive_leaves_the_default_policy_unredacted(name, task, text):
    policy = load(POLICIES / "default.yaml")
    asked = request(text, model=name, labels=Labels(task=task, sensitivity="low"))
    chosen = choose(policy, asked)
    if isinstance(chosen, Chosen):
        assert "pii_redaction" in chosen.of.route.verify
    else:
        assert isinstance(chosen, NotPermitted)


def test_the_seed_holds_the_three_routes_as_they_are_written_everywhere():
    routes = [made.route for made in load(POLICIES / "seed.yaml").classes]
    assert [(r.model, r.fallback, r.verify, r.tools) for r in routes] == [
        (
            "open_model_self_hosted",
            ("provider_frontier_model",),
            ("json_schema", "pii_redaction"),
            (),
        ),
        (
            "provider_mid_tier_model",
            ("provider_frontier_model",),
            ("tool_call_schema", "policy_rules"),
            ("crm_lookup", "order_status"),
        ),
        (
            "provider_frontier_model",
            ("human_review_queue",),
            ("citations_required", "policy_rules"),
            (),
        ),
    ]
    assert routes[0].constraints.max_latency_ms == 800
    assert [(r.match.task, r.match.sensitivity) for r in routes] == [
        (("summarize",), ("low",)),
        (("customer_support",), ("medium",)),
        (("legal",), ("high",)),
    ]


def test_a_probe_that_fails_says_what_it_expected_and_got():
    policy = load(POLICIES / "default.yaml")
    probes = Probes.model_validate(
        {
            "probes": [
                {"text": "Hello", "expect": {"route": "code", "target": "smollm2-long"}},
                {"model": "gpt-2", "expect": {"route": "chat"}},
                {"text": "Hello", "expect": {"error": "unmatched"}},
            ]
        }
    ).probes
    said = [(outcome.probe, outcome.wrong) for outcome in check_probes(policy, probes)]
    assert said == [
        ("1: Hello", "expected route code, got chat"),
        ("2: gpt-2", "expected route chat, got error unknown_model"),
        (
            "3: Hello",
            "expected error unmatched, got route chat, target smollm2-long, sensitivity low",
        ),
    ]


def test_probes_are_read_as_strictly_as_policies(tmp_path):
    path = tmp_path / "p.probes.yaml"
    path.write_text("probes:\n  - txt: hello\n    expect: {route: 5}\n")
    with pytest.raises(SettingsError) as caught:
        load_probes(path)
    assert str(caught.value).splitlines() == [
        f"{path}:2:5: unknown key txt; did you mean text?",
        f"{path}:3:21: expected a name, not 5",
    ]
