"""Outcomes as lines: a reader who is busy keeps nobody waiting, and one who is gone is told of."""

import json
import os

import pytest
from loadtest.lines import Lines
from loadtest.outcome import of_json
from offers import outcome

MANY = 2000
"""Half a megabyte of lines: many times what a pipe holds."""


def test_a_reader_who_is_busy_keeps_nobody_waiting():
    out, into = os.pipe()
    with os.fdopen(out) as reader, os.fdopen(into, "w") as writer:
        lines = Lines(writer)
        for number in range(MANY):  # who waited here would wait for ever: nobody reads yet
            lines.put(outcome(number=number))
        found = [of_json(json.loads(reader.readline())).number for _ in range(MANY)]
        lines.close()
    assert found == list(range(MANY))


def test_a_reader_who_is_gone_is_told_of():
    out, into = os.pipe()
    os.close(out)
    writer = os.fdopen(into, "w")
    lines = Lines(writer)
    lines.put(outcome())
    lines.close()
    with pytest.raises(BrokenPipeError):
        lines.put(outcome())
    with pytest.raises(BrokenPipeError):
        writer.close()
