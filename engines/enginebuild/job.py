"""What a builder hands to the pipeline: steps that end in a package, and what serves it."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebuild.steps import DONE, Step

PACKAGE = "package"
TEXT_MODELS = ("preprocessing", "postprocessing")


@dataclass(frozen=True, slots=True)
class Job:
    """One build to be made.

    `first` are the steps that find their inputs' content, and are asked even where the engine
    may be current. `then` are the others; the last writes the engine with its manifest.
    `configs` gives each model's config.pbtxt for what names the engine, and `python` the folder
    of the Python that a model runs, where it runs any.
    """

    build_id: str
    first: tuple[Step, ...]
    then: tuple[Step, ...]
    configs: Callable[[Mapping[str, str]], Mapping[str, str]]
    python: Mapping[str, Path]


def gather(files: Path, into: Path) -> None:
    """Put every file of a step's folder into another: linked where one disk holds both."""
    for path in sorted(files.iterdir()):
        if path.name != DONE:
            put(path, into / path.name)


def put(path: Path, target: Path) -> None:
    """Make `target` the same file as `path`: a hard link, or a copy on another disk."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
