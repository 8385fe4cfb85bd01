"""When requests are due: order, rate, seeds, and traces at another speed."""

import itertools
import statistics
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadtest import shapes
from loadtest.arrivals import poisson, replay, speed_for
from loadtest.traces import Row, TraceError, read

rates = st.floats(0, 50)
lengths = st.floats(0.1, 100)
seeds = st.integers(0, 2**31)
any_shape = st.lists(st.tuples(lengths, rates, rates), min_size=1, max_size=5).map(shapes.joined)


def rows(*at_s: float) -> list[Row]:
    return [Row(moment, 10, 5, "t") for moment in at_s]


@given(any_shape, seeds)
def test_moments_are_in_order_and_inside_the_run(shape, seed):
    due = poisson(shape, seed)
    assert due == sorted(due)
    assert all(0 <= at_s <= shape.duration_s for at_s in due)


@given(any_shape, seeds)
def test_the_same_seed_gives_the_same_moments(shape, seed):
    assert poisson(shape, seed) == poisson(shape, seed)


def test_another_seed_gives_other_moments():
    shape = shapes.constant(10, 60)
    assert poisson(shape, 1) != poisson(shape, 2)


@given(any_shape, st.floats(0, 1))
def test_the_expected_count_until_a_moment_is_its_inverse(shape, part):
    """`when` is the inverse of the integral: below it lie exactly so many expected arrivals."""
    wanted = part * shape.requests
    at_s = shape.when(wanted)
    below = sum(
        (min(at_s, p.end_s) - p.start_s) * (p.from_rps + p.rate_rps(min(at_s, p.end_s))) / 2
        for p in shape.pieces
        if at_s > p.start_s
    )
    assert below == pytest.approx(wanted, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    ("why", "shape", "expected"),
    [
        ("constant", shapes.constant(20, 200), 4000),
        ("ramp", shapes.ramp(0, 40, 200), 4000),
        ("falling ramp", shapes.ramp(40, 0, 200), 4000),
        ("steps", shapes.steps([(100, 10), (100, 30)]), 4000),
        ("spike", shapes.spike(10, 110, 50, 20, 200), 4000),
        ("spike cut off by the end", shapes.spike(10, 110, 190, 50, 200), 3000),
        ("nothing", shapes.constant(0, 200), 0),
    ],
)
def test_the_rate_is_kept(why, shape, expected):
    assert shape.requests == pytest.approx(expected), why
    # Four standard deviations of the mean of 20 Poisson counts.
    slack = 4 * (expected / 20) ** 0.5
    counts = [len(poisson(shape, seed)) for seed in range(20)]
    assert statistics.fmean(counts) == pytest.approx(expected, abs=slack), why


def test_gaps_are_exponential():
    """A Poisson process has gaps as spread as they are long; a metronome has no spread."""
    due = poisson(shapes.constant(50, 400), 3)
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(1, abs=0.05)


def test_a_spike_is_where_it_was_said():
    due = poisson(shapes.spike(1, 50, 100, 10, 200), 1)
    inside = sum(100 <= at_s < 110 for at_s in due)
    assert 400 < inside < 600
    assert len(due) - inside < 300


def test_a_replay_keeps_proportions_and_lengths():
    trace = [Row(0, 1, 9, "t"), Row(4, 2, 8, "t"), Row(6, 3, 7, "t"), Row(40, 4, 6, "t")]
    assert replay(trace, 2, 10) == [(0, trace[0]), (2, trace[1]), (3, trace[2])]


@pytest.mark.parametrize(
    ("why", "duration_s", "start_s", "silent"),
    [
        ("the trace is longer", 15, 0, False),
        ("its end is as silent as it ever was", 30, 0, False),
        ("it is silent for longer", 30.1, 0, True),
        ("it has ended before it begins", 1, 50, True),
    ],
)
def test_a_trace_that_ends_long_before_the_run_is_told(why, duration_s, start_s, silent):
    told = pytest.raises(ValueError, match="lower speed or the duration")
    with told if silent else nullcontext():
        replay(rows(0, 10, 20, 40), 2, duration_s, start_s)


def test_a_replay_can_begin_later():
    assert [at for at, _ in replay(rows(0, 4, 6, 40), 2, 10, start_s=4)] == [0, 1]


@given(seeds, st.floats(0.1, 4))
def test_a_replay_at_a_rate_has_that_many_requests(seed, rate_rps):
    trace = rows(*poisson(shapes.constant(1, 100), seed))
    assert len(trace) > 41
    speed = speed_for(trace, rate_rps, 10)
    assert len(replay(trace, speed, 10)) == pytest.approx(round(rate_rps * 10), abs=1)


def test_a_trace_too_short_for_a_rate_is_told():
    with pytest.raises(ValueError, match="has 3 rows after 0 s, and 5 requests/s for 10 s need 50"):
        speed_for(rows(1, 2, 3), 5, 10)


def test_traces_are_merged_on_one_clock(tmp_path):
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(head + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50,396,109\n")
    two.write_text(head + "2023-11-16 18:15:47.6805900,10,5\n")
    found = read([one, two])
    assert [(round(row.at_s, 3), row.trace) for row in found] == [
        (0, "one"),
        (1, "two"),
        (3.319, "one"),
    ]
    assert found[0].prompt_tokens == 374
    assert found[0].output_tokens == 44


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("A,B\n1,2\n", "t.csv:1: no column TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,x,1\n", "t.csv:2: no requ"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,1\n", "t.csv:2: no requ"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows in"),
    ],
)
def test_a_broken_trace_is_told_by_line(tmp_path, content, told):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(TraceError, match=told):
        read([path])
