"""`python -m enginebuild build BUILD`: build one engine and say where it is."""

import argparse
import sys
import time
from pathlib import Path

from enginebuild.build import MODELS, build
from enginebuild.errors import BuildError
from enginebuild.spec import known


def main() -> int:
    """Return 0 if the engine stands, 1 with a sentence on standard error if it does not."""
    parser = argparse.ArgumentParser(prog="enginebuild", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("build", help="build and install one engine")
    verb.add_argument("build", choices=known("builds"))
    verb.add_argument("--repository", type=Path, default=MODELS)
    verb.add_argument("--weights", type=Path, help="the weights file, or a folder that holds it")
    asked = parser.parse_args()
    started = time.monotonic()
    try:
        built = build(
            asked.build,
            repository=asked.repository,
            weights=asked.weights,
            progress=_say,
        )
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    took = time.monotonic() - started
    word = "built" if built.fresh else "unchanged"
    sys.stdout.write(f"{built.build_id} {word} in {took:.2f} s: {built.engine}\n")
    return 0


def _say(step: str) -> None:
    sys.stderr.write(f"{step}\n")


if __name__ == "__main__":
    raise SystemExit(main())
