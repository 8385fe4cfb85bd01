"""Tool calls: read out of text behind the gate, and the form of a call that is demanded."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest, TooLarge
from forebay.policy.context import MAX_GUIDE_BYTES
from forebay.policy.rules import Route
from forebay.policy.tools import Calls, guide
from forebay.policy.verifiers.pii import Redactor
from forebay.policy.verify import Gate, subject
from forebay.testing import request
from forebay.values import Guide, Tool, ToolCall

OFFERED = (Tool("mail"), Tool("look"))


def called(text, cut=None, verify=()):
    """Return the text, the calls and the verdicts that an answer becomes."""
    asked = request(tools=OFFERED)
    gate = Gate(verify, subject(Route(model="m", verify=verify), asked, enforced=False))
    calls = Calls(asked)
    pieces = [text[:cut], text[cut:]] if cut is not None else list(text)
    sent = "".join(calls.feed(gate.feed(piece)) for piece in pieces)
    rest, verdicts = gate.finish()
    rest, made = calls.finish(rest)
    return sent + rest, [(call.name, call.arguments) for call in made], verdicts


def one(arguments, name='"mail"'):
    return f'{{"name": {name}, "arguments": {arguments}}}'


@pytest.mark.parametrize(
    ("why", "text", "calls"),
    [
        ("a call", one('{"to": "Ada"}'), [("mail", '{"to": "Ada"}')]),
        ("no arguments", '{"name": "look"}', [("look", "{}")]),
        ("several", f" {one('{}')}\n{one('{}')} ; {one('{}')},", [("mail", "{}")] * 3),
        ("not ASCII", one('{"to": "Zoë"}'), [("mail", '{"to": "Zoë"}')]),
        ("the JSON text of them", one(r'"{\"to\": 1}"'), [("mail", '{"to": 1}')]),
        ("half a pair stays escaped", one(r'{"to": "\ud800"}'), [("mail", r'{"to": "\ud800"}')]),
        ("nested, but not too deep", one("[" * 9 + "]" * 9), []),
        ("a name that is an object", one("{}", '{"first": "Ada"}'), []),
        ("a name that is a list", one("{}", '["mail"]'), []),
        ("a name that is null", one("{}", "null"), []),
        ("a tool nobody offered", one("{}", '"rm"'), []),
        ("arguments that are a list", one("[1]"), []),
        ("arguments that are a number", one("5"), []),
        ("arguments that are null", one("null"), []),
        ("arguments that are text", one('"Ada"'), []),
        ("no number of JSON", one('{"n": NaN}'), []),
        ("a number without end", one('{"n": 1e999}'), []),
        ("digits without end", one('{"n": ' + "9" * 5000 + "}"), []),
        ("one call and one other", one("{}") + '{"a": 1}', []),
        ("a call and prose", one("{}") + " Done!", []),
        ("unfinished", one("{}")[:-1], []),
        ("prose and a call", "Now: " + one("{}"), []),
        ("no object", "[1]", []),
    ],
)
def test_what_is_a_call(why, text, calls):
    assert called(text)[1] == calls, why
    assert called(text)[0] == ("" if calls else text), why


@pytest.mark.parametrize(
    ("why", "text", "native", "left", "made"),
    [
        ("of two in the text", one('{"n": 1}') + one('{"n": 2}'), (), "", ['{"n": 1}']),
        ("of two of its own", "Well", ("{}", "[]"), "Well", ["{}"]),
        ("one is one", one("{}"), (), "", ["{}"]),
        ("none is none", "Well", (), "Well", []),
    ],
)
def test_where_one_call_is_wanted_the_first_leaves(why, text, native, left, made):
    calls = Calls(request(tools=OFFERED, parallel_tool_calls=False))
    own = tuple(ToolCall(f"c{n}", "mail", arguments) for n, arguments in enumerate(native))
    sent = calls.feed(text)
    rest, got = calls.finish("", own)
    assert (sent + rest, [call.arguments for call in got]) == (left, made), why


@pytest.mark.parametrize("depth", [60, 70, 300, 980, 990, 996, 1000, 5000, 100_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_depth_never_breaks_it(depth, left, right):
    text = one('{"a": ' + left * depth + ("1" if right == "}" else "") + right * depth + "}")
    rest, calls, _ = called(text, 1)
    assert (rest == text and not calls) or (depth < 64 and not rest and calls)


@given(st.text(alphabet='{}[]":,\\ue0 namargts1') | st.text(), st.text(max_size=5))
@example("", '{"name": {}}')
def test_any_text_is_text_or_calls(text, before):
    rest, calls, _ = called(before + text)
    assert (rest == before + text) is not bool(calls)


REDACTED = [
    ('{"to": "ann@firma.de"}', '{"to": "[EMAIL]"}'),
    (r'{"to": "ann\u0040firma.de"}', '{"to": "[EMAIL]"}'),
    (r'{"to": ["x", {"y": "\u0061nn\u0040firma\u002ede!"}]}', '{"to": ["x", {"y": "[EMAIL]!"}]}'),
    (r'"{\"to\": \"ann\\u0040firma.de\"}"', '{"to": "[EMAIL]"}'),
    (r'{"ann\u0040firma.de": "4111\u00201111 1111 1111"}', '{"[EMAIL]": "[CREDIT_CARD]"}'),
    (r'{"at": "https:\/\/a.example\/b"}', '{"at": "[URL]"}'),
    (r'{"text": "Hi\nann@firma.de"}', r'{"text": "Hi[EMAIL]"}'),
]


@pytest.mark.parametrize(("arguments", "expected"), REDACTED, ids=range(len(REDACTED)))
def test_arguments_leave_as_the_verifiers_let_them(arguments, expected):
    text = one(arguments)
    for cut in (None, *range(len(text))):
        rest, calls, (verdict,) = called(text, cut, ("pii_redaction",))
        assert (rest, calls) == ("", [("mail", expected)])
        assert verdict.outcome == "redacted"
        assert "1 " in verdict.reason


strings = st.lists(
    st.sampled_from(["ann", "@", "firma.de", " ", "4111 1111 ", "1111 1111", "\n", "é", "+49 "])
).map("".join)
values = st.recursive(strings, lambda inner: st.lists(inner, max_size=3), max_leaves=8)


def left(text):
    """Return what is left of a redacted text without the names of types."""
    return re.sub(r"\[[A-Z_]+\]", "", text)


def withheld(sent, value):
    """Return whether nothing is sent of a value that its redaction by itself would not leave."""
    if isinstance(value, list):
        return len(sent) == len(value) and all(map(withheld, sent, value))
    redactor = Redactor()
    allowed = iter(left((redactor.feed(f'"{value}"') + redactor.finish()[0])[1:-1]))
    return all(character in allowed for character in left(sent))


@given(values, st.booleans())
def test_strings_of_a_call_keep_nothing_their_reader_should_not_see(value, ascii_only):
    text = one(json.dumps({"a": value}, ensure_ascii=ascii_only))
    rest, calls, _ = called(text, 3, ("pii_redaction",))
    assert not rest
    assert withheld(json.loads(calls[0][1])["a"], value)


# ---- the form of a call -----------------------------------------------------------------------

ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}},
    "required": ["street"],
    "additionalProperties": False,
}
PYDANTIC = {
    "$defs": {"Address": ADDRESS},
    "properties": {
        "to": {"$ref": "#/$defs/Address"},
        "also": {"items": {"$ref": "#/$defs/Address"}},
    },
    "required": ["to"],
    "type": "object",
}  # fmt: skip
OTHER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "definitions": {"Address": {"type": "integer"}},
    "properties": {"to": {"$ref": "#/definitions/Address"}, "default": {"$ref": "#/properties/to"}},
    "additionalProperties": False,
}
TREE = {"properties": {"kids": {"items": {"$ref": "#"}}, "$ref": {"const": {"$ref": "#/x"}}},
        "additionalProperties": False}  # fmt: skip
TOOLS = (Tool("a", "", PYDANTIC), Tool("b", "", OTHER), Tool("c", "", TREE), Tool("d"))


def call(name, arguments):
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("why", "answer", "holds"),
    [
        ("a definition", call("a", {"to": {"street": "x"}}), True),
        ("broken behind its reference", call("a", {"to": {"street": 5}}), False),
        ("in a list", call("a", {"to": {"street": "x"}, "also": [{"street": "y"}]}), True),
        ("broken in a list", call("a", {"to": {"street": "x"}, "also": [{}]}), False),
        ("the other's definition of that name", call("b", {"to": 5}), True),
        ("not the first's", call("b", {"to": {"street": "x"}}), False),
        ("by a property's path", call("b", {"default": 5}), True),
        ("broken by a property's path", call("b", {"default": "x"}), False),
        ("the whole", call("c", {"kids": [{"kids": []}]}), True),
        ("the whole, broken below", call("c", {"kids": [{"kid": 1}]}), False),
        ("a property that is called so", call("c", {"$ref": {"$ref": "#/x"}}), True),
        ("no schema", call("d", {"any": 1}), True),
        ("no object", call("d", [1]), False),
        ("nobody", call("e", {}), False),
    ],
)
def test_a_demanded_call_keeps_to_its_tools_schema(why, answer, holds):
    for choice in ("required", answer["name"]):
        if choice == "e":
            continue
        made = guide(TOOLS, choice)
        assert isinstance(made, Guide)
        validator = jsonschema_rs.Draft202012Validator(json.loads(made.source))
        assert validator.is_valid(answer) is holds, why


def deep(levels):
    return {"items": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("why", "tools", "choice", "error", "sentence"),
    [
        ("none at hand", (), "required", InvalidRequest, "tool_choice demands a tool that this "
         "request does not offer; it offers none"),
        ("another", TOOLS, "e", InvalidRequest, "it offers a, b, c, d"),
        ("too large", (Tool("a", "", {"title": "x" * MAX_GUIDE_BYTES}),), "a", TooLarge,
         "tools holds"),
        ("too many", tuple(Tool(f"t{n}", "", {"title": "x" * 1024}) for n in range(70)),
         "required", TooLarge, "tools holds"),
        ("too deep", (Tool("a", "", deep(400)),), "a", InvalidRequest, "nest deeper than 64"),
    ],
)  # fmt: skip
def test_calls_that_cannot_be_demanded(why, tools, choice, error, sentence):
    with pytest.raises(InvalidRequest, match=sentence) as caught:
        guide(tools, choice)
    assert type(caught.value) is error, why


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_nothing_is_demanded(choice):
    assert guide((), choice) is None
    assert guide(TOOLS, choice) is None


@pytest.mark.parametrize(
    "parameters",
    [{"$defs": [1], "$ref": "#/$defs/0"}, {"$ref": 5}, {"properties": [{"$ref": "#"}]},
     {"$ref": "https://x.example/s"}, {"enum": {"$ref": "#"}}],
    ids=range(5),
)  # fmt: skip
def test_a_strange_schema_is_moved_all_the_same(parameters):
    assert guide((Tool("a", "", parameters),), "a") is not None
