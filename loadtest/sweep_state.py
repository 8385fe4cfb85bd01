"""What a sweep's folder knows: each repetition's capacity, and a row for each try of a point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from loadtest.sweep_plan import Point

    Row = dict[str, Any]


class SweepError(Exception):
    """A sweep that cannot go on; the message says at which point and why."""


class State:
    """A sweep that is under way, or was; what is written here is not measured again."""

    def __init__(self, folder: Path, versions: Mapping[str, str]) -> None:
        """Read the folder; `versions` are those of the sweep's policies, by name.

        Raises:
            SweepError: its points are of another plan, policy or router, or it is damaged.
        """
        self._versions = versions
        self._capacity = folder / "capacity.json"
        self._rows = folder / "rows.jsonl"
        self.capacities: dict[str, Row] = {}
        self.rows: list[Row] = []
        if self._capacity.exists():
            self.capacities = json.loads(self._capacity.read_text("utf-8"))
        if self._rows.exists():
            lines = self._rows.read_text("utf-8").splitlines()
            self.rows = [self._row(line) for line in lines]

    def _row(self, line: str) -> Row:
        try:
            row: Row = json.loads(line)
        except ValueError as error:
            raise SweepError(f"{self._rows}: take out the line that is no JSON: {error}") from error
        wanted = self._versions.get(row["policy"])
        if wanted is not None and row.get("of") != wanted:
            raise SweepError(
                f"{self._rows}: {row['point']} was run with another plan, policy or router; take "
                "the checkout of then to go on, or another --out to begin anew"
            )
        return row

    @property
    def capacity_rps(self) -> dict[int, float]:
        """1x of each repetition that has begun."""
        return {int(number): one["requests_per_s"] for number, one in self.capacities.items()}

    def keep_capacity(self, repetition: int, found: Row) -> None:
        """Write what was measured; it is not measured again in this folder."""
        self.capacities[str(repetition)] = found
        self._capacity.write_text(json.dumps(self.capacities, indent=2) + "\n", encoding="utf-8")

    def keep(self, row: Row) -> None:
        """Add a row, with the version that it was run with."""
        row = {**row, "of": self._versions[row["policy"]]}
        self.rows.append(row)
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, point: Point) -> list[Row]:
        """Return the rows of a point, a row for each try."""
        return [row for row in self.rows if row["point"] == point.key]

    def tries(self, point: Point) -> int:
        """Return how often it was run."""
        return len(self.of(point))

    def done(self, point: Point) -> bool:
        """Return whether one try of it is sound."""
        return any(not row["void"] for row in self.of(point))
