"""`forebay policy check`: read a policy as the router would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from forebay import wiring
from forebay.errors import SettingsError


@click.group()
def policy() -> None:
    """Work on policies."""


@policy.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def check(path: Path, *, as_json: bool) -> None:
    """Say whether a policy loads, with each error's place; run its probes if it has some."""
    try:
        loaded = wiring.read_policy(path)
        failed = wiring.failed_probes(path, loaded)
    except SettingsError as error:
        _say(as_json, {"ok": False, "errors": str(error).splitlines()}, str(error))
        sys.exit(1)
    said = f"{path}: policy {loaded.version}, classes {', '.join(loaded.by_name)}"
    _say(
        as_json,
        {
            "ok": not failed,
            "version": loaded.version,
            "classes": list(loaded.by_name),
            "errors": failed,
        },
        "\n".join([said, *failed]),
    )
    sys.exit(1 if failed else 0)


def _say(as_json: bool, whole: dict[str, object], sentence: str) -> None:
    print(json.dumps(whole) if as_json else sentence)
