"""YAML as plain values that remember where they stood.

The scalars are those of YAML 1.2's core schema: `no` is a word and `1:30` is text. What YAML
can do to a reader is bounded: size, nesting, and what aliases expand to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

SIZE_MAX = 1 << 20
"""Bytes of a file."""

DEPTH_MAX = 40
NODES_MAX = 50_000
"""Values of a file once its aliases are expanded."""

Path = tuple[str | int, ...]
Mark = tuple[int, int]
"""Line and column, from 1."""


class Problem(NamedTuple):
    """One thing that is wrong, and where; they sort by place."""

    line: int
    column: int
    message: str


@dataclass(slots=True)
class Read:
    """A file's values, where each stood, and what was wrong with the YAML itself."""

    data: dict[str, Any] | None = None
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """Return where a path stands, or else the nearest thing around it that is there."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            renamed = (*path[:-1], _WRITTEN.get(path[-1], ""))
            path = renamed if renamed in self.values else path[:-1]
        return self.values.get(path, (1, 1))

    def drop(self, path: Path) -> None:
        """Leave out one value; later items of its list move up, and their marks with them."""
        *above, last = path
        parent: Any = self.data
        for step in above:
            parent = parent[step]
        if isinstance(parent, dict):
            parent.pop(last, None)
        elif isinstance(parent, list) and isinstance(last, int):
            del parent[last]
            self.keys = _moved_up(self.keys, path, last)
            self.values = _moved_up(self.values, path, last)


_WRITTEN: dict[str | int, str] = {"schema": "json_schema"}
"""Keys that may be written by another name."""


def _moved_up(marks: dict[Path, Mark], path: Path, last: int) -> dict[Path, Mark]:
    place = len(path) - 1
    moved: dict[Path, Mark] = {}
    for key, mark in marks.items():
        step = key[place] if len(key) > place and key[:place] == path[:place] else None
        if step == last:
            continue
        if isinstance(step, int) and step > last:
            moved[(*key[:place], step - 1, *key[place + 1 :])] = mark
        else:
            moved[key] = mark
    return moved


def read(content: bytes) -> Read:
    """Return what a file holds; `data` is None where nothing can be made of it."""
    source = Read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = content[: error.start].decode("utf-8", "replace")
        source.problems.append(_problem(text, len(text), "not UTF-8 text"))
        return source
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        said = "a character that YAML does not allow"
        source.problems.append(_problem(text, error.position, said))
        return source
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        source.problems.append(_syntax(error))
        return source
    except (ValueError, OverflowError):  # PyYAML's own, where it makes a character of a number
        line, column = loader.get_mark().line, loader.get_mark().column
        said = "an escape that stands for no character"
        source.problems.append(Problem(line + 1, column + 1, said))
        return source
    if root is None or not isinstance(root, yaml.MappingNode):
        said = "the file is empty" if root is None else "the file is no mapping"
        line, column = (1, 1) if root is None else _mark(root)
        source.problems.append(
            Problem(line, column, f"{said}; expected keys like models: at its top")
        )
        return source
    plain = _Plain(source)
    data = plain.value(root, (), 0)
    source.data = data if isinstance(data, dict) and not plain.too_much else None
    return source


def _problem(text: str, at: int, message: str) -> Problem:
    before = text[:at]
    return Problem(before.count("\n") + 1, at - before.rfind("\n"), message)


class _Loader(yaml.SafeLoader):
    """PyYAML's own, with bounded nesting and the core schema's scalars."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; refuse one that is nested too deep."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="too deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_SCALARS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Plain:
    """Turns nodes into values, noting marks and problems."""

    def __init__(self, source: Read) -> None:
        self._source = source
        self._count = 0
        self.too_much = False

    def value(self, node: yaml.Node, path: Path, depth: int) -> Any:
        """Return a node's value; None, with a problem noted, where it has none."""
        self._count += 1
        self._source.values.setdefault(path, _mark(node))
        if self.too_much or self._count > NODES_MAX or depth > DEPTH_MAX:
            if not self.too_much:
                self._note(node, "its aliases expand to more than a policy may hold")
            self.too_much = True
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(n, (*path, i), depth + 1) for i, n in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self._note(key, "a key must be a word")
                continue
            at = (*path, key.value)
            if key.value in known:
                first = self._source.keys[at][0]
                self._note(key, f"the key {key.value} is here twice, first on line {first}")
                continue
            self._source.keys[at] = _mark(key)
            known[key.value] = self.value(value, at, depth + 1)
        return known

    def _scalar(self, node: yaml.Node) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "null":
            return None
        if kind == "bool":
            return node.value.lower() == "true"
        if kind in ("int", "float"):
            try:
                return int(node.value) if kind == "int" else float(node.value)
            except ValueError:
                kind = "!!" + kind
        if kind != "str":
            self._note(node, "tags like !this are not used here")
        return node.value

    def _note(self, node: yaml.Node, message: str) -> None:
        line, column = _mark(node)
        self._source.problems.append(Problem(line, column, message))


def _mark(node: yaml.Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


_SYNTAX = (
    ("too deep", f"nested deeper than {DEPTH_MAX} levels"),
    (r"character '\t'", "a tab; indent with spaces"),
    ("mapping values are not allowed", "a colon that starts no value; quote text that holds one"),
    ("expected <block end>", "this does not line up with the lines above it"),
    ("could not find expected ':'", "expected a key, a colon and a value"),
    ("expected ',' or '}'", "a { is not closed, or a comma is missing"),
    ("expected ',' or ']'", "a [ is not closed, or a comma is missing"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found undefined alias", "an alias like *this that names no &anchor"),
    ("found duplicate anchor", "an &anchor that exists already"),
    ("found another document", "one file holds one document; found another"),
    ("cannot start any token", "a character that must stand in quotes"),
    ("unknown escape character", "an escape that YAML does not have; use single quotes"),
    ("tag", "tags like !this are not used here"),
)
"""What the parser says, and what we say for it; the first that fits."""


def _syntax(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = f"{error.problem or ''} {error.context or ''}"
    reason = (error.problem or "").replace("<", "").replace(">", "")
    other = f"not valid YAML: {reason}" if reason else "not valid YAML"
    message = next((ours for theirs, ours in _SYNTAX if theirs in said), other)
    return Problem(mark.line + 1, mark.column + 1, message) if mark else Problem(1, 1, message)
