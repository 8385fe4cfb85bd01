"""`forebay engines`: list what can be built, and build it where Triton loads it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from enginebuild import SPECS, BuildError, build
from forebay.cli.engines_plan import plan

CHECKOUT = Path(__file__).resolve().parents[3]


@click.group()
def engines() -> None:
    """Work on engines."""


engines.add_command(plan)


@engines.command("list")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_builds(*, as_json: bool) -> None:
    """List the builds that are specified."""
    found = sorted(path.stem for path in (SPECS / "builds").glob("*.yaml"))
    print(json.dumps({"builds": found}) if as_json else "\n".join(found))


@engines.command("build")
@click.argument("build_id")
@click.option(
    "--repository", type=click.Path(path_type=Path), default=CHECKOUT / "model_repository"
)
@click.option(
    "--weights",
    type=click.Path(exists=True, path_type=Path),
    help="a weights file or its folder; by default the installed package's",
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def build_engine(build_id: str, *, repository: Path, weights: Path | None, as_json: bool) -> None:
    """Build BUILD_ID and install it; an engine that is current costs no time."""
    try:
        built = build(
            build_id,
            repository=repository,
            weights=weights,
            progress=lambda step: print(step, file=sys.stderr),
        )
    except (BuildError, OSError) as error:
        print(f"forebay engines build: {error}", file=sys.stderr)
        sys.exit(1)
    if as_json:
        print(json.dumps({**dataclasses.asdict(built), "engine": str(built.engine)}))
    else:
        state = "built" if built.fresh else "current"
        print(f"{built.build_id} {built.digest[:12]} {state}: {built.engine}")
