"""`forebay triton`: start NVIDIA's Triton for the installed engine, one rank on each GPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from enginebuild import BuildError, commands, start
from enginebuild import verify as verified
from enginebuild.machine import probe


@click.command()
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/models"),
    show_default=True,
)
@click.option("--grpc-port", default=8001, show_default=True, envvar="FOREBAY_TRITON_GRPC_PORT")
@click.option("--http-port", default=8000, show_default=True, envvar="FOREBAY_TRITON_HTTP_PORT")
@click.option(
    "--metrics-port", default=8002, show_default=True, envvar="FOREBAY_TRITON_METRICS_PORT"
)
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("--dry-run", is_flag=True, help="print the command line and do not run it")
@click.option("--json", "as_json", is_flag=True, help="with --dry-run: one JSON object")
def triton(
    *,
    repository: Path,
    grpc_port: int,
    http_port: int,
    metrics_port: int,
    address: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Verify the installed engine for this machine's GPU, then become Triton (or mpirun)."""
    try:
        said = verified.verify(repository, sm=None if dry_run else probe().sm)
    except BuildError as error:
        print(f"forebay triton: {error}", file=sys.stderr)
        sys.exit(1)
    ports = start.Ports(grpc_port, http_port, metrics_port)
    words = start.command(repository, start.ranks(said), ports, address=address)
    if dry_run:
        print(json.dumps({"argv": words}) if as_json else " ".join(words))
        return
    os.execvpe(words[0], words, commands.environment())  # noqa: S606 - our own argv, no shell
