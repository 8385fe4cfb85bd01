"""Throughput against TPOT as an SVG: one line per precision, one dot per batch."""

import math
from collections.abc import Iterator
from html import escape

from enginebuild.plan import Curve, Plan

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 84, 150, 56, 60
INKS = ("#0b6e4f", "#c8553d", "#2b59c3", "#8d6a9f", "#b08900", "#3d5a6c", "#a4243b", "#5b8e7d")
STEPS = (1, 2, 2.5, 5, 10)


def svg(plan: Plan) -> str:
    """Return the drawing. Axes start at zero: right is slower for one user, up is more for all."""
    points = [one for curve in plan.curves for one in curve.points]
    far = _rounded(max(one.tpot_ms for one in points))
    high = _rounded(max(one.tokens_per_s for one in points))
    title = f"{plan.model} on {plan.gpus} x {plan.sku}"
    shape = f"{plan.workload.input_tokens} tokens in, {plan.workload.output_tokens} out"
    frame = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, title, "start", size=15),
        _text(LEFT, 42, f"predicted; {shape}", "start", ink="#666666"),
        *_grid(far, high),
    ]
    # The planned line last: it lies on top where precisions are equally fast.
    order = sorted(enumerate(plan.curves), key=lambda one: one[1].precision == plan.precision)
    for number, curve in order:
        ink = INKS[number % len(INKS)]
        planned = curve.precision == plan.precision
        lines.extend(_line(curve, ink, far, high, planned=planned))
        lines.extend(_legend(curve, ink, number, planned=planned))
    return "\n".join((*lines, "</svg>", ""))


def _grid(far: float, high: float) -> Iterator[str]:
    for part in range(6):
        x, y = _x(far * part / 5, far), _y(high * part / 5, high)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>'
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#eeeeee"/>'
        yield _text(x, HEIGHT - BOTTOM + 18, f"{far * part / 5:g}", "middle", ink="#666666")
        yield _text(LEFT - 8, y + 4, f"{high * part / 5:,.0f}", "end", ink="#666666")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield _text(middle, HEIGHT - 16, "TPOT, ms (each user waits this long for a token)", "middle")
    yield _text(LEFT - 8, TOP - 4, "tokens/s", "end")


def _line(curve: Curve, ink: str, far: float, high: float, *, planned: bool) -> Iterator[str]:
    at = [(_x(one.tpot_ms, far), _y(one.tokens_per_s, high), one) for one in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in at)
    width = 2.5 if planned else 1.5
    yield f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="{width}"/>'
    for x, y, one in at:
        said = f"{curve.precision}, batch {one.batch}: {one.tokens_per_s:.0f} tokens/s, "
        said += f"TPOT {one.tpot_ms:.1f} ms"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{ink}">'
            f"<title>{escape(said)}</title></circle>"
        )


def _legend(curve: Curve, ink: str, number: int, *, planned: bool) -> Iterator[str]:
    x, y = WIDTH - RIGHT + 16, TOP + 12 + 20 * number
    yield f'<path d="M{x} {y - 4}h18" stroke="{ink}" stroke-width="2.5"/>'
    yield _text(x + 24, y, curve.precision + (", planned" if planned else ""), "start")


def _text(
    x: float, y: float, said: str, anchor: str, *, ink: str = "#222222", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}" '
        f'font-size="{size}">{escape(said)}</text>'
    )


def _x(tpot_ms: float, far: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * tpot_ms / far


def _y(tokens_per_s: float, high: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * tokens_per_s / high


def _rounded(value: float) -> float:
    """Return the next number whose fifth is easy to read."""
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step * size for step in STEPS if step * size >= value))
