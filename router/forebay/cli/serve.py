"""`forebay serve`: the router alone, beside a Triton that somebody else keeps."""

from __future__ import annotations

import os
import sys

import click

from forebay import wiring
from forebay.errors import SettingsError


@click.command()
def serve() -> None:
    """Serve both doors until SIGTERM or Ctrl-C; settings are the FOREBAY_* variables."""
    try:
        wiring.run(wiring.Settings.of(os.environ))
    except SettingsError as error:
        print(f"forebay serve: {error}", file=sys.stderr)
        sys.exit(1)
