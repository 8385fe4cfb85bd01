"""Rows as a table for people, and as two drawings: attainment and spill cost against load."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from forebay.errors import SettingsError
from forebay.lab import chart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forebay.lab.rows import Row

_HEAD = (
    "load  policy       seed  attained  worst class        spill USD  charged USD  spilled  "
    "refused  goodput/s   LP USD  clairvoyant USD"
)


def line(row: Row) -> str:
    """Return one row as one line, columns as `table` heads them."""
    worst = min(row.attainment_by_class, key=row.attainment_by_class.__getitem__)
    name = row.policy if row.cap is None else f"{row.policy} {row.cap}"
    return (
        f"{row.load:<5g} {name:<12} {row.seed:<5} {row.attainment:<9.4f} "
        f"{worst:<10} {row.attainment_by_class[worst]:.4f} {row.spill_usd:>11.3f} "
        f"{row.charged_usd:>12.3f} {row.spilled / row.requests:>8.1%} {row.refused:>8} "
        f"{row.goodput_rps:>10.2f} {_usd(row.lp_usd):>8} {_usd(row.clairvoyant_usd):>16}"
    )


def table(rows: Sequence[Row], one_x_rps: float) -> str:
    """Return all rows, and what the numbers are relative to."""
    return "\n".join(
        (
            f"1x is {one_x_rps:.2f} requests/s: what the fleet works off, first in first out.",
            "Attained: the share of all offered requests that kept every promise of their class.",
            "Charged: spill, and each miss at the cloud's price; LP USD bounds it from below.",
            "",
            _HEAD,
            *(line(row) for row in rows),
        )
    )


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw attainment and spill cost against load, means over seeds; return the files.

    Raises:
        SettingsError: the folder cannot be written.
    """
    drawings = {
        "attainment.svg": chart.Chart(
            "Attainment of all offered requests",
            "load, in units of what the fleet can do at most",
            "attained",
            _lines(rows, lambda row: row.attainment),
        ),
        "spill.svg": chart.Chart(
            "What the cloud was paid",
            "load, in units of what the fleet can do at most",
            "USD",
            [*_lines(rows, lambda row: row.spill_usd), *_bound(rows)],
        ),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, drawing in drawings.items():
            (folder / name).write_text(chart.svg(drawing), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be drawn into: {error.strerror}") from None
    return [folder / name for name in drawings]


def _lines(rows: Sequence[Row], value: Callable[[Row], float]) -> list[chart.Line]:
    policies = dict.fromkeys(row.policy for row in rows)
    return [
        chart.Line(
            policy,
            [
                (load, fmean(value(r) for r in rows if (r.load, r.policy) == (load, policy)))
                for load in sorted({row.load for row in rows if row.policy == policy})
            ],
        )
        for policy in policies
    ]


def _bound(rows: Sequence[Row]) -> list[chart.Line]:
    bounds: dict[float, list[float]] = {}
    for row in rows:
        if row.lp_usd is not None:
            bounds.setdefault(row.load, []).append(row.lp_usd)
    if not bounds:
        return []
    return [chart.Line("LP bound", [(load, fmean(usd)) for load, usd in sorted(bounds.items())])]


def _usd(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
