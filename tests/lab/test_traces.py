"""Traces: what is read, and what is said of one that cannot be."""

from pathlib import Path

import numpy as np
import pytest
from lab.small import setting, trace

from forebay.errors import SettingsError
from forebay.lab.traces import column_map, heavy_tailed, merged, read_trace

AZURE = Path(__file__).parents[2] / "data" / "traces" / "azure_2023_conv.csv"
AZURES = {"arrival": "TIMESTAMP", "input": "ContextTokens", "output": "GeneratedTokens"}
COLUMNS = {"arrival": "at", "input": "in", "output": "out"}


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "at,in,out\n2023-11-16 18:17:03.9799600,5,2\n2023-11-16 18:17:05.4799600,7,0\n"),
        ("t.csv", "out,x,in,at\n2,,5,100\n0,,7,101.5\n"),
        ("t.csv", "\ufeffat,in,out\n100,5,2\n101.5,7,0\n"),
        ("t.jsonl", '{"at": 100, "in": 5, "out": 2}\n\n{"at": "101.5", "in": 7.0, "out": 0}\n'),
    ],
)
def test_a_trace_is_read_by_its_columns(tmp_path, name, text):
    first, second = merged([read_trace(written(tmp_path, text, name), COLUMNS, "mix")])
    assert (first.at_s, first.input_tokens, first.output_tokens) == (0.0, 5, 2)
    assert second.at_s == pytest.approx(1.5)
    assert (second.input_tokens, second.output_tokens) == (7, 1), "no answer is shorter than one"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("at,in,out\n1,2,3\n2,x,3\n", "t.csv", "t.csv:3: 'in' is 'x'"),
        ("at,in,out\n1,2,-3\n", "t.csv", "t.csv:2: 'out' is '-3'"),
        ("at,in,out\n1,2.5,3\n", "t.csv", "t.csv:2: 'in' is '2.5'"),
        ("at,in,out\n1,nan,3\n", "t.csv", "t.csv:2: 'in' is 'nan'"),
        ("at,in,out\nsoon,2,3\n", "t.csv", "t.csv:2: 'at' is 'soon'"),
        ("at,in,out\ninf,2,3\n", "t.csv", "t.csv:2: 'at' is 'inf'"),
        ("at,in,out\n1,2\n", "t.csv", "t.csv:2: 'out' is missing"),
        ("at,in\n1,2\n", "t.csv", "t.csv:1: no column 'out'; the header has at, in"),
        ("at,in,out,in\n1,2,3,4\n", "t.csv", "t.csv:1: two columns are called 'in'"),
        ("at,in,out\n1,16777217,3\n", "t.csv", "a whole number from 0 to 16777216"),
        ("at,in,out\n", "t.csv", "t.csv: holds no requests"),
        ("", "t.csv", "t.csv:1: no column 'at'; the header has nothing"),
        (b"at,in,out\n\xff,2,3\n", "t.csv", "is not UTF-8"),
        ("at" * 70_000, "t.csv", "t.csv:1: is no CSV: field larger than field limit"),
        ("at,in,out\n1,2,3\n" + "4" * 140_000, "t.csv", "t.csv:3: is no CSV: field larger"),
        ('{"at": 1, "in": 2, "out": 3}\n{', "t.jsonl", "t.jsonl:2: is no JSON"),
        (
            '{"at": 1, "in": 2, "out": 3}\n' + "[" * 9**5,
            "t.jsonl",
            "t.jsonl:2: is no JSON: maximum",
        ),
        ("[1]\n", "t.jsonl", "t.jsonl:1: is no JSON object"),
        ('{"at": 1, "in": 2}\n', "t.jsonl", "t.jsonl:1: 'out' is missing"),
        ('{"at": 1, "in": [2], "out": 3}\n', "t.jsonl", "t.jsonl:1: 'in' is [2]"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, name, said):
    with pytest.raises(SettingsError) as error:
        read_trace(written(tmp_path, text, name), COLUMNS, "mix")
    assert said in str(error.value)


def test_a_trace_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="no such trace"):
        read_trace(tmp_path / "none.csv", COLUMNS, "mix")


def test_requests_at_one_time_have_no_rate(tmp_path):
    path = written(tmp_path, "at,in,out\n1,2,3\n1,2,3\n")
    with pytest.raises(SettingsError, match="different times"):
        merged([read_trace(path, COLUMNS, "mix")])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("2023-11-16 18:17:03", "some arrivals are seconds and some are dates"),
        ("1031", "one trace begins 1000 s after those before it have ended, and all together last"),
    ],
)
def test_traces_of_different_clocks_or_times_are_no_one_trace(tmp_path, other, said):
    half = read_trace(written(tmp_path, "at,in,out\n1,2,3\n31,2,3\n"), COLUMNS, "mix")
    rest = read_trace(written(tmp_path, f"at,in,out\n{other},2,3\n"), COLUMNS, "mix")
    with pytest.raises(SettingsError, match=said):
        merged([half, rest])
    with pytest.raises(SettingsError, match=said):
        merged([rest, half])


def test_traces_may_follow_each_other(tmp_path):
    hours = ["at,in,out\n1,2,3\n31,2,3\n", "at,in,out\n60,2,3\n90,2,3\n"]
    read = [read_trace(written(tmp_path, hour), COLUMNS, "mix") for hour in hours]
    assert [one.at_s for one in merged(read)] == [0.0, 30.0, 59.0, 89.0]


@pytest.mark.parametrize(
    "said", ["", "arrival=a", "arrival=a,input=b,output=c,more=d", "arrival,input=b,output=c"]
)
def test_a_column_map_names_all_three(said):
    assert column_map("arrival=a,input=b,output=c") == {"arrival": "a", "input": "b", "output": "c"}
    with pytest.raises(SettingsError, match="column map"):
        column_map(said)


def test_a_heavy_tail_keeps_sums_and_lengthens_what_is_long():
    calm = trace(3000)
    heavy = heavy_tailed(calm, seed=1)
    total = sum(one.input_tokens for one in calm)
    assert sum(one.input_tokens for one in heavy) == pytest.approx(total, rel=0.02)
    assert heavy[-1].at_s == pytest.approx(calm[-1].at_s)
    assert max(h.input_tokens for h in heavy) > 2 * max(c.input_tokens for c in calm)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_heavy_tail_comes_on_top_of_the_traces_own_bursts(seed):
    calm = merged([read_trace(AZURE, AZURES, "conv")])
    heavy = heavy_tailed(calm, seed)
    arrivals = [
        np.histogram([one.at_s for one in requests], np.arange(0.0, calm[-1].at_s, 60.0))[0]
        for requests in (calm, heavy)
    ]
    assert arrivals[1].std() >= arrivals[0].std()
    assert [one.at_s for one in heavy] == sorted(one.at_s for one in heavy)


def test_a_heavy_tail_keeps_the_prompts_of_a_trace_of_long_ones():
    calm = trace(3000, longest_in=40_000)
    heavy = [one.input_tokens for one in heavy_tailed(calm, seed=1)]
    assert max(heavy) == max(one.input_tokens for one in calm)
    assert sum(heavy) > 0.7 * sum(one.input_tokens for one in calm)


def test_a_heavy_tail_is_drawn_by_seed():
    made = setting(heavy_tail=True)
    one, again, other = (made.jobs(100.0, seed) for seed in (1, 1, 2))
    for name in ("arrived_s", "input_tokens", "output_tokens"):
        drawn, same, differs = (
            [getattr(job, name) for job in jobs] for jobs in (one, again, other)
        )
        assert drawn == same
        assert drawn != differs
