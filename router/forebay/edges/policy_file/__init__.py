"""Policies and their probes, read from YAML files; whatever is wrong is told by line and column."""

from __future__ import annotations

import hashlib
import pathlib
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from forebay.edges.policy_file.reader import SIZE_MAX, Problem, Read, read
from forebay.edges.policy_file.sentences import Fault, faults_of
from forebay.edges.policy_file.within import within
from forebay.errors import SettingsError
from forebay.policy.check import Finding, check
from forebay.policy.choose import Policy
from forebay.policy.probes import Probes
from forebay.policy.rules import Document, Rule

if TYPE_CHECKING:
    from forebay.edges.policy_file.reader import Mark, Path
    from forebay.policy.probes import Probe

__all__ = ["load", "load_probes"]

_VERSION_DIGITS = 12

Shape = TypeVar("Shape", bound=Rule)


def load(path: str | pathlib.Path) -> Policy:
    """Return a checked policy, its version the first digits of the file's SHA-256.

    Raises:
        SettingsError: all that is wrong, a line each: `FILE:LINE:COL: what; did you mean NAME?`
    """
    content = _content(path)
    source = read(content)
    document, faults, dropped = _shaped(Document, source)
    problems = [*source.problems, *(_at(source, fault) for fault in faults)]
    if document is not None:
        around = {mark for fault in dropped for mark in fault.around}
        problems += [
            _found(source, finding, content)
            for finding in check(document)
            if not _silenced(source, finding, dropped, around)
        ]
    _refuse(path, problems)
    if document is None:
        raise AssertionError("a document without faults was not shaped")
    return Policy(document, hashlib.sha256(content).hexdigest()[:_VERSION_DIGITS])


def load_probes(path: str | pathlib.Path) -> tuple[Probe, ...]:
    """Return the probes of a file, in order.

    Raises:
        SettingsError: as `load` does.
    """
    source = read(_content(path))
    probes, faults, _ = _shaped(Probes, source)
    _refuse(path, [*source.problems, *(_at(source, fault) for fault in faults)])
    return () if probes is None else probes.probes


def _content(path: str | pathlib.Path) -> bytes:
    try:
        with pathlib.Path(path).open("rb") as file:
            content = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file; name one with FOREBAY_POLICY") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > SIZE_MAX:
        _refuse(path, [Problem(1, 1, f"the file is larger than {SIZE_MAX:,} bytes")])
    return content


def _refuse(path: str | pathlib.Path, problems: list[Problem]) -> None:
    if problems:
        lines = (f"{path}:{line}:{column}: {said}" for line, column, said in sorted(set(problems)))
        raise SettingsError("\n".join(lines))


def _shaped(shape: type[Shape], source: Read) -> tuple[Shape | None, list[Fault], list[Fault]]:
    """Return the document without its faulty parts, the faults, and the parts left out.

    What is left is checked as well, so that one run tells all. Only the first look's faults
    are told: later ones come of what was left out. `source` loses the faulty parts, too.
    """
    told: list[Fault] | None = None
    dropped: list[Fault] = []
    while source.data is not None:
        try:
            return shape.model_validate(source.data), told or [], dropped
        except ValidationError as error:
            faults = faults_of(error, shape, source.data)
        faults = [
            fault._replace(
                mark=source.mark(fault.path, key=fault.key),
                around=tuple(source.mark(fault.whole[:n]) for n in range(1, len(fault.whole))),
            )
            for fault in faults
        ]
        told = faults if told is None else told
        parts = {fault.whole for fault in faults}
        if () in parts:
            break
        for part in _apart(parts):
            source.drop(part)
        dropped += faults
    return None, told or [], dropped


def _apart(parts: set[Path]) -> list[Path]:
    """Return the parts that lie in no other, last first, so that list positions still hold."""
    outer = [p for p in parts if not any(p[:n] in parts for n in range(len(p)))]
    return sorted(outer, key=lambda p: [(str(s), 0) if isinstance(s, str) else ("", s) for s in p])[
        ::-1
    ]


def _at(source: Read, fault: Fault) -> Problem:
    line, column = fault.mark or source.mark(fault.path, key=fault.key)
    return Problem(line, column, _asked(fault.message, fault.suggestion))


def _found(source: Read, finding: Finding, content: bytes) -> Problem:
    line, column = source.mark(finding.path, key=finding.key)
    if finding.within is not None:
        file = content.decode("utf-8", "replace")
        line, column = within(file, (line, column), finding.within)
    message = finding.message
    if finding.other is not None:
        message = f"{message} (line {source.mark(finding.other)[0]})"
    return Problem(line, column, _asked(message, finding.suggestion))


def _asked(message: str, suggestion: str | None) -> str:
    return f"{message}; did you mean {suggestion}?" if suggestion else message


def _silenced(source: Read, finding: Finding, dropped: list[Fault], around: set[Mark]) -> bool:
    """Return whether a finding may only follow from a part that was left out."""
    if not dropped:
        return False
    gone = {fault.whole[1] for fault in dropped if len(fault.whole) > 1}
    if finding.unknown in gone or finding.path in ((), ("models",)):
        return True
    return source.mark(finding.path) in around
