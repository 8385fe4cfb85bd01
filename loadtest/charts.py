"""Charts as SVG, drawn here: a report is one file that opens without a network.

`enginebuild.plot` draws one fixed figure; this draws any lines and dots on linear or logarithmic
axes, which is all that the reports need, so no plotting library is a dependency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 66, 150, 40, 52
INKS = ("#0b6e4f", "#c8553d", "#2b59c3", "#8d6a9f", "#b08900", "#3d5a6c", "#a4243b", "#5b8e7d")
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
TICKS = 5
NAME_LENGTH = 18


@dataclass(frozen=True, slots=True)
class Series:
    """One line or cloud of dots; points are (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Literal["line", "dots", "both"] = "line"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: what its axes say, what is drawn, and lines to compare with."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    y_most: float | None = None
    marks_x: Sequence[tuple[float, str]] = ()
    """Vertical lines, each with its name."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values to pixels between two edges."""

    low: float
    high: float
    from_px: float
    to_px: float
    log: bool = False

    def px(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.from_px + part * (self.to_px - self.from_px)

    def ticks(self) -> list[float]:
        if not self.log:
            return [self.low + (self.high - self.low) * n / TICKS for n in range(TICKS + 1)]
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**n for n in range(first, last + 1)]


def svg(chart: Chart) -> str:
    """Return the drawing; a chart without points says so."""
    points = [point for series in chart.series for point in series.points]
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 20, chart.title, "start", size=14),
    ]
    if not points:
        lines.append(_text(WIDTH / 2, HEIGHT / 2, "nothing to draw", "middle", ink="#666666"))
        return "\n".join((*lines, "</svg>"))
    x, y = _axes(chart, points)
    lines += _grid(chart, x, y)
    for number, series in enumerate(chart.series):
        ink = INKS[number % len(INKS)]
        lines += _drawn(series, ink, x, y)
        lines += _legend(series, ink, number)
    return "\n".join((*lines, "</svg>"))


def _axes(chart: Chart, points: Sequence[tuple[float, float]]) -> tuple[_Axis, _Axis]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    xs = [x for x, _ in points] + [x for x, _ in chart.marks_x]
    top = chart.y_most or _rounded(max(y for _, y in points))
    if chart.log_x:
        positive = [x for x in xs if x > 0] or [1.0]
        low = 10.0 ** math.floor(math.log10(min(positive)))
        high = max(10.0 ** math.ceil(math.log10(max(positive))), low * 10)
        return _Axis(low, high, LEFT, right, log=True), _Axis(0, top, bottom, TOP)
    return _Axis(0, _rounded(max(xs)), LEFT, right), _Axis(0, top, bottom, TOP)


def _grid(chart: Chart, x: _Axis, y: _Axis) -> Iterator[str]:
    for value in x.ticks():
        at = x.px(value)
        yield f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>'
        yield _text(at, HEIGHT - BOTTOM + 16, f"{value:g}", "middle", ink="#666666")
    for value in y.ticks():
        at = y.px(value)
        yield f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#eeeeee"/>'
        yield _text(LEFT - 6, at + 4, f"{value:g}", "end", ink="#666666")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, chart.x_label, "middle")
    yield _text(8, TOP - 8, chart.y_label, "start", ink="#666666")
    for number, (value, name) in enumerate(chart.marks_x):
        at = x.px(value)
        line = f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#888888"'
        yield f'{line} stroke-dasharray="4 3"/>'
        yield _text(at + 3, TOP + 10 + 12 * number, name, "start", ink="#888888", size=10)


def _drawn(series: Series, ink: str, x: _Axis, y: _Axis) -> Iterator[str]:
    at = [(x.px(a), y.px(b), a, b) for a, b in series.points]
    if series.style != "dots" and at:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in at)
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        yield f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="1.8"{dash}/>'
    if series.style == "line":
        return
    for px, py, a, b in at:
        said = escape(f"{series.name}: {a:g}, {b:g}")
        yield (
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{ink}" fill-opacity="0.6">'
            f"<title>{said}</title></circle>"
        )


def _legend(series: Series, ink: str, number: int) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 12, TOP + 12 + 18 * number
    yield f'<path d="M{x} {y - 4}h16" stroke="{ink}" stroke-width="2.5"/>'
    yield _text(x + 21, y, series.name[:NAME_LENGTH], "start", size=11)


def _text(
    x: float, y: float, said: str, anchor: str, *, ink: str = "#222222", size: int = 11
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" '
        f'font-size="{size}">{escape(said)}</text>'
    )


def _rounded(value: float) -> float:
    """Return the next number whose fifth is easy to read."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in STEPS if step * size >= value * (1 - 1e-9))
