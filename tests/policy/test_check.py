"""What the parts of a policy must agree on."""

from __future__ import annotations

import pytest

from forebay.errors import NotBuilt
from forebay.policy.check import check
from forebay.policy.offer import not_built
from forebay.policy.rules import HUMAN, VERIFIERS, Document, Route
from forebay.policy.verify import BUILT, RELEASES, strictest, subject
from forebay.policy.verify import check as make
from forebay.testing import request
from forebay.values import Release

MODELS = {
    "here": {"triton": {}, "residency": "eu"},
    "there": {"triton": {}},
    "cloud": {"openai": {"model": "m"}, "residency": "us"},
}
SERVED = {"openai": {"model": "m", "base_url": "http://127.0.0.1:11434/v1"}}
EDGE = {**MODELS, "edge": {**SERVED, "residency": "device"}}


def said(document):
    found = check(Document.model_validate({"models": MODELS, **document}))
    return [
        (".".join(map(str, f.path)), f.message, *([f.suggestion] if f.suggestion else []))
        for f in found
    ]


def default(**keys):
    return {"default": {"model": "here", **keys}}


@pytest.mark.parametrize(
    ("why", "document", "expected"),
    [
        ("sound", default(), []),
        ("a person may be last", default(fallback=["there", HUMAN]), []),
        ("a person may be all", default(model=HUMAN), []),
        ("exhausted to a person", default(on_exhausted="human"), []),
        ("no section, so requests bring their tools", default(tools=["any"]), []),
        ("nothing is matched", {}, [
            ("", "a policy needs routes: or a default:, or it refuses everything")]),
        ("an engine's own context", {**default(), "models": {
            "here": {"triton": {}, "limits": {"context_tokens": 9}},
            "cloud": {"openai": {"model": "m"}, "limits": {"context_tokens": 9}}}}, [
            ("models.here.limits.context_tokens",
             "an engine tells its own context; say context_tokens for clouds only")]),
        ("unknown target", default(model="hree"), [
            ("default.model", "unknown target hree", "here")]),
        ("unknown rung", default(fallback=["there", "clod"]), [
            ("default.fallback.1", "unknown target clod", "cloud")]),
        ("unknown in any_of", default(model={"any_of": ["here", "clod"]}), [
            ("default.model.any_of.1", "unknown target clod", "cloud")]),
        ("unknown spill", default(spill={"to": "clod"}), [
            ("default.spill.to", "unknown target clod", "cloud")]),
        ("unknown hedge", default(hedge={"after_ms": 9, "to": "clod"}), [
            ("default.hedge.to", "unknown target clod", "cloud")]),
        ("unknown verifier", default(verify="pii_redacton"), [
            ("default.verify.0", "unknown verifier pii_redacton", "pii_redaction")]),
        ("verifier twice", default(verify=["refusal", "refusal"]), [
            ("default.verify.1", "refusal is listed twice")]),
        ("unknown tool", {**default(tools=["crm", "crn"]), "tools": {"crm": {}}}, [
            ("default.tools.1", "unknown tool crn", "crm")]),
        ("no tool at all", {**default(tools=["crm"]), "tools": {}}, [
            ("default.tools.0", "unknown tool crm")]),
        ("unknown rule", {**default(rules=["ab"], verify="policy_rules"),
                          "rules": {"abc": {"expression": "true"}}}, [
            ("default.rules.0", "unknown content rule ab", "abc")]),
        ("rules nobody checks", {**default(rules=["a"]), "rules": {"a": {"expression": "true"}}}, [
            ("default.rules", "rules: are checked by policy_rules, which verify: does not list")]),
        ("a schema nobody checks", default(schema={}), [
            ("default.schema", "schema: is checked by json_schema, which verify: does not list")]),
        ("a rung twice", default(fallback=["there", "here"]), [
            ("default.fallback.1", "here stands on this ladder already")]),
        ("a person not last", default(fallback=[HUMAN, "there"]), [
            ("default.fallback.0", f"{HUMAN} can only be the last rung")]),
        ("spill to a person", default(spill={"to": HUMAN}), [
            ("default.spill.to", f"{HUMAN} is never a spill target")]),
        ("spill to itself", default(spill={"to": "here"}), [
            ("default.spill.to", "here is the route's model already; a spill goes elsewhere")]),
        ("inside its residency", default(residency="eu", fallback=HUMAN), []),
        ("one of several residencies", default(residency=["eu", "us"], fallback="cloud"), []),
        ("a rung outside", default(residency="eu", fallback="cloud"), [
            ("default.fallback.0", "cloud is in us, and the route stays in eu")]),
        ("a rung that does not say", default(residency="eu", fallback="there"), [
            ("default.fallback.0",
             "there does not say where it is, and the route stays in eu")]),
        ("a spill outside", default(residency="eu", spill={"to": "cloud"}), [
            ("default.spill.to", "cloud is in us, and the route stays in eu")]),
        ("only what is on the device",
         {"models": EDGE, "default": {"model": "edge", "residency": "device"}}, []),
        ("on the device, and a rung that is not",
         {"models": EDGE, "default": {"model": "edge", "fallback": "here", "residency": "device"}},
         [("default.fallback.0", "here is in eu, and the route stays in device")]),
        ("on the device is not on the premises",
         {"models": EDGE, "default": {"model": "edge", "residency": "on_premises"}}, [
            ("default.model", "edge is in device, and the route stays in on_premises")]),
        ("a spill to a device that the route says",
         {**default(spill={"to": "edge"}), "models": EDGE}, []),
        ("a device that is the provider itself",
         {**default(), "models": {**MODELS, "edge": {"google": {"model": "m"},
                                                     "residency": "device"}}}, [
            ("models.edge.residency",
             "device is a server of your own, and edge has no base_url: that says where")]),
        ("an engine on a device",
         {"models": {"here": {"triton": {}, "residency": "device"}},
          "default": {"model": "here", "residency": "device"}}, []),
        ("a step down to an engine", default(downgrade="there"), []),
        ("a step down to a cloud", default(downgrade="cloud"), [
            ("default.downgrade", "cloud is no engine in Triton; a class steps down to one")]),
        ("a step down to a device", {**default(downgrade="edge"), "models": EDGE}, [
            ("default.downgrade", "edge is no engine in Triton; a class steps down to one")]),
        ("final and token", default(verify="citations_required", stream="token"), [
            ("default.stream",
             "citations_required releases text at final, and stream: demands token")]),
        ("window and token", default(verify="pii_redaction", stream="token"), [
            ("default.stream",
             "pii_redaction releases text at window, and stream: demands token")]),
        ("final and window", default(verify="citations_required", stream="window"), [
            ("default.stream",
             "citations_required releases text at final, and stream: demands window")]),
        ("how an answer opens, and window", default(verify="refusal", stream="window"), []),
        ("rules over the request, and token",
         {**default(verify="policy_rules", stream="token"),
          "rules": {"a": {"expression": 'request.labels.tier == "gold" || route == "b"'}}}, []),
        ("rules over the answer, and token",
         {**default(verify="policy_rules", stream="token"),
          "rules": {"a": {"expression": "answer.words > 3"}}}, [
            ("default.stream", "policy_rules releases text at final, and stream: demands token")]),
        ("rules over the answer that others have",
         {**default(verify="policy_rules", stream="token", rules="b"),
          "rules": {"a": {"expression": "answer.words > 3"}, "b": {"expression": "true"}}}, []),
        ("safety that only flags, and token",
         default(verify="safety", stream="token", safety={"output": "flag"}), []),
        ("safety, and token", default(verify="safety", stream="token"), [
            ("default.stream", "safety releases text at final, and stream: demands token")]),
        ("safety nobody checks", default(safety={"input": "block"}), [
            ("default.safety", "safety: is checked by safety, which verify: does not list")]),
        ("an unknown category",
         default(verify="safety", safety={"output": {"drug": "block"}}), [
            ("default.safety.output.drug", "unknown category drug", "drugs")]),
        ("an expression with two faults",
         {**default(), "rules": {"a": {"expression": "response.txt == 1 && foo(3)"}}}, [
            ("rules.a.expression", "no variable or function response.txt", "response.text"),
            ("rules.a.expression", "no variable or function foo")]),
        ("an expression that is no condition",
         {**default(), "rules": {"a": {"expression": "response.words"}}}, [
            ("rules.a.expression",
             "the expression must be true or false, and is of type int")]),
        ("an expression of two types",
         {**default(), "rules": {"a": {"expression": "response.text < 3"}}}, [
            ("rules.a.expression",
             "found no matching overload for '_<_' applied to '(string, int)'")]),
        ("a pattern that is none",
         {**default(), "rules": {"a": {"expression": 'request.text.matches("(")'}}}, [
            ("rules.a.expression", "invalid regular expression: missing ): (")]),
        ("an expression too deep",
         {**default(), "rules": {"a": {"expression": "(" * 99 + "true" + ")" * 99}}}, [
            ("rules.a.expression", "it nests too deep")]),
        ("an expression too long",
         {**default(), "rules": {"a": {"expression": "true || " * 600 + "true"}}}, [
            ("rules.a.expression", "the expression is longer than 4,096 characters")]),
        ("window and window", default(verify="pii_redaction", stream="window"), []),
        ("stricter than need be", default(verify="pii_redaction", stream="final"), []),
        ("a schema that every rung enforces",
         default(verify="json_schema", stream="token", fallback="there"), []),
        ("a schema that a cloud may break",
         default(verify="json_schema", stream="token", fallback="cloud"), [
             ("default.stream",
              "json_schema releases text at final, and stream: demands token")]),
        ("a schema that a device may break",
         {**default(verify="json_schema", stream="token", fallback="edge"), "models": EDGE}, [
             ("default.stream",
              "json_schema releases text at final, and stream: demands token")]),
        ("two latencies", default(constraints={"max_latency_ms": 800}, slo={"e2e_ms": 900}), [
            ("default.constraints.max_latency_ms",
             "max_latency_ms is an e2e_ms, and slo: says 900; keep one")]),
        ("a first token after the last", default(slo={"ttft_ms": 900, "e2e_ms": 800}), [
            ("default.slo.ttft_ms",
             "the first token may take longer than the whole answer (800 ms)")]),
        ("first and last at once", default(slo={"ttft_ms": 800, "e2e_ms": 800}), []),
        ("a hedge too late", default(hedge={"after_ms": 800, "to": "there"},
                                     constraints={"max_latency_ms": 800}), [
            ("default.hedge.after_ms", "the hedge starts when the answer is due (800 ms)")]),
        ("a default that matches", default(match={"task": "a"}), [
            ("default.match", "default: takes what no route matches; it has no match: of its own"),
        ]),
        ("a default of another name", default(name="other"), [
            ("default.name", "the default route is always called default")]),
        ("an empty condition", {**default(), "classify": [{"when": {}, "set": {"task": "a"}}]}, [
            ("classify.0.when", "when: is empty; say words: or pattern:")]),
        ("an empty saying", {**default(), "classify": [{"when": {"words": "a"}, "set": {}}]}, [
            ("classify.0.set", "set: is empty; say at least one label")]),
        ("a tool's schema", {**default(), "tools": {"a": {"parameters": {"type": 5}}}}, [
            ("tools.a.parameters",
             "the JSON schema is not valid: $.type: a value that this keyword cannot have")]),
    ],
)  # fmt: skip
def test_findings(why, document, expected):
    got = said(document)
    assert len(got) == len(expected), why
    for finding, want in zip(got, expected, strict=True):
        assert finding[0] == want[0], why
        assert finding[1].split("; known:")[0] == want[1], why
        assert finding[2:] == want[2:], why


@pytest.mark.parametrize(
    ("models", "path"),
    [
        ({"auto": {"triton": {}}}, "models.auto"),
        ({"ensemble": {"triton": {}}}, "models.ensemble"),
        ({"a b": {"triton": {}}}, "models.a b"),
        ({"none": {}}, "models.none"),
        ({"two": {"triton": {}, "openai": {"model": "m"}}}, "models.two"),
        ({"r": {"triton": {}, "requires": {"crime": ["safty"]}}}, "models.r.requires.crime.0"),
        ({"r": {"triton": {}, "requires": {"harm": ["safety"]}}}, "models.r.requires.harm"),
        ({"r": {"triton": {}, "refuses": ["crime", "harm"]}}, "models.r.refuses.1"),
    ],
)
def test_targets(models, path):
    document = Document.model_validate({"models": {**MODELS, **models}, **default()})
    assert [".".join(map(str, finding.path)) for finding in check(document)] == [path]


@pytest.mark.parametrize("name", ["auto", "ensemble", "tensorrt_llm", "tensorrt_llm_bls",
                                  "default", HUMAN, "here", "twice"])  # fmt: skip
def test_names_a_route_may_not_have(name):
    routes = [
        {"name": "twice", "match": {"task": "a"}, "model": "here"},
        {"name": name, "match": {"task": "b"}, "model": "here"},
    ]
    assert [path for path, *_ in said({"routes": routes})] == ["routes.1.name"]


@pytest.mark.parametrize(
    ("why", "earlier", "later", "reached"),
    [
        ("the same", {"task": "a"}, {"task": "a"}, False),
        ("all", {}, {"task": "a"}, False),
        ("narrower", {"task": "a"}, {"task": "a", "tier": "gold"}, False),
        ("part of a list", {"task": ["a", "b"]}, {"task": "b"}, False),
        ("more of a list", {"task": ["a", "b"]}, {"task": ["b", "c"]}, True),
        ("wider", {"task": "a", "tier": "gold"}, {"task": "a"}, True),
        ("other keys", {"task": "a"}, {"tier": "gold"}, True),
        ("other values", {"task": "a"}, {"task": "b"}, True),
        ("everything after something", {"task": "a"}, {}, True),
    ],
)
def test_routes_that_are_never_reached(why, earlier, later, reached):
    routes = [{"match": match, "model": "here"} for match in (earlier, later)]
    assert (said({"routes": routes}) == []) is reached, why


def test_every_verifier_has_a_release_rule():
    assert set(RELEASES) == set(VERIFIERS)
    assert set(VERIFIERS) >= BUILT
    assert RELEASES["pii_redaction"] is Release.WINDOW


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_is_built_or_named_as_not(name):
    route = Route(model="here", verify=(name,))
    if name in BUILT:
        made = make(name, subject(route, request(), enforced=False))
        assert made.name == name
        assert strictest((made.release, RELEASES[name])) is RELEASES[name]
        assert not_built(route) is None
        return
    with pytest.raises(NotBuilt, match=name):
        subject(route, request(), enforced=False)
    assert not_built(route) == f"verifier {name}"
