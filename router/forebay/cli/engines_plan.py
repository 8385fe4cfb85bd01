"""`forebay engines plan`: what a model does on a SKU, or why it cannot run there."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from enginebuild import measured, plan_text, plot
from enginebuild import plan as capacity_plan
from enginebuild.errors import SpecError
from enginebuild.performance import Workload
from enginebuild.precision import PRECISIONS

_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("model")
@click.option("--sku", required=True, help="a file of engines/skus, without .yaml")
@click.option(
    "--precision", type=click.Choice(list(PRECISIONS)), help="default: what suits the SKU"
)
@click.option(
    "--goal",
    type=click.Choice(["latency", "throughput", "balanced"]),
    default="balanced",
    show_default=True,
)
@click.option("--gpus", type=_COUNT, default=1, show_default=True)
@click.option("--tp", type=_COUNT, help="default: all the GPUs that --pp leaves")
@click.option("--pp", type=_COUNT, help="default: what --tp leaves of the GPUs")
@click.option(
    "--output",
    type=click.Choice(["engine", "llmapi"]),
    help="default: engine, or llmapi where the model has no engine",
)
@click.option("--input-tokens", type=_COUNT, default=1000, show_default=True)
@click.option("--output-tokens", type=_COUNT, default=1000, show_default=True)
@click.option("--max-seq-len", type=_COUNT, help="default: the longest that fits")
@click.option("--host-memory-gib", type=click.FloatRange(min=1), help="of the machine that builds")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.option(
    "--plot",
    "drawing",
    type=click.Path(dir_okay=False, path_type=Path),
    help="draw throughput against TPOT into this SVG file",
)
def plan(
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    as_json: bool,
    drawing: Path | None,
    **asked: Any,
) -> None:
    """Say what MODEL does on a SKU: memory, limits, TTFT, TPOT and tokens a second by batch.

    Exits 1 with every reason where it cannot run, and with the smallest build that could.
    """
    workload = Workload(input_tokens, output_tokens)
    question = capacity_plan.Question(model=model, workload=workload, **asked)
    try:
        found = capacity_plan.plan(question)
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    if isinstance(found, capacity_plan.Refused):
        _refuse(found, as_json=as_json)
        sys.exit(1)
    if drawing is not None:
        _draw(drawing, found)
    beside = measured.estimate(capacity_plan.case(found))
    if as_json:
        print(json.dumps(plan_text.as_json(found, beside), sort_keys=True))
    else:
        print(plan_text.as_text(found, beside))


def _refuse(found: capacity_plan.Refused, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan_text.as_json(found), sort_keys=True))
    for refusal in found.refusals:
        print(f"forebay engines plan: {refusal.sentence()}", file=sys.stderr)


def _draw(path: Path, found: capacity_plan.Plan) -> None:
    if path.suffix != ".svg":
        raise click.UsageError(f"--plot writes SVG: name the file {path.stem}.svg")
    try:
        path.write_text(plot.svg(found), encoding="utf-8")
    except OSError as error:
        print(f"forebay engines plan: {error}", file=sys.stderr)
        sys.exit(1)
