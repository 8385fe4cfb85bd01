"""A sweep's table and figures: one line for each load and policy, over its repetitions."""

from __future__ import annotations

import json
import statistics
from html import escape
from typing import TYPE_CHECKING, Any

from loadtest.charts import Chart, Series, svg
from loadtest.pages import STYLE, markdown_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from loadtest.sweep_plan import Sweep

    Row = dict[str, Any]

COLUMNS = (
    "load",
    "policy",
    "n",
    "offered/s",
    "attainment (each)",
    "worst class",
    "goodput/s",
    "spilled",
    "USD/1000",
    "not served",
    "TTFT p99 ms",
    "TPOT p99 ms",
    "TTFT error p50/p90 ms",
    "engine's speed, of its capacity's (each)",
)


def write_sweep(
    said: Sweep, capacities: Mapping[str, Row], rows: Sequence[Row], folder: Path
) -> str:
    """Write sweep.json, sweep.md and sweep.html; return the Markdown."""
    lines = table(said, rows, capacities)
    void = [row for row in rows if row["void"]]
    head = (
        f"1x: {_capacity_note(capacities)}. "
        f"{said.point_s:g} s a point, the first {said.warmup_s:g} s of which "
        f"are not judged; {said.repetitions} repetitions. Percentiles are of those that had a "
        "first token; attainment and goodput are of all offered, those not served too. TTFT error "
        "is |predicted - observed|."
    )
    text = "\n".join(
        [
            f"# Sweep {said.name}",
            "",
            head,
            "",
            markdown_row(COLUMNS),
            f"|{'---|' * len(COLUMNS)}",
            *(markdown_row(line) for line in lines),
            "",
            *_void_lines(void),
            "",
        ]
    )
    body = {"name": said.name, "capacity": dict(capacities), "rows": list(rows)}
    (folder / "sweep.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    (folder / "sweep.md").write_text(text, encoding="utf-8")
    (folder / "sweep.html").write_text(_html(said, head, lines, rows, void), encoding="utf-8")
    return text


def _capacity_note(capacities: Mapping[str, Row]) -> str:
    """Return each repetition's capacity, and how far the probe moved while it was measured."""
    return ", ".join(
        f"{one['requests_per_s']:.3f} requests/s in repetition {number}"
        + (f" (probe moved {one['probe_moved']:.0%})" if "probe_moved" in one else "")
        for number, one in sorted(capacities.items())
    )


def table(said: Sweep, rows: Sequence[Row], capacities: Mapping[str, Row]) -> list[list[str]]:
    """Return the cells of each load and policy, of sound rows alone."""
    made = []
    for load in sorted(said.loads):
        for one in said.policies:
            found = _sound(rows, load, one.name)
            if found:
                made.append([f"{load:g}x", one.name, *_line(found), _speed(found, capacities)])
    return made


def _line(rows: Sequence[Row]) -> list[str]:
    each = " ".join(f"{row['attainment']:.1%}" for row in rows)
    errors = [row["prediction"]["ttft_absolute_error_ms"] for row in rows]
    known = [e for e in errors if e["count"]]
    predicted = "-"
    if known:
        p50, p90 = (statistics.median(e[rank] for e in known) for rank in ("p50", "p90"))
        predicted = f"{p50:.0f}/{p90:.0f}"
    return [
        str(len(rows)),
        f"{_mean(rows, lambda row: row['offered_rps']):.2f}",
        f"{_mean(rows, lambda row: row['attainment']):.1%} ({each})",
        _worst(rows),
        f"{_mean(rows, lambda row: row['goodput_rps']):.2f}",
        f"{_mean(rows, lambda row: row['spilled'] / max(row['offered'], 1)):.1%}",
        f"{_mean(rows, lambda row: 1000 * row['spill_usd'] / max(row['offered'], 1)):.4f}",
        f"{_mean(rows, _not_served):.1%}",
        _p99(rows, "ttft_ms"),
        _p99(rows, "tpot_ms"),
        predicted,
    ]


def _not_served(row: Row) -> float:
    """Return the share of the offered that was refused, failed or cut off."""
    return float((row["refused"] + row["failed"]) / max(row["offered"], 1))


def _p99(rows: Sequence[Row], figure: str) -> str:
    """Return the mean p99 of those that have the figure; others answered nothing."""
    found = [row[figure]["p99"] for row in rows if row[figure]["p99"] is not None]
    return f"{statistics.fmean(found):.0f}" if found else "-"


def _speed(rows: Sequence[Row], capacities: Mapping[str, Row]) -> str:
    """Return the bare engine's speed around the points, over that around its capacity."""
    shares = []
    for row in rows:
        capacity = capacities.get(str(row["repetition"]), {})
        if "probe_before" in capacity:
            shares.append(_tokens_per_s(row) / _tokens_per_s(capacity))
    return " ".join(f"{share:.2f}" for share in shares) or "-"


def _tokens_per_s(probed: Row) -> float:
    return statistics.fmean(probed[f"probe_{when}"]["tokens_per_s"] for when in ("before", "after"))


def _worst(rows: Sequence[Row]) -> str:
    """Return the class with the lowest attainment over all repetitions, by their mean."""
    names = rows[0]["attainment_by_class"]
    means = {
        name: statistics.fmean(found)
        for name in names
        if (found := [v for row in rows if (v := row["attainment_by_class"][name]) is not None])
    }
    if not means:
        return "-"
    worst = min(means, key=lambda name: means[name])
    return f"{worst} {means[worst]:.1%}"


def charts(said: Sweep, rows: Sequence[Row]) -> list[Chart]:
    """Return attainment and goodput against load, and spill against cost, a line a policy."""

    def lines(x: Callable[[Row], float], y: Callable[[Row], float]) -> list[Series]:
        series = []
        for one in said.policies:
            by_load = [_sound(rows, load, one.name) for load in sorted(said.loads)]
            points = [(_mean(found, x), _mean(found, y)) for found in by_load if found]
            series.append(Series(one.name, points, "both"))
        return series

    return [
        Chart(
            "Goodput against load",
            "offered, requests/s",
            "goodput, requests/s",
            lines(lambda row: row["offered_rps"], lambda row: row["goodput_rps"]),
        ),
        Chart(
            "Attainment against load",
            "offered, requests/s",
            "attainment of all offered",
            lines(lambda row: row["offered_rps"], lambda row: row["attainment"] or 0.0),
            y_most=1.0,
        ),
        Chart(
            "Spill against cost",
            "share of offered requests spilled",
            "USD for 1000 offered requests",
            lines(
                lambda row: row["spilled"] / max(row["offered"], 1),
                lambda row: 1000 * row["spill_usd"] / max(row["offered"], 1),
            ),
        ),
    ]


def _sound(rows: Sequence[Row], load: float, policy: str) -> list[Row]:
    """Return the rows of a load and policy that count, one for each repetition."""
    found = {
        row["repetition"]: row
        for row in rows
        if row["load"] == load
        and row["policy"] == policy
        and not row["void"]
        and row["attainment"] is not None
    }
    return [found[at] for at in sorted(found)]


def _mean(rows: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return statistics.fmean(figure(row) for row in rows)


def _void_lines(void: Sequence[Row]) -> list[str]:
    if not void:
        return ["No point was void."]
    return [
        "Void, and run again where tries were left:",
        "",
        *(f"- {row['point']}, try {row['try']}: {', '.join(row['void'])}" for row in void),
    ]


def _html(
    said: Sweep, head: str, lines: Sequence[Sequence[str]], rows: Sequence[Row], void: Sequence[Row]
) -> str:
    columns = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines
    )
    return "\n".join(
        [
            "<!doctype html><html lang=en><meta charset=utf-8>",
            f"<title>Sweep {escape(said.name)}</title><style>{STYLE}</style>",
            f"<h1>Sweep {escape(said.name)}</h1><p>{escape(head)}</p>",
            f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>",
            *(svg(chart) for chart in charts(said, rows)),
            *(f"<p>{escape(line)}</p>" for line in _void_lines(void) if line),
            "</html>",
            "",
        ]
    )
