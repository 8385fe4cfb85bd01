"""Whether a JSON Schema is one we dare to evaluate: bounded in size, depth, references, work.

A schema comes from a client, and the answer it judges from a model that a client leads. Small
schemas can cost time without end: references that lead back to themselves, or that double. So
a schema is walked as a validator would walk it, each reference followed where it stands,
within a budget of steps. Where it recurses by `k` ways that meet at one place, its work grows
as `k ** depth` of the answer: then the answer's depth is bounded instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

SIZE_MAX = 65_536
"""Bytes of a schema's JSON text."""

DEPTH_MAX = 64
"""Levels of a schema, of its references and of an answer."""

STEPS_MAX = 10_000
"""Parts of a schema once its references are followed."""

WORK_MAX = 2_000_000
"""Parts evaluated for one answer at worst: some tenths of a second."""

Place = tuple[str, ...]
"""Steps into the answer: `.name` or `.*` of an object, `[]` of an array."""

_HERE_ONE = ("not", "if", "then", "else")
_HERE_MANY = ("allOf", "anyOf", "oneOf", "dependentSchemas")
_BELOW_ONE = {
    "items": "[]",
    "contains": "[]",
    "unevaluatedItems": "[]",
    "additionalProperties": ".*",
    "unevaluatedProperties": ".*",
    "propertyNames": "name",
}
_BELOW_MANY = {"prefixItems": "[]", "patternProperties": ".*"}
_UNSUPPORTED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor")


class Unbounded(Exception):
    """Why a schema is not evaluated, as the end of a sentence."""


def deeper_than(value: object, levels: int) -> bool:
    """Return whether a JSON value nests deeper than so many levels."""
    level = [value]
    for _ in range(levels):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return True


def answer_depth(schema: dict[str, Any]) -> int:
    """Return how deep an answer may nest for this schema to be evaluated in bounded time.

    Raises:
        Unbounded: no answer's depth would bound it, or it holds what we do not follow.
    """
    if deeper_than(schema, DEPTH_MAX):
        raise Unbounded(f"it nests deeper than {DEPTH_MAX} levels")
    walk = _Walk(schema)
    walk.visit(schema, (), ())
    meeting = 1 + sum(most - 1 for most in walk.meeting.values())
    if meeting == 1:
        return DEPTH_MAX
    depth = int(math.log(WORK_MAX / walk.steps, meeting))
    if depth < 2:  # noqa: PLR2004 - an object in an object
        raise Unbounded("it recurses by too many ways that meet; each level multiplies its work")
    return min(depth, DEPTH_MAX)


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


@dataclass(slots=True)
class _Entered:
    """A reference being followed: where it was entered, and the ways that led back to it."""

    ref: str
    place: Place
    ways: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class _Walk:
    """One walk; `meeting` holds for each reference how many ways back meet at one place."""

    root: dict[str, Any]
    steps: int = 0
    meeting: dict[str, int] = field(default_factory=dict)

    def visit(self, schema: object, place: Place, entered: tuple[_Entered, ...]) -> None:
        """Walk a schema that applies at `place`; `entered` are the references around it."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Unbounded(f"with its references followed it has more than {STEPS_MAX:,} parts")
        if len(entered) > DEPTH_MAX:
            raise Unbounded(f"its references lead on more than {DEPTH_MAX} times")
        if not isinstance(schema, dict):
            return
        for word in _UNSUPPORTED:
            if word in schema:
                raise Unbounded(f"{word} is not taken here; use $defs and $ref")
        if "$id" in schema and schema is not self.root:
            raise Unbounded("$id is taken at its root only")
        if "$ref" in schema:
            self._follow(schema["$ref"], place, entered)
        for part, step in _parts(schema):
            self.visit(part, (*place, step) if step else place, entered)

    def _follow(self, ref: object, place: Place, entered: tuple[_Entered, ...]) -> None:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise Unbounded("a $ref may only point into the schema itself, as in #/$defs/name")
        for earlier in entered:
            if earlier.ref == ref:
                self._returned(earlier, place[len(earlier.place) :])
                return
        self.visit(_resolved(self.root, ref), place, (*entered, _Entered(ref, place)))

    def _returned(self, earlier: _Entered, way: Place) -> None:
        if not way:
            raise Unbounded(f"{earlier.ref[:200]} refers to itself without entering the answer")
        earlier.ways.append(way)
        meeting = sum(_meet(way, other) for other in earlier.ways)
        self.meeting[earlier.ref] = max(meeting, self.meeting.get(earlier.ref, 1))


def _parts(schema: dict[str, Any]) -> list[tuple[object, str]]:
    """Return the parts that apply, each with its step into the answer ("" for none)."""
    parts: list[tuple[object, str]] = [(schema[word], "") for word in _HERE_ONE if word in schema]
    parts += [(part, "") for word in _HERE_MANY for part in _children(schema.get(word))]
    parts += [(schema[word], step) for word, step in _BELOW_ONE.items() if word in schema]
    for word, step in _BELOW_MANY.items():
        parts += [(part, step) for part in _children(schema.get(word))]
    named = schema.get("properties")
    if isinstance(named, dict):
        parts += [(part, f".{name}") for name, part in named.items()]
    return parts


def _resolved(root: dict[str, Any], ref: str) -> object:
    """Return what a pointer names; see RFC 6901."""
    at: object = root
    for step in unquote(ref[2:]).split("/") if len(ref) > 1 else ():
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        elif isinstance(at, dict) and key in at:
            at = at[key]
        else:
            raise Unbounded(f"{ref[:200]} points to nothing")
    return at


def _meet(one: Place, other: Place) -> bool:
    """Return whether two ways may pass the same place, or one may go on where the other ends."""
    return all(
        a == b or (".*" in (a, b) and a[:1] == b[:1] == ".")
        for a, b in zip(one, other, strict=False)
    )
