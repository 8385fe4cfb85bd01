"""`forebay simulate`: what a policy would have done with a trace, a fleet and a cloud."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay.errors import SettingsError
from forebay.lab import report
from forebay.lab import simulate as lab
from forebay.lab.rows import POLICIES
from forebay.lab.traces import column_map
from forebay.wiring import CHECKOUT, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIO = CHECKOUT / "data" / "scenarios" / "azure-five-classes.yaml"

LEAST_LOAD, MOST_LOAD = 0.01, 1000.0
"""An hour's trace takes two days at the least; at less its scrapes alone take hours to play."""

_FILE = click.Path(dir_okay=False, path_type=Path)


def _loads(_context: click.Context, _option: click.Parameter, said: str) -> tuple[float, ...]:
    try:
        loads = tuple(float(one) for one in said.split(","))
    except ValueError:
        loads = ()
    if not loads or not all(LEAST_LOAD <= load <= MOST_LOAD for load in loads):
        raise click.BadParameter(
            f"{said!r} is no list of loads such as 0.5,1,2, from {LEAST_LOAD:g} to {MOST_LOAD:g}"
        )
    return loads


def _policies(_context: click.Context, _option: click.Parameter, said: str) -> tuple[str, ...]:
    policies = tuple(said.split(","))
    strange = [one for one in policies if one not in POLICIES]
    if strange:
        raise click.BadParameter(f"no policy {strange[0]!r}; there are {', '.join(POLICIES)}")
    return policies


def _columns(
    _context: click.Context, _option: click.Parameter, said: str | None
) -> dict[str, str] | None:
    try:
        return None if said is None else column_map(said)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--trace", "traces", multiple=True, type=_FILE, help="CSV or JSON lines, repeatable")
@click.argument("more_traces", nargs=-1, type=_FILE, metavar="[FILE]...")
@click.option("--columns", callback=_columns, help="arrival=COLUMN,input=COLUMN,output=COLUMN")
@click.option(
    "--scenario", type=_FILE, default=SCENARIO, help="default: five classes, Azure's hour"
)
@click.option(
    "--loads", callback=_loads, default="0.5,1,2,4", show_default=True, help="in units of 1x"
)
@click.option(
    "--policies",
    callback=_policies,
    default="forebay,cap,threshold,fifo",
    show_default=True,
    help=", ".join(POLICIES) + "; caps are the cheapest in hindsight, for each load and seed",
)
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, help="how many"
)
@click.option(
    "--engine-form", help="an engine of the scenario: linear, max; default: the scenario's"
)
@click.option("--disturb", help="a disturbance of the scenario")
@click.option(
    "--oracles",
    is_flag=True,
    help="give each row lp_usd, null without; kept under FOREBAY_HOME",
)
@click.option(
    "--search",
    type=click.IntRange(min=0),
    default=0,
    help="with --oracles, rounds of search for clairvoyant_usd, null at 0 (some 3 s each)",
)
@click.option(
    "--plot", type=click.Path(file_okay=False, path_type=Path), help="draw SVGs into a folder"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def simulate(
    traces: tuple[Path, ...],
    more_traces: tuple[Path, ...],
    columns: dict[str, str] | None,
    scenario: Path,
    *,
    seeds: int,
    engine_form: str | None,
    disturb: str | None,
    oracles: bool,
    search: int,
    plot: Path | None,
    as_json: bool,
    **asked: object,
) -> None:
    """Play a trace against policies on a simulated fleet; say what each attains and spends.

    Several files after one --trace are one trace. 1x is the load that the fleet, first in first
    out, works off at its fastest.

    A row's spill_usd is what the cloud was paid. charged_usd adds, for each miss that it was not
    paid for, what it would have asked, 20 times that where a class may not leave. No policy's
    charged_usd is below lp_usd, but the spill_usd of one that misses may be. clairvoyant_usd is
    the less of what our own policy was charged, told the future, and what another router was, with
    the best set to send away that a search found.
    """
    if search and not oracles:
        raise click.UsageError("--search needs --oracles")
    question = lab.Question(
        scenario=scenario,
        seeds=range(1, seeds + 1),
        traces=(*traces, *more_traces),
        columns=columns,
        form=engine_form,
        disturbance=disturb,
        oracles=oracles,
        search=search,
        **asked,  # type: ignore[arg-type]
    )
    _told(lambda: _run(question, plot, as_json=as_json))


def _run(question: lab.Question, plot: Path | None, *, as_json: bool) -> None:
    answer = lab.answer(question, Settings.of(os.environ).home)
    cut, most = answer.cut
    if cut:
        print(
            f"{cut} of {len(answer.rows.setting.trace)} answers are longer than the scenario's "
            f"max_tokens, {most}, and end there",
            file=sys.stderr,
        )
    rows = []
    for row in answer.played():
        rows.append(row)
        print(report.line(row), file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {
                    "one_x_rps": answer.rows.one_x_rps,
                    "answers_cut": cut,
                    "rows": [lab.as_json(r) for r in rows],
                }
            )
        )
    else:
        print(report.table(rows, answer.rows.one_x_rps))
    if plot is not None:
        report.draw(rows, plot)


def _told(work: Callable[[], None]) -> None:
    try:
        work()
    except SettingsError as error:
        print(f"forebay simulate: {error}", file=sys.stderr)
        sys.exit(2)
