"""Faults in CEL expressions are told at their own line and column of the policy file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.edges.policy_file import load
from forebay.edges.policy_file.within import within
from forebay.errors import SettingsError

POLICY = "models: {a: {triton: {}}}\ndefault: {model: a}\nrules:\n"


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("  one: {expression: response.txt == ''}\n", "4:21"),
        ("  one: {expression: true && response.txt == ''}\n", "4:29"),
        ("  one: {expression: 'true && response.txt == \"\"'}\n", "4:30"),
        ("  one: {expression: '\"it''s\" == response.txt'}\n", "4:33"),
        ('  one: {expression: "\\"a\\" == response.txt"}\n', "4:31"),
        ("  one:\n    expression: |\n      true\n        && response.txt == ''\n", "7:12"),
        ("  one:\n    expression: >\n      true\n      && response.txt == ''\n", "6:1"),
        ("  one:\n    expression: true\n      && response.txt == ''\n", "5:17"),
    ],
)
def test_where_a_fault_is_told(tmp_path, written, place):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY + written, encoding="utf-8")
    with pytest.raises(SettingsError) as told:
        load(path)
    said = "no variable or function response.txt; did you mean response.text?"
    assert str(told.value) == f"{path}:{place}: {said}"


@given(st.text(alphabet="a|>'\"\\ \n:", max_size=60), st.data())
def test_any_place_is_a_place(file, data):
    lines = file.split("\n")
    line = data.draw(st.integers(1, len(lines)))
    mark = (line, data.draw(st.integers(1, len(lines[line - 1]) + 1)))
    found = within(file, mark, data.draw(st.tuples(st.integers(1, 9), st.integers(1, 99))))
    assert found[0] >= 1
    assert found[1] >= 1
