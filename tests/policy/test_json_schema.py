"""`json_schema`: answers judged, schemas that nobody should evaluate refused."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import InvalidRequest, TooLarge
from forebay.policy.verifiers.bounds import DEPTH_MAX, SIZE_MAX
from forebay.policy.verifiers.json_schema import compiled, fault, judged

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"type": "string"}},
    "required": ["age"],
    "additionalProperties": False,
}


def verdict(answer, schema=PERSON):
    return judged(answer, compiled(json.dumps(schema)))


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        ('{"age": 7}', "passed", ""),
        (' {"age": 7, "name": "Ada"}\n', "passed", ""),
        ('{"age": 0}', "passed", ""),
        ('{"age": -1}', "failed", "$.age: the value is less than the minimum of 0"),
        ('{"age": "secret"}', "failed", '$.age: the value is not of type "integer"'),
        ("{}", "failed", '$: "age" is a required property'),
        ("[]", "failed", '$: the value is not of type "object"'),
        ("", "failed", "the answer is empty and should be JSON"),
        (" \n", "failed", "the answer is empty and should be JSON"),
        ('{"age": 7', "failed", "the answer is not JSON: unexpected end of data, line 1 column 10"),
        ('{"age": NaN}', "failed", "the answer is not JSON: unexpected character"),
        ('{"age": 7} done', "failed", "the answer is not JSON: unexpected content after document"),
        ("Sure! Here it is", "failed", "the answer is not JSON"),
        ("[" * 5000, "failed", "the answer is not JSON: depth limit exceeded"),
        ("\ud800", "failed", "the answer is not JSON"),
    ],
)
def test_verdicts(answer, outcome, reason):
    got = verdict(answer)
    assert got.outcome == outcome
    assert got.reason.startswith(reason)
    assert len(got.reason) <= 500
    assert all(0 <= start < end <= len(answer) for start, end in got.spans)


def test_a_reason_quotes_no_value_of_the_answer():
    got = verdict(json.dumps({"age": "4111 1111 1111 1111", "name": ["bob@example.com"]}))
    assert got.outcome == "failed"
    assert "4111" not in got.reason
    assert "bob" not in got.reason


SAID = "bob@example.com"


@pytest.mark.parametrize(
    ("schema", "answer", "reason"),
    [
        (PERSON, {"age": 1, SAID: 2}, "$: breaks additionalProperties at $.additionalProperties"),
        ({"unevaluatedProperties": False}, {SAID: 2}, "$: breaks unevaluatedProperties at $.unev"),
        ({"propertyNames": {"maxLength": 3}}, {SAID: 2}, "$: breaks propertyNames at $.prop"),
        ({"additionalProperties": {"type": "null"}}, {SAID: 2}, "$.*: the value is not of type"),
        ({"additionalProperties": False, "properties": {"a": {}}}, {SAID: 1}, "$: breaks addition"),
        ({"patternProperties": {"@": {"maxLength": 1}}}, {SAID: SAID}, "$.*: the value is longer"),
        (
            {"additionalProperties": {"properties": {"n": {"type": "null"}}}},
            {SAID: {"n": 1}},
            "$.*.n: the value is not of type",
        ),
        ({"const": {"properties": 5}}, {SAID: 1}, '$: {"properties":5} was expected'),
        ({"enum": ["x"]}, SAID, '$: the value is not one of "x"'),
        ({"items": {"propertyNames": False}}, [{SAID: 1}], "$[0]: False schema"),
        ({"dependentRequired": {SAID[:3]: ["z"]}}, {"bob": 1}, '$: "z" is a required property'),
    ],
)  # fmt: skip
def test_a_reason_quotes_no_name_that_the_answer_made_up(schema, answer, reason):
    got = verdict(json.dumps(answer), schema)
    assert got.outcome == "failed"
    assert got.reason.startswith(reason)
    assert SAID not in got.reason


def test_where_an_answer_stops_being_json():
    assert verdict('{"age": x}').spans == ((8, 9),)


IN_PLACE = {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}
DOUBLING = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
DEEP = {}
for _ in range(DEPTH_MAX):
    DEEP = {"properties": {"p": DEEP}}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{", "the JSON schema is not JSON: unexpected end of data, line 1 column 2"),
        ("[]", "a JSON schema must be an object"),
        ("true", "a JSON schema must be an object"),
        ({"type": "objct"}, "the JSON schema is not valid: $.type: "),
        ({"minLength": -1}, "the JSON schema is not valid: $.minLength: "),
        ({"pattern": "("}, 'the JSON schema is not valid: $.pattern: the value is not a "regex"'),
        ({"pattern": "(?=a)"}, "the JSON schema is not valid: $.pattern: "),
        ({"pattern": "((a{1000}){1000}){9}"}, "the JSON schema is not valid: $.pattern: "),
        ({"$ref": "https://example.com/s"}, "the JSON schema cannot be used: a $ref may only "),
        ({"$ref": "file:///etc/passwd"}, "the JSON schema cannot be used: a $ref may only "),
        ({"$ref": "#/$defs/none"}, "the JSON schema cannot be used: #/$defs/none points to noth"),
        ({"$ref": 5}, "the JSON schema cannot be used: a $ref may only "),
        ({"$ref": "#"}, "the JSON schema cannot be used: # refers to itself without"),
        (IN_PLACE, "the JSON schema cannot be used: #/$defs/a refers to itself without"),
        ({"$ref": "#/$defs/a0", "$defs": {**DOUBLING, "a40": {}}},
         "the JSON schema cannot be used: with its references followed it has more than 10,000"),
        (DEEP, "the JSON schema cannot be used: it nests deeper than 64 levels"),
        ("[" * 60_000, "the JSON schema is not JSON"),
        ({"$dynamicRef": "#a"}, "the JSON schema cannot be used: $dynamicRef is not taken"),
        ({"not": {"$id": "x"}}, "the JSON schema cannot be used: $id is taken at its root"),
        ('{"title": "\\ud800"}', "the JSON schema is not JSON: no low surrogate"),
    ],
    ids=range(20),
)  # fmt: skip
def test_schemas_that_are_refused(source, sentence):
    with pytest.raises(InvalidRequest) as caught:
        compiled(source if isinstance(source, str) else json.dumps(source))
    assert str(caught.value).startswith(sentence)
    assert len(str(caught.value)) < 500


def test_the_largest_schema():
    empty = json.dumps({"title": ""})
    compiled(json.dumps({"title": "x" * (SIZE_MAX - len(empty))}))
    with pytest.raises(TooLarge):
        compiled(json.dumps({"title": "x" * (SIZE_MAX - len(empty) + 1)}))


def nested(levels, key="x"):
    return f'{{"{key}":' * levels + "1" + "}" * levels


TREE = {"properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}}
ONCE = {"properties": {"x": {"$ref": "#"}}}
TWICE = {"allOf": [ONCE, ONCE]}
BY_TWO_STEPS = {"properties": {"x": {"allOf": [{"$ref": "#"}, ONCE]}}}
ANY_JSON = {
    "anyOf": [
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "additionalProperties": {"$ref": "#"}},
        {"type": ["string", "number", "boolean", "null"]},
    ]
}


@pytest.mark.parametrize(
    ("why", "schema", "answer", "outcome"),
    [
        ("a tree", TREE, '{"l": {"r": {}}}', "passed"),
        ("a deep list", ONCE, nested(DEPTH_MAX - 1), "passed"),
        ("too deep", ONCE, nested(DEPTH_MAX), "failed"),
        ("any JSON", ANY_JSON, '{"a": [1, {"b": [null]}]}', "passed"),
        ("work that doubles, shallow", TWICE, nested(10), "passed"),
        ("work that doubles, deep", TWICE, nested(40), "failed"),
        ("work that grows by two ways", BY_TWO_STEPS, nested(40), "failed"),
        ("patterns are linear", {"pattern": "^(a+)+$"}, json.dumps("a" * 9999 + "!"), "failed"),
    ],
)
def test_hostile_work_is_bounded(why, schema, answer, outcome):
    begun = time.perf_counter()
    assert verdict(answer, schema).outcome == outcome, why
    assert time.perf_counter() - begun < 5, why


def test_faults_of_a_policys_schema():
    assert fault({"type": "object"}) is None
    assert fault({"type": 5}) == (
        "the JSON schema is not valid: $.type: a value that this keyword cannot have"
    )


KEYWORDS = (
    "type properties items allOf anyOf not $ref $defs pattern enum const required minLength "
    "additionalProperties propertyNames contains if then $id $schema format multipleOf"
)
keys = st.sampled_from(KEYWORDS.split())
scalars = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**20, "", "object", "#", "#/$defs/a", "(a+)+$", "(", "a"]
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=4))
def test_any_schema_is_taken_or_refused_in_a_sentence(schema):
    try:
        taken = compiled(json.dumps(schema))
    except InvalidRequest as error:
        assert str(error)  # noqa: PT017 - either way is right
        return
    for answer in ('{"a": {"a": 1}}', "[[1]]", '"a"', "null"):
        assert judged(answer, taken).outcome in ("passed", "failed")
