"""A build as steps that are done once, each in a folder of its own, and resumed after a kill.

A step's key is a hash of its name, of everything it depends on, and of the results of the steps
before it. Its folder appears under its final name by one rename, with its key inside, so what a
killed step left is never taken for its result.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginebuild import commands, install, manifest

DONE = ".done.json"
PART = ".part"
LOGS = "logs"
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Site:
    """Where one step works: its empty folder, what earlier steps made, its log, its key."""

    folder: Path
    made: Mapping[str, Path]
    log: Path
    key: str
    tell: Tell

    def run(self, words: Sequence[str], limit_s: float | None = None) -> None:
        """Run a command to its end, its output in the step's log.

        Raises:
            BuildError: if it fails or is late, with its last lines and where the log is.
        """
        commands.run(words, self.log, self.tell, limit_s)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `about` is all that its result depends on, beside the steps before it.

    `result`, where it is given, reads what the step found: the steps after it then depend on
    that content and not on where it came from.
    """

    name: str
    about: Mapping[str, Any]
    make: Callable[[Site], None]
    result: Callable[[Path], str] | None = None


@dataclass(slots=True)
class Bench:
    """The folder of one build's steps."""

    root: Path
    tell: Tell
    made: dict[str, Path] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)

    def alone(self) -> AbstractContextManager[None]:
        """Hold the bench against another build of the same id."""
        self.root.mkdir(parents=True, exist_ok=True)
        return install.alone(self.root)

    def foreseen(self, steps: Sequence[Step]) -> str:
        """Return the key of the last of the steps to come, none of which finds a result."""
        results = list(self.results)
        for step in steps:
            results.append(_key(step, results))
        return results[-1]

    def do(self, step: Step) -> Path:
        """Return the step's folder, made now unless it was made of the same inputs."""
        key = _key(step, self.results)
        folder = self.root / f"{len(self.results) + 1}-{step.name}"
        result = _result(folder, key)
        if result is None:
            result = self._make(step, key, folder)
        else:
            self.tell(f"{step.name}: done before")
        self.results.append(result)
        self.made[step.name] = folder
        return folder

    def clear(self) -> None:
        """Remove the folders of all steps but those that found a result; logs stay."""
        for folder in self.root.glob("[0-9]*-*"):
            done = _marker(folder)
            if done is None or done["result"] == done["key"]:
                shutil.rmtree(folder)

    def _make(self, step: Step, key: str, folder: Path) -> str:
        part = folder.with_name(folder.name + PART)
        for leftover in (part, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        logs = self.root / LOGS
        logs.mkdir(exist_ok=True)
        log = logs / f"{step.name}.log"
        log.unlink(missing_ok=True)
        self.tell(f"{step.name}: started")
        began_s = time.monotonic()
        step.make(Site(part, dict(self.made), log, key, self.tell))
        result = step.result(part) if step.result else key
        files = sorted(path for path in part.rglob("*") if path.is_file())
        sizes = {str(path.relative_to(part)): path.stat().st_size for path in files}
        body = {"key": key, "result": result, "sizes": sizes}
        (part / DONE).write_text(manifest.canonical(body), encoding="utf-8")
        part.rename(folder)
        self.tell(f"{step.name}: done in {time.monotonic() - began_s:.1f} s")
        return result


def _key(step: Step, results: Sequence[str]) -> str:
    return manifest.text_sha256(step.name, manifest.canonical(step.about), *results)


def _result(folder: Path, key: str) -> str | None:
    """Return the result in a folder made under that key and still as large as it was."""
    done = _marker(folder)
    if done is None or done["key"] != key:
        return None
    for name, size in done["sizes"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return str(done["result"])


def _marker(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
