"""Policy files: whatever is wrong is told at once, by line and column, in our own words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.edges.policy_file import load
from forebay.edges.policy_file.reader import SIZE_MAX, read
from forebay.errors import SettingsError

HERE = "models:\n  here: {triton: {}}\n"


def told(tmp_path, content):
    path = tmp_path / "p.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        load(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


SYNTAX = [
    ("", "1:1: the file is empty; expected keys like models: at its top"),
    ("- a\n", "1:1: the file is no mapping; expected keys like models: at its top"),
    (b"models: \xff\n", "1:9: not UTF-8 text"),
    (b"a: 1\nb: \x07\n", "2:4: a character that YAML does not allow"),
    ("\tmodels: {}\n", "1:1: a tab; indent with spaces"),
    ("models:\n\there: {}\n", "2:1: a tab; indent with spaces"),
    ("models: {a: 1\n", "2:1: a { is not closed, or a comma is missing"),
    ("models: [a, 1\n", "2:1: a [ is not closed, or a comma is missing"),
    ("a:\n  b: c\n d: e\n", "3:2: this does not line up with the lines above it"),
    ("a: b: c\n", "1:5: a colon that starts no value; quote text that holds one"),
    ("a: 'b\n", "2:1: a quote is not closed"),
    ('a: "\\U55555555"\n', "1:7: an escape that stands for no character"),
    ('a: "\\q"\n', "1:6: an escape that YAML does not have; use single quotes"),
    ("a: *b\n", "1:4: an alias like *this that names no &anchor"),
    ("a: @b\n", "1:4: a character that must stand in quotes"),
    (HERE + "---\na: 1\n", "3:1: one file holds one document; found another"),
    ("a: " + "[" * 500_000, "1:43: nested deeper than 40 levels"),
    ("models: &m\n  here: *m\n", "1:9: its aliases expand to more than a policy may hold"),
    (b"x" * (SIZE_MAX + 1), f"1:1: the file is larger than {SIZE_MAX:,} bytes"),
]


@pytest.mark.parametrize(("content", "sentence"), SYNTAX, ids=range(len(SYNTAX)))
def test_what_is_no_yaml(tmp_path, content, sentence):
    assert told(tmp_path, content) == [sentence]


def test_a_bomb_of_aliases_is_small_work(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    said = told(tmp_path, "\n".join(lines))
    assert len(said) == 1
    assert "its aliases expand to more than a policy may hold" in said[0]


SHAPE = [
    (
        "default: {model: !!python/name:os.system here}",
        ["3:18: tags like !this are not used here"],
    ),
    ("defualt: {model: here}", ["3:1: unknown key defualt; did you mean default?"]),
    (
        "default: {modle: here}",
        ["3:10: missing key model", "3:11: unknown key modle; did you mean model?"],
    ),
    (
        "default: {model: here}\nxyz: 1",
        ["4:1: unknown key xyz; known: models, routes, default, classify, tiers, tools, rules"],
    ),
    (
        "default: {model: here, model: there}",
        ["3:24: the key model is here twice, first on line 3"],
    ),
    ("default: {model: here}\n? [a]\n: b", ["4:3: a key must be a word"]),
    ("default: {model: 5}", ["3:18: expected a target, or any_of: with several, not 5"]),
    ("default: {model: }", ["3:17: expected a target, or any_of: with several, not nothing"]),
    (
        "default: {model: {any_off: [here]}}",
        ["3:18: missing key any_of", "3:19: unknown key any_off; did you mean any_of?"],
    ),
    ("default: {model: {any_of: [here]}}", ["3:27: expected at least 2 of them"]),
    (
        "default: {model: here, spill: nevr}",
        ['3:31: expected never, or to: with a target, not "nevr"'],
    ),
    (
        "default: {model: here, spill: {too: here}}",
        ["3:31: missing key to", "3:32: unknown key too; did you mean to?"],
    ),
    (
        "default: {model: here, spill: {to: x, maxcost: 1}}",
        ["3:36: unknown target x; known: here, human_review_queue",
         "3:39: unknown key maxcost; did you mean max_cost?"],
    ),
    ("default: {model: here, verify: 5}",
     ["3:32: expected a name or a list of names, not 5"]),
    (
        "default: {model: here, verify: [5, '', json_schem]}",
        ["3:33: expected a name, not 5", "3:36: expected a name, not an empty one",
         "3:40: unknown verifier json_schem; did you mean json_schema?"],
    ),
    (
        "default: {model: here, on_exhausted: refused}",
        ['3:38: expected one of refuse, flag, human, not "refused"; did you mean refuse?'],
    ),
    (
        "default: {model: here, stream: tokens}",
        ['3:32: expected one of token, window, final, not "tokens"; did you mean token?'],
    ),
    ("default: {model: here, slo: {ttft_ms: 0}}", ["3:39: expected more than 0, not 0"]),
    (
        "default: {model: here, slo: {ttft_ms: '12', tpot_ms: 1.5, e2e_ms: true}}",
        ['3:39: expected a whole number, not "12"', "3:54: expected a whole number, not 1.5",
         "3:67: expected a whole number, not true"],
    ),
    (
        "default: {model: here, slo: {attainment: 1}, repair: 2}",
        ["3:42: expected less than 1, not 1", "3:54: expected at most 1, not 2"],
    ),
    ("default: {model: here, slo: {attainment: .nan}}",
     ['3:42: expected a number, not ".nan"']),
    ("default: {model: here, slo: 800}", ["3:29: expected keys with values, not 800"]),
    ("routes: {model: here}", ["3:9: expected a list, not keys with values"]),
    (
        "routes:\n- {name: Bad Name, model: here}",
        ['4:10: a name is small letters, digits and _ . -, not "Bad Name"'],
    ),
    (
        "default: {model: here, match: {sensitivity: hihg}}",
        ['3:45: expected one of low, medium, high, not "hihg"; did you mean high?'],
    ),
    (
        "default: {model: here, schema: {type: objct}, verify: json_schema}",
        ["3:32: the JSON schema is not valid: $.type: a value that this keyword cannot have"],
    ),
    (
        "default: {model: here, json_schema: {$ref: 'http://x/y'}, verify: json_schema}",
        [
            (
                "3:37: the JSON schema cannot be used: "
                "a $ref may only point into the schema itself, as in #/$defs/name"
            )
        ],
    ),
    (
        "classify:\n- when: {pattern: '(abc'}\n  set: {task: x}\ndefault: {model: here}",
        ["4:19: not a pattern of RE2: missing ): (abc"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sentences"), SHAPE, ids=range(len(SHAPE)))
def test_what_no_policy_holds(tmp_path, body, sentences):
    assert told(tmp_path, f"{HERE}{body}\n") == sentences


def test_all_is_told_at_once_in_order_and_without_what_only_follows(tmp_path):
    text = """\
models:
  here: {triton: {}, limits: {max_inflight: 0}}
  cloud: {openai: {model: x, key: sk-secret-itself}}
  typo: {tritn: {}}
routes:
  - here
  - {match: {task: a}, model: here, fallback: [typo, cloud, hree]}
  - {match: {task: b, colour: red}, model: her}
  - {match: {task: a, tier: gold}, model: here}
classify:
  - when: {words: x}
    set: {sensitivity: huge}
"""
    assert told(tmp_path, text) == [
        "2:45: expected more than 0, not 0",
        "3:35: expected env:NAME or file:PATH; a key itself is never written here",
        "4:10: unknown key tritn; did you mean triton?",
        '6:5: expected keys with values, not "here"',
        "7:61: unknown target hree; did you mean here?",
        (
            "8:23: unknown key colour; known: task, sensitivity, tier, language, mode, "
            "structure, difficulty"
        ),
        "8:44: unknown target her; did you mean here?",
        "9:5: never reached: an earlier route takes all that this one matches (line 7)",
        '12:24: expected one of low, medium, high, not "huge"',
    ]


def test_words_of_yaml_1_1_are_words(tmp_path):
    path = tmp_path / "p.yaml"
    route = "{match: {language: no, tier: on, mode: 1:30, task: [y, 2026-01-01]}, model: here}"
    path.write_text(f"{HERE}routes: [{route}]\n")
    match = load(path).classes[0].route.match
    assert (match.language, match.tier, match.mode) == (("no",), ("on",), ("1:30",))
    assert match.task == ("y", "2026-01-01")


def test_the_version_is_the_contents(tmp_path):
    path = tmp_path / "p.yaml"
    versions = []
    for comment in ("", "# a comment\n", ""):
        path.write_text(f"{HERE}default: {{model: here}}\n{comment}")
        versions.append(load(path).version)
    assert versions[0] == versions[2] != versions[1]
    assert re.fullmatch("[0-9a-f]{12}", versions[0])


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match="no such file; name one with FOREBAY_POLICY"):
        load(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)


BITS = st.sampled_from(
    ["models", "routes", "default", ":", ": ", "\n", "\n  ", "\n- ", "{", "}", "[", "]", ",", "'",
     '"', "&a ", "*a", "!t ", "#", "|", ">", "model", "triton", "here", "x", "5", "\t", "é", "---"]
)  # fmt: skip


@given(st.lists(BITS, max_size=40).map("".join))
def test_no_text_breaks_the_reader(text):
    source = read(text.encode())
    assert source.data is not None or source.problems
    for problem in source.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "<" not in problem.message


REPLICAS = [
    ("replicas: {dnss: a}", ["2:42: unknown key dnss; did you mean dns?"]),
    ("replicas: []", ["2:41: expected at least 1 of them"]),
    (
        "replicas: a:8001",
        [
            "2:41: expected a list of host:port, dns: with a name, or file: with a path, "
            'not "a:8001"'
        ],
    ),
    (
        "replicas: [a, 5, {adress: b:1}]",
        [
            '2:42: expected host:port, not "a"',
            "2:45: expected keys with values, not 5",
            "2:48: missing key address",
            "2:49: unknown key adress; did you mean address?",
        ],
    ),
    (
        "replicas: [{address: b:1, metrix: x}, {address: b:2, colour: x}]",
        [
            "2:57: unknown key metrix; did you mean metrics?",
            "2:84: unknown key colour; known: address, metrics",
        ],
    ),
    (
        "replicas: {dns: a, port: 99999, family: v6}",
        [
            "2:56: expected at most 65535, not 99999",
            '2:71: expected one of any, ipv4, ipv6, not "v6"; did you mean ipv6?',
        ],
    ),
    (
        "address: 'a:1', replicas: [b:1]",
        ["2:31: replicas: says where the engine is; address: goes there"],
    ),
]


@pytest.mark.parametrize(("keys", "sentences"), REPLICAS, ids=range(len(REPLICAS)))
def test_where_replicas_are_is_told_by_place(tmp_path, keys, sentences):
    content = f"models:\n  there: {{triton: {{engine: e, {keys}}}}}\ndefault: {{model: there}}\n"
    assert told(tmp_path, content) == sentences
