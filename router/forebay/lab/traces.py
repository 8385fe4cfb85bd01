"""Reads traces: who asked when, with how long a prompt and how long an answer.

CSV with a header, or JSON lines, told apart by the file's name. A column map says which column
holds what; times are seconds or ISO dates. Zero tokens count as one: an engine takes in and
answers at least that.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FIELDS = ("arrival", "input", "output")
_TOKENS_MAX = 1 << 24
_PROMPT_MOST = 16384
"""Where a heavy tail's prompts end, unless a trace has longer ones itself."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One request of a trace; `mix` deals it a class.

    `at_s` counts from an origin that is common to all, the epoch where the trace is `dated`.
    """

    at_s: float
    input_tokens: int
    output_tokens: int
    mix: str
    dated: bool = False


def column_map(text: str) -> dict[str, str]:
    """Return what `arrival=A,input=B,output=C` says.

    Raises:
        SettingsError: a part is no `field=column`, or a field is missing or unknown.
    """
    columns = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if set(columns) != set(FIELDS) or text.count(",") != len(FIELDS) - 1:
        raise SettingsError(
            f"{text!r} is no column map; write arrival=COLUMN,input=COLUMN,output=COLUMN"
        )
    return columns


def read_trace(path: Path, columns: Mapping[str, str], mix: str) -> list[Traced]:
    """Return the requests of one file in its order.

    Raises:
        SettingsError: `FILE:LINE: what is wrong`, or that the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _json_rows(path, file) if _is_json(path) else _csv_rows(path, file, columns)
            requests = [_request(f"{path}:{line}", row, columns, mix) for line, row in rows]
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such trace") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    if not requests:
        raise SettingsError(f"{path}: holds no requests")
    return requests


def merged(traces: list[list[Traced]]) -> list[Traced]:
    """Return all requests by time, the first at zero.

    Raises:
        SettingsError: fewer than two, or all at one time: nothing can be said of their rate; or
            they are on different clocks, or of times that have nothing in common.
    """
    _one_clock(traces)
    together = sorted((one for trace in traces for one in trace), key=lambda one: one.at_s)
    if len(together) < 2 or together[-1].at_s <= together[0].at_s:  # noqa: PLR2004 - a span's ends
        raise SettingsError("the traces hold no two requests at different times; a load needs some")
    start_s = together[0].at_s
    return [replace(one, at_s=one.at_s - start_s) for one in together]


def _one_clock(traces: Sequence[Sequence[Traced]]) -> None:
    """Raise SettingsError where traces cannot have been of one time: a gap would be their span."""
    if len({one.dated for trace in traces for one in trace}) > 1:
        raise SettingsError(
            "some arrivals are seconds and some are dates, so nobody knows how far they are apart; "
            "write all of them in one way"
        )
    spans = sorted((min(at), max(at)) for trace in traces if (at := [one.at_s for one in trace]))
    lasting_s = sum(ends_s - begins_s for begins_s, ends_s in spans)
    until_s = spans[0][1] if spans else 0.0
    for begins_s, ends_s in spans:
        if begins_s - until_s > lasting_s > 0:
            raise SettingsError(
                f"one trace begins {begins_s - until_s:.0f} s after those before it have ended, "
                f"and all together last {lasting_s:.0f} s: they would be bursts with nothing "
                "between. Give traces of one time, or simulate each by itself"
            )
        until_s = max(until_s, ends_s)


def heavy_tailed(trace: Sequence[Traced], seed: int) -> list[Traced]:
    """Return a trace with as many requests and tokens, but in bursts and with long tails.

    Lengths are stretched by lognormal factors (sigma 1), gaps by factors of a gamma distribution
    of shape 0.3 and mean 1, on top of the trace's own bursts. Sums stay what they were, but for
    prompts cut at 16,384 tokens, or at the trace's own longest.
    """
    rng = np.random.default_rng((seed, 7919))
    count = len(trace)
    inputs = np.array([one.input_tokens for one in trace], dtype=np.float64)
    outputs = np.array([one.output_tokens for one in trace], dtype=np.float64)
    long_in = inputs * np.exp(rng.standard_normal(count))
    long_out = outputs * np.exp(rng.standard_normal(count))
    long_in *= inputs.sum() / long_in.sum()
    long_out *= outputs.sum() / long_out.sum()
    longest = max(_PROMPT_MOST, int(inputs.max()))
    gaps = np.diff([one.at_s for one in trace], prepend=trace[0].at_s)
    at = np.cumsum(gaps * rng.gamma(0.3, 1 / 0.3, count))
    at *= trace[-1].at_s / at[-1]
    return [
        Traced(float(t), int(min(longest, max(1, i))), int(max(1, o)), one.mix, one.dated)
        for t, i, o, one in zip(at, long_in, long_out, trace, strict=True)
    ]


def _is_json(path: Path) -> bool:
    return path.suffix in {".jsonl", ".ndjson", ".json"}


def _csv_rows(
    path: Path, file: Iterator[str], columns: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.DictReader(file)
    try:
        header = reader.fieldnames or ()
        missing = [one for one in columns.values() if one not in header]
        twice = [one for one in columns.values() if header.count(one) > 1]
        if missing:
            raise SettingsError(
                f"{path}:1: no column {missing[0]!r}; the header has "
                f"{', '.join(header) or 'nothing'}. Map columns with "
                "--columns arrival=COLUMN,input=COLUMN,output=COLUMN"
            )
        if twice:
            raise SettingsError(f"{path}:1: two columns are called {twice[0]!r}; rename one")
        for row in reader:
            yield reader.line_num, dict(row)
    except csv.Error as error:
        # It counts a line once that is read.
        raise SettingsError(f"{path}:{reader.line_num + 1}: is no CSV: {error}") from None


def _json_rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, dict[str, object]]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path}:{line}: is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise SettingsError(f"{path}:{line}: is no JSON object")
        yield line, row


def _request(place: str, row: Mapping[str, object], columns: Mapping[str, str], mix: str) -> Traced:
    for column in columns.values():
        if row.get(column) is None or row[column] == "":
            raise SettingsError(f"{place}: {column!r} is missing")
    at_s, dated = _seconds(place, columns["arrival"], row[columns["arrival"]])
    return Traced(
        at_s,
        _tokens(place, columns["input"], row[columns["input"]]),
        _tokens(place, columns["output"], row[columns["output"]]),
        mix,
        dated,
    )


def _tokens(place: str, column: str, value: object) -> int:
    try:
        tokens = float(str(value))
    except ValueError:
        tokens = math.nan
    if not (0 <= tokens <= _TOKENS_MAX) or tokens != int(tokens):
        raise SettingsError(
            f"{place}: {column!r} is {value!r}; tokens are a whole number from 0 to {_TOKENS_MAX}"
        )
    return max(1, int(tokens))


def _seconds(place: str, column: str, value: object) -> tuple[float, bool]:
    """Return a time in seconds, and whether a date said so."""
    said, dated = str(value), False
    try:
        seconds = float(said)
    except ValueError:
        seconds, dated = _date_s(said), True
    if not math.isfinite(seconds):
        raise SettingsError(f"{place}: {column!r} is {said!r}; a time is seconds or an ISO date")
    return seconds, dated


def _date_s(said: str) -> float:
    """Return a date's seconds; Python reads six digits of a second and drops those beyond."""
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        return math.nan
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return at.timestamp()
