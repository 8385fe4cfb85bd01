"""Lines over a common axis as an SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 140, 48, 56
INKS = ("#0b6e4f", "#c8553d", "#2b59c3", "#8d6a9f", "#b08900", "#3d5a6c")
PARTS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One named line through its points, x ascending."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Title, what the axes measure, and the lines."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]


def svg(chart: Chart) -> str:
    """Return the drawing; both axes start at zero."""
    far = _rounded(max(x for line in chart.lines for x, _ in line.points))
    high = _rounded(max(y for line in chart.lines for _, y in line.points))
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    shapes = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, chart.title, "start", size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, chart.x_label, "middle"),
        _text(LEFT - 8, TOP - 10, chart.y_label, "end"),
        *_grid(far, high),
    ]
    for number, line in enumerate(chart.lines):
        shapes.extend(_line(line, number, far, high))
    return "\n".join((*shapes, "</svg>", ""))


def _grid(far: float, high: float) -> Iterator[str]:
    for part in range(PARTS + 1):
        x, y = _x(part / PARTS), _y(part / PARTS)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>'
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#eeeeee"/>'
        yield _text(x, HEIGHT - BOTTOM + 18, f"{far * part / PARTS:g}", "middle", ink="#666666")
        yield _text(LEFT - 8, y + 4, f"{high * part / PARTS:g}", "end", ink="#666666")


def _line(line: Line, number: int, far: float, high: float) -> Iterator[str]:
    ink = INKS[number % len(INKS)]
    at = [(_x(x / far), _y(y / high), x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in at)
    yield f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="2"/>'
    for x, y, load, value in at:
        said = escape(f"{line.name} at {load:g}: {value:.4g}")
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{ink}"><title>{said}</title></circle>'
    right, top = WIDTH - RIGHT + 16, TOP + 12 + 20 * number
    yield f'<path d="M{right} {top - 4}h18" stroke="{ink}" stroke-width="2.5"/>'
    yield _text(right + 24, top, line.name, "start")


def _text(
    x: float, y: float, said: str, anchor: str, *, ink: str = "#222222", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" '
        f'font-size="{size}">{escape(said)}</text>'
    )


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _rounded(value: float) -> float:
    """Return the next number whose fifth is easy to read."""
    if value <= 0.0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= value))
