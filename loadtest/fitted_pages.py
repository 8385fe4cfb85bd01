"""How the simulator compares with a sweep, as a table, as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from loadtest.pages import markdown_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtest.fitted import Compared, FitName, Fitted

COLUMNS = (
    "load",
    "policy",
    "repetition",
    "offered",
    "observed",
    "router",
    "drawn",
    "replayed",
    "difference, points",
    "spilled, observed/simulated",
    "not served, observed/simulated",
)

NOTES = """\
Attainment is of all offered requests, those of the warm-up not judged. `router` has the four
numbers that the router itself had learnt before the point, on a machine of one pace. `drawn` has
a law fitted by least squares to the steps of the points without admission, and their pace begun at
other moments. `replayed` has the same law and the pace of the run itself, in windows of 5 s: the
time that its steps took, put together from its tokens' times, over the time that they take by the
law. No fit sees which requests kept their promises. ± is the standard deviation over draws."""


def write_fitted(
    engines: Sequence[Fitted],
    compared: Sequence[Compared],
    fit: FitName,
    within: float,
    folder: Path,
) -> str:
    """Write fitted.json and fitted.md; return the Markdown."""
    text = "\n".join((*_page(engines, compared, fit, within), ""))
    body = {
        "fit": fit,
        "within_points": within,
        "worst_points": round(worst_off(compared, fit), 3),
        "engines": [_engine(one) for one in engines],
        "points": [{**asdict(one), "off_points": round(one.off(fit), 3)} for one in compared],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fitted.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    (folder / "fitted.md").write_text(text, encoding="utf-8")
    return text


def _page(
    engines: Sequence[Fitted], compared: Sequence[Compared], fit: FitName, within: float
) -> list[str]:
    head = (
        f"Of {len(compared)} points, judged by the fit `{fit}`: the one furthest off is "
        f"{worst_off(compared, fit):.1f} points off, {within:g} are allowed."
    )
    classes = list(dict.fromkeys(name for one in compared for name in one.observed.by_class))
    by_class = [[one.point, *_by_class(one, fit, classes)] for one in compared]
    return [
        "# The simulator against the sweep",
        "",
        head,
        "",
        *_table(COLUMNS, [_line(one, fit) for one in compared]),
        "",
        f"Classes, observed/simulated by `{fit}`:",
        "",
        *_table(("point", *classes), by_class),
        "",
        NOTES,
        "",
        *(f"- {_told(one)}" for one in engines),
    ]


def worst_off(compared: Sequence[Compared], fit: FitName) -> float:
    """Return by how many points the worst point is off, whichever way."""
    return max((abs(one.off(fit)) for one in compared), default=0.0)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rows = (columns, ["---"] * len(columns), *lines)
    return [markdown_row(cells) for cells in rows]


def _line(one: Compared, fit: FitName) -> list[str]:
    seen, simulated = one.observed, one.simulated
    return [
        f"{one.load:g}x",
        one.policy,
        str(one.repetition),
        str(one.offered),
        f"{seen.attainment:.1%}",
        f"{simulated['router'].attainment:.1%}",
        *(
            f"{f.attainment:.1%} ± {f.spread:.1%}"
            for f in (simulated["drawn"], simulated["replayed"])
        ),
        f"{one.off(fit):+.1f}",
        f"{seen.spilled:.1%} / {simulated[fit].spilled:.1%}",
        f"{seen.unserved:.1%} / {simulated[fit].unserved:.1%}",
    ]


def _by_class(one: Compared, fit: FitName, classes: Sequence[str]) -> list[str]:
    seen, simulated = one.observed.by_class, one.simulated[fit].by_class
    return [f"{seen[n]:.1%} / {simulated[n]:.1%}" if n in seen else "-" for n in classes]


def _told(one: Fitted) -> str:
    law, factors = one.law, sorted(one.pace.factors)
    low, high = (factors[int(share * (len(factors) - 1))] for share in (0.05, 0.95))
    return (
        f"Repetition {one.repetition}: a step takes {law.a_s * 1e3:.1f} ms, "
        f"{law.b_s * 1e3:.2f} ms a stream, {law.c_s * 1e3:.5f} ms a token of context and "
        f"{law.d_s * 1e3:.2f} ms a prompt token, from {one.steps} steps of which {one.not_sure} "
        f"are not sure; jitter {one.sigma:.2f}; pace {low:.2f} to {high:.2f} in nine windows of "
        f"ten; {one.delay_s * 1e3:.0f} ms from the router into the engine."
    )


def _engine(one: Fitted) -> dict[str, object]:
    law = one.law
    return {
        "repetition": one.repetition,
        "step_s": [law.a_s, law.b_s, law.c_s, law.d_s],
        "sigma": one.sigma,
        "delay_s": one.delay_s,
        "steps": one.steps,
        "not_sure": one.not_sure,
        "pace": [round(factor, 3) for factor in one.pace.factors],
    }
