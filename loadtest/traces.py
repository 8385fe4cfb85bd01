"""Request traces: when each came, how long its prompt and its answer were."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""The columns of the Azure LLM inference traces of 2023."""


class TraceError(ValueError):
    """A trace that cannot be read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace; `at_s` counts from the first row of all traces read together."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    trace: str


def read(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of several traces, merged on one clock, in order.

    Raises:
        TraceError: a file or a row of it cannot be read.
    """
    rows = [row for path in paths for row in _rows(path)]
    if not rows:
        raise TraceError(f"no rows in {', '.join(str(path) for path in paths)}")
    first_s = min(row.at_s for row in rows)
    moved = (Row(r.at_s - first_s, r.prompt_tokens, r.output_tokens, r.trace) for r in rows)
    return sorted(moved, key=lambda row: row.at_s)


def _rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise TraceError(f"{path}:1: no column {missing[0]}; a trace has {COLUMNS}")
            return [_row(path, reader.line_num, said) for said in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error


def _row(path: Path, line: int, said: dict[str, str]) -> Row:
    at, prompt, output = (said[name] for name in COLUMNS)
    try:
        # Seven digits of a second are one more than datetime takes.
        moment = datetime.fromisoformat(f"{at[:26]}+00:00")
        return Row(moment.timestamp(), int(prompt), int(output), path.stem)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{path}:{line}: no request can be read from this row: {error}") from error
