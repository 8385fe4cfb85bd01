"""A report as Markdown and as one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from loadtest.charts import svg
from loadtest.figures import figures
from loadtest.outcome import of_json, to_json
from loadtest.plan import Plan, PlanError
from loadtest.report import report as remade

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from loadtest.checks import Check
    from loadtest.outcome import Outcome
    from loadtest.report import Report

Rows: TypeAlias = "list[Sequence[str]]"
Table: TypeAlias = "tuple[str, Sequence[str], Rows]"
"""A heading, the columns' names, the rows."""

RUN = "run.json"
"""The plan as it was run and what is known of the generator, beside the outcomes."""

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:980px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.2rem .7rem;text-align:right;
border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}td:first-child,th:first-child{
text-align:left}svg{width:100%;height:auto;border:1px solid #eee;margin:.5rem 0}
.passed{color:#0b6e4f}.failed{color:#a4243b}small{color:#666}
"""

NOTE = (
    "Every offered request counts: refusals, errors and answers cut off are misses. TTFT and E2E "
    "are taken from the moment a request was scheduled. TPOT = (E2E - TTFT)/(n - 1) of a request; "
    "ITL = each gap between tokens. Slow readers are judged by TTFT alone. Percentiles are of the "
    "requests that have the figure (count): TTFT of those with a first token, TPOT of those with "
    "two tokens, E2E of those served, the last three without slow readers; a service that answers "
    "less can look faster in them. TTFT, all offered is of every request: one without a first "
    "token waited for ever. Spend is the last target's usage; what earlier rungs of a request "
    "cost is in the router's record."
)
LIVE = (
    "So far: a request that was due in this time and is still open is in none of these figures, "
    "and a generator tells its lateness when it ends. A service that stalls looks better here "
    "than in the report at the end."
)


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json, report.md, report.html, outcomes.jsonl and run.json; return where.

    The last two are all that `again` needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "report.json": json.dumps(report.body, indent=2) + "\n",
        "report.md": markdown(report),
        "report.html": html(report),
        "outcomes.jsonl": "".join(json.dumps(to_json(o)) + "\n" for o in report.outcomes),
        RUN: json.dumps(_run(report)) + "\n",
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def again(outcomes: Path, plan: Plan | None = None) -> Report:
    """Return the report of outcomes that `write` wrote, by their own plan or another.

    What no run.json beside them tells of the generator counts as not measured.

    Raises:
        PlanError: no plan is given, and there is no run.json; or the outcomes are not of the plan,
            or of a part of it.
    """
    path = outcomes.with_name(RUN)
    try:
        said = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise PlanError(f"{path}: is no run: {error}") from error
    if plan is None and not said:
        raise PlanError(f"there is no {path}, so say by which plan: --plan FILE")
    ran = Plan.model_validate(said["plan"]) if said else None
    plan = plan or ran
    assert plan is not None
    if ran is not None and plan.warmup_s < ran.warmup_s:
        raise PlanError(
            f"{outcomes} begins after a warm-up of {ran.warmup_s:g} s, and the plan judges from "
            f"{plan.warmup_s:g} s on"
        )
    if ran is not None and plan.duration_s > ran.duration_s:
        raise PlanError(
            f"{outcomes} is of a run of {ran.duration_s:g} s, and the plan judges one of "
            f"{plan.duration_s:g} s"
        )
    return remade(
        plan, _read(outcomes, plan), until_s=said.get("until_s"), **said.get("generator", {})
    )


def _read(path: Path, plan: Plan) -> list[Outcome]:
    """Return the outcomes of a file, each of a class of the plan."""
    found: list[Outcome] = []
    try:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            one = of_json(json.loads(line))
            if one.klass not in plan.by_name:
                raise PlanError(f"{path}:{number}: the plan has no class {one.klass}")
            found.append(one)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise PlanError(f"{path}:{len(found) + 1}: is no outcome: {error}") from error
    return found


def _run(report: Report) -> dict[str, Any]:
    late_ms = [round(late, 3) for late in report.generator.loop_late_ms]
    return {
        "plan": report.plan.model_dump(mode="json"),
        "until_s": report.body["until_s"],
        "generator": {**asdict(report.generator), "loop_late_ms": late_ms},
    }


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [f"# Load test {report.plan.name}: {verdict(report)}", "", summary(report), ""]
    for heading, columns, rows in tables(report):
        if rows:
            lines += [f"## {heading}", "", *_markdown_rows(columns, rows), ""]
    return "\n".join([*lines, NOTE, ""])


def html(report: Report, *, live: bool = False) -> str:
    """Return the report as one page; `live` is of a run that goes on and has no verdict yet."""
    kind = "running" if live else verdict(report)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Load test {escape(report.plan.name)}</title><style>{STYLE}</style>",
        f"<h1>Load test {escape(report.plan.name)}: <span class={kind}>{kind}</span></h1>",
        f"<p>{escape(f'{_counts(report.body)} {LIVE}' if live else summary(report))}</p>",
    ]
    for heading, columns, rows in tables(report):
        if rows:
            parts.append(f"<h2>{escape(heading)}</h2>{_html_rows(columns, rows)}")
    parts += ["<h2>Figures</h2>", *(svg(chart) for chart in figures(report))]
    return "\n".join([*parts, f"<p><small>{escape(NOTE)}</small></p></html>", ""])


def verdict(report: Report) -> str:
    """Return `passed` or `failed`."""
    return "passed" if report.passed else "failed"


def summary(report: Report) -> str:
    """Return the run in a few sentences."""
    body, generator = report.body, report.body["generator"]
    said = [_counts(body), *(f"A generator broke off: {why}." for why in generator["broken_off"])]
    if body["until_s"] is not None:
        said.append(
            f"The run was ended early: only what was due in the first {body['until_s']:.4g} s of "
            f"{report.plan.duration_s:g} s is judged."
        )
    if not generator["measured"]:
        said.append("How late the generator was is not known, so the run has not passed.")
    elif not generator["kept_up"]:
        said.append(
            "The generator fell behind (see the checks), so these figures are not the service's: "
            "lower the load or give the generator a core of its own."
        )
    return " ".join(said)


def _counts(body: Mapping[str, Any]) -> str:
    if not body["offered"]:
        return "No request was offered in the time that is judged."
    return (
        f"{body['offered']} requests were offered in {body['duration_s']:.4g} s "
        f"({body['offered_rps']:.2f}/s); {body['attainment']:.1%} met all SLOs of their class, "
        f"a goodput of {body['goodput_rps']:.2f} requests/s, for {body['usd']:.6f} USD."
    )


def tables(report: Report) -> Iterable[Table]:
    """Return the tables of a report, in order."""
    body = report.body
    yield (
        "Checks",
        ("check", "wanted", "found", "passed"),
        [(c.what, _number(c.wanted), found(c), "yes" if c.passed else "NO") for c in report.checks],
    )
    for heading, key in (("Classes", "classes"), ("Modes", "modes"), ("Tiers", "tiers")):
        yield heading, _KEPT, [_kept(name, one) for name, one in body[key].items()]
    yield (
        "Latency, ms",
        _TIMES,
        [
            row
            for name, one in body["classes"].items()
            if one["offered"]
            for row in _times(name, one)
        ],
    )
    yield (
        "Decisions",
        ("move", "reason", "target", "count"),
        [(d["move"], d["reason"], d["target"], str(d["count"])) for d in body["decisions"]],
    )
    yield (
        "Spend",
        ("target", "requests", "prompt tokens", "completion tokens", "USD"),
        [
            (
                name,
                str(one["requests"]),
                str(one["prompt_tokens"]),
                str(one["completion_tokens"]),
                f"{one['usd']:.6f}",
            )
            for name, one in body["spend"].items()
        ],
    )
    yield (
        "Errors",
        ("code", "reason", "count"),
        [(e["code"], e["reason"], str(e["count"])) for e in body["errors"]],
    )
    yield "Predicted against observed", _SPREAD, _predicted(body["prediction"])
    yield (
        "Generator, ms",
        _SPREAD,
        [
            _spread("send lag", body["generator"]["send_lag_ms"]),
            _spread("event loop late", body["generator"]["loop_late_ms"]),
        ],
    )


_KEPT = ("name", "offered", "attainment", "goodput/s", "spilled", "missed by")
_TIMES = ("class", "figure", "count", "p50", "p90", "p95", "p99", "max")
_SPREAD = ("figure", "count", "p50", "p90", "p95", "p99", "max")
_RANKS = ("p50", "p90", "p95", "p99", "max")


def found(check: Check) -> str:
    """Return what a check found, in words."""
    return "not measured" if check.found is None else _number(check.found)


def _kept(name: str, one: Mapping[str, Any]) -> Sequence[str]:
    missed = ", ".join(f"{why} {count}" for why, count in one["missed"].items())
    attainment = "-" if one["attainment"] is None else f"{one['attainment']:.2%}"
    return (
        name,
        str(one["offered"]),
        attainment,
        f"{one['goodput_rps']:.2f}",
        str(one["spilled"]),
        missed or "-",
    )


def _times(name: str, one: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for figure in ("ttft", "ttft_offered", "tpot", "itl", "e2e"):
        said = figure.upper().replace("_OFFERED", ", all offered")
        yield name, *_spread(said, one[f"{figure}_ms"])


def _predicted(said: Mapping[str, Any]) -> Rows:
    if not said["ttft_absolute_error_ms"]["count"]:
        return []
    return [
        _spread("TTFT, absolute error, ms", said["ttft_absolute_error_ms"]),
        _spread("TPOT, absolute error, ms", said["tpot_absolute_error_ms"]),
        _spread("queued, ms", said["queued_ms"]),
    ]


def _spread(name: str, said: Mapping[str, Any]) -> Sequence[str]:
    nothing = "never" if said["count"] else "-"
    ranks = (said[rank] for rank in _RANKS)
    return name, str(said["count"]), *(nothing if r is None else _number(r) for r in ranks)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"  # noqa: PLR2004 - room


def _markdown_rows(columns: Sequence[str], rows: Rows) -> list[str]:
    head = [markdown_row(columns), f"|---{'|---:' * (len(columns) - 1)}|"]
    return [*head, *(markdown_row(row) for row in rows)]


def markdown_row(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table; what would end a cell or the line is escaped."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _html_rows(columns: Sequence[str], rows: Rows) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
