"""`forebay policy check`: read a policy as the router would."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay import wiring
from forebay.errors import SettingsError

if TYPE_CHECKING:
    from forebay.policy.choose import Policy


@click.group()
def policy() -> None:
    """Work on policies."""


@policy.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def check(path: Path, *, as_json: bool) -> None:
    """Say whether a policy loads, with each error's place; run its probes if it has some."""
    try:
        loaded = _load(path)
        failed = wiring.failed_probes(path, loaded)
    except SettingsError as error:
        errors = str(error).splitlines()
        _say(as_json, {"ok": False, "errors": errors}, "", errors)
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
        said,
        failed,
    )
    sys.exit(1 if failed else 0)


def _load(path: Path) -> Policy:
    try:
        path.stat()
    except FileNotFoundError:  # the router's own sentence names a variable that has no say here
        raise SettingsError(f"{path}: no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    return wiring.read_policy(path)


def _say(as_json: bool, whole: dict[str, object], sentence: str, errors: list[str]) -> None:
    if as_json:
        print(json.dumps(whole))
        return
    if sentence:
        print(sentence)
    for error in errors:
        print(error, file=sys.stderr)
