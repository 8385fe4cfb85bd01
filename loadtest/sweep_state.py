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
            self.capacities = self._read(self._capacity, self._capacity.read_text("utf-8"))
            for number, one in self.capacities.items():
                self._same(f"the capacity of repetition {number}", one)
        if self._rows.exists():
            for line in self._rows.read_text("utf-8").splitlines():
                row = self._read(self._rows, line)
                self._same(row["point"], row)
                self.rows.append(row)

    def _read(self, path: Path, text: str) -> Row:
        try:
            said: Row = json.loads(text)
        except ValueError as error:
            raise SweepError(f"{path}: take out what is no JSON: {error}") from error
        return said

    def _same(self, what: str, row: Row) -> None:
        """Raise SweepError where something was measured with another version of a policy."""
        policy = row.get("policy")
        gone = policy is not None and policy not in self._versions
        if not gone and (policy is None or row.get("of") != self._versions[policy]):
            raise SweepError(
                f"{self._rows.parent}: {what} was measured with another plan, policy, engine or "
                "code; take the checkout of then to go on, or another --out to begin anew"
            )

    @property
    def capacity_rps(self) -> dict[int, float]:
        """1x of each repetition that has begun."""
        return {int(number): one["requests_per_s"] for number, one in self.capacities.items()}

    def keep_capacity(self, repetition: int, found: Row) -> None:
        """Write what was measured; it is not measured again in this folder."""
        self.capacities[str(repetition)] = self._stamped(found)
        self._capacity.write_text(json.dumps(self.capacities, indent=2) + "\n", encoding="utf-8")

    def keep(self, row: Row) -> None:
        """Add a row, with the version that it was run with."""
        row = self._stamped(row)
        self.rows.append(row)
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _stamped(self, row: Row) -> Row:
        return {**row, "of": self._versions[row["policy"]]}

    def of(self, point: Point) -> list[Row]:
        """Return the rows of a point, a row for each try."""
        return [row for row in self.rows if row["point"] == point.key]

    def tries(self, point: Point) -> int:
        """Return how often it was run."""
        return len(self.of(point))

    def done(self, point: Point) -> bool:
        """Return whether one try of it is sound."""
        return any(not row["void"] for row in self.of(point))
