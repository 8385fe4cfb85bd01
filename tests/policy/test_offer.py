"""What a route adds to a request, and what it asks for that is not built."""

from __future__ import annotations

import pytest

from forebay.errors import InvalidRequest
from forebay.policy.offer import completed, not_built
from forebay.policy.rules import VERIFIERS, Document, Route
from forebay.testing import request
from forebay.values import Chat, Guide, Message, Source, Text, Tool

DOCUMENT = Document.model_validate(
    {"models": {"here": {"triton": {}}}, "tools": {"crm": {"description": "d", "parameters": {}}}}
)
CHAT = Chat((Message("user", "Hello"),))
OWN = (Tool("own"),)


@pytest.mark.parametrize(
    ("why", "prompt", "tools", "names"),
    [
        ("a chat is told of the route's tools", CHAT, (), ["crm"]),
        ("a chat with tools of its own", CHAT, OWN, ["own"]),
        ("a text cannot be told of any", Text("Hello"), (), []),
        ("a text that brings its own", Text("Hello"), OWN, ["own"]),
    ],
)
def test_tools_that_are_offered(why, prompt, tools, names):
    route = Route(model="here", tools=("crm", "unknown"))
    made = completed(request(prompt=prompt, tools=tools), route, DOCUMENT)
    assert [tool.name for tool in made.tools] == names, why


@pytest.mark.parametrize(
    ("why", "changed", "sentence"),
    [
        ("a route's tool, named", {"prompt": CHAT, "tool_choice": "crm"}, None),
        ("any of a route's", {"prompt": CHAT, "tool_choice": "required"}, None),
        ("one that is not offered", {"prompt": CHAT, "tool_choice": "own"}, "it offers crm"),
        ("of a text", {"tool_choice": "required"}, "it offers none"),
        ("a form of its own excuses nothing",
         {"tool_choice": "required", "guide": Guide("json")}, "it offers none"),
    ],
)  # fmt: skip
def test_a_call_may_be_demanded_of_what_is_offered(why, changed, sentence):
    route = Route(model="here", tools=("crm",))
    if sentence is None:
        assert completed(request(**changed), route, DOCUMENT).guide is not None, why
        return
    with pytest.raises(InvalidRequest, match=sentence) as caught:
        completed(request(**changed), route, DOCUMENT)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    ("why", "route", "missing"),
    [
        ("nothing", {"model": "plain"}, None),
        ("a person", {"model": "plain", "fallback": "human_review_queue"}, None),
        ("every verifier", {"model": "plain", "verify": list(VERIFIERS)}, None),
        ("a feature", {"model": "plain", "budget": {"usd": 1.0}}, "budget"),
    ],
)
def test_what_is_not_built(why, route, missing):
    assert not_built(Route.model_validate(route)) == missing, why


def test_sources_that_nobody_reads_are_refused():
    asked = request(sources=(Source("a", "text"),))
    route = Route(model="plain", verify=("pii_redaction",))
    assert not_built(route, asked) == "sources"
    assert not_built(route) is None
    for name in ("grounding", "citations_required"):
        assert not_built(Route(model="plain", verify=("pii_redaction", name)), asked) is None
