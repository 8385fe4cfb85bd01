"""`forebay engines`: what can be built, building it where Triton loads it, and keeping it right."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from enginebuild import SPECS, BuildError, build
from enginebuild.spec import GpuSpec, known, load
from enginebuild.toolbox import Toolbox
from forebay.cli.engines_keep import REPOSITORY, benches_of, gc, verify
from forebay.cli.engines_plan import plan


@click.group()
def engines() -> None:
    """Work on engines."""


for command in (plan, verify, gc):
    engines.add_command(command)


@engines.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_builds(*, as_json: bool) -> None:
    """List the builds that are specified: id, builder, precision, goal."""
    rows = [_row(build_id) for build_id in known("builds")]
    if as_json:
        print(json.dumps({"builds": rows}))
        return
    width = max(len(row["build"]) for row in rows)
    for row in rows:
        print(f"{row['build']:<{width}}  {row['builder']:<8}  {row['precision']} {row['goal']}")


def _row(build_id: str) -> dict[str, str]:
    spec = load(build_id)
    row = {
        "build": build_id,
        "model": spec.build.model,
        "sku": spec.build.sku,
        "builder": spec.build.builder,
    }
    if isinstance(spec, GpuSpec):
        return row | {"precision": spec.build.precision, "goal": spec.build.goal}
    return row | {"precision": "gguf", "goal": spec.build.profile}


@engines.command("build")
@click.argument("build_id")
@REPOSITORY
@click.option(
    "--weights",
    type=click.Path(exists=True, path_type=Path),
    help="a checkpoint folder or a weights file; by default the installed package",
)
@click.option("--scratch", type=click.Path(path_type=Path), help="where steps work and log")
@click.option(
    "--examples",
    type=click.Path(path_type=Path),
    help="TensorRT-LLM's folder of that name [default: the container's]",
)
@click.option("--smoke/--no-smoke", default=True, help="decode a few tokens before it is installed")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def build_engine(
    build_id: str,
    *,
    repository: Path,
    weights: Path | None,
    scratch: Path | None,
    examples: Path | None,
    smoke: bool,
    as_json: bool,
) -> None:
    """Build BUILD_ID and install it; an engine that is current costs no time.

    A build that was stopped goes on where it was, and one that fails leaves what serves alone.
    """
    try:
        built = build(
            build_id,
            repository=repository,
            weights=weights,
            scratch=benches_of(scratch),
            toolbox=Toolbox(examples=examples) if examples else Toolbox(),
            tried=smoke,
            progress=lambda step: print(step, file=sys.stderr),
            specs=SPECS,
        )
    except (BuildError, OSError) as error:
        print(f"forebay engines build: {error}", file=sys.stderr)
        sys.exit(1)
    if as_json:
        print(json.dumps({**dataclasses.asdict(built), "engine": str(built.engine)}))
    else:
        state = "built" if built.fresh else "current"
        print(f"{built.build_id} {built.digest[:12]} {state}: {built.engine}")
