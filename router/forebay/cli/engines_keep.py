"""`forebay engines verify | gc`: whether the installed engine may serve, and what may go."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from enginebuild import BuildError
from enginebuild import gc as garbage
from enginebuild import verify as verified
from enginebuild.machine import probe

CHECKOUT = Path(__file__).resolve().parents[3]
MIB = 1 << 20

REPOSITORY = click.option(
    "--repository",
    envvar="FOREBAY_REPOSITORY",
    type=click.Path(path_type=Path, file_okay=False),
    default=CHECKOUT / "model_repository",
)


@click.command()
@REPOSITORY
@click.option("--sku", help="the SKU that will serve it; by default this machine's GPU")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def verify(*, repository: Path, sku: str | None, as_json: bool) -> None:
    """Say whether the installed engine is whole, for this GPU, and what Triton's config names.

    Exits 1 with the sentence that says what is wrong.
    """
    sm = None if sku else _sm()
    try:
        said = verified.verify(repository, sku=sku, sm=sm)
    except BuildError as error:
        if as_json:
            print(json.dumps({"verified": False, "reason": str(error)}))
        print(f"forebay engines verify: {error}", file=sys.stderr)
        sys.exit(1)
    gpu: dict[str, Any] | None = said.get("gpu")
    checked = gpu is None or sm is not None or sku is not None
    if as_json:
        body = {"verified": True, "build": said["build"], "digest": said["digest"]}
        print(json.dumps(body | {"sm_compared": gpu is not None and checked}))
        return
    note = "" if checked else "; no GPU here, so its SM was not compared: name a --sku"
    print(f"{said['build']} {said['digest'][:12]} is whole: {len(said['files'])} files{note}")


def benches_of(scratch: Path | None) -> Path | None:
    """Return where builds work: as said, else in FOREBAY_HOME; None is beside the repository."""
    home = os.environ.get("FOREBAY_HOME")
    return scratch or (Path(home) / "builds" if home else None)


def _sm() -> int | None:
    try:
        return probe().sm
    except BuildError:
        return None


@click.command()
@REPOSITORY
@click.option("--scratch", type=click.Path(path_type=Path), help="where builds worked")
@click.option("--all", "everything", is_flag=True, help="also the steps of builds to be resumed")
@click.option("--remove", is_flag=True, help="remove what is listed; without it nothing is")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def gc(
    *, repository: Path, scratch: Path | None, everything: bool, remove: bool, as_json: bool
) -> None:
    """List what builds left behind and nothing refers to; --remove removes it."""
    beside = repository.resolve().parent / ".forebay" / "builds"
    # `up` builds beside, whatever FOREBAY_HOME is.
    places = dict.fromkeys((scratch or beside, benches_of(scratch) or beside))
    left = {one.path: one for bench in places for one in garbage.leftovers(repository, bench)}
    if everything:
        whole = {one.path: one for bench in places for one in garbage.forget(bench)}
        left = {p: one for p, one in left.items() if not any(o in p.parents for o in whole)}
        left |= {path: one for path, one in whole.items() if path not in left}
    found = list(left.values())
    if remove:
        for one in found:
            one.remove()
    if as_json:
        rows = [{"path": str(one.path), "bytes": one.size, "why": one.why} for one in found]
        print(json.dumps({"removed": remove, "leftovers": rows}))
        return
    for one in found:
        print(f"{one.size / MIB:10.1f} MiB  {one.path}  ({one.why})")
    state = "removed" if remove else "would be removed: --remove"
    print(f"{len(found)} leftovers, {sum(one.size for one in found) / MIB:.1f} MiB {state}")
