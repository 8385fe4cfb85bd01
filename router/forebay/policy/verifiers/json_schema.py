"""`json_schema`: whether an answer is JSON of the form that was asked for (draft 2020-12)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from forebay.errors import InvalidRequest, TooLarge
from forebay.policy.tools import written
from forebay.policy.verifiers.bounds import SIZE_MAX, Unbounded, answer_depth, deeper_than
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from forebay.values import ToolCall

NAME = "json_schema"

_TOLD_MAX = 3
"""Faults told in one verdict: enough for a repair, short enough for a record."""

_REASON_MAX = 500

_SCHEMAS_OWN = frozenset(
    [
        "type",
        "enum",
        "const",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "uniqueItems",
        "contains",
        "minProperties",
        "maxProperties",
        "required",
        "anyOf",
        "oneOf",
        "falseSchema",
    ]
)
"""Faults whose sentence holds words of the schema alone, once the value is masked. The others
may name a property that the answer made up, so of them only the keyword and its place are told."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A schema ready to judge answers that nest no deeper than `depth`.

    `names` are the properties that the schema itself names: a verdict may repeat them.
    """

    schema: dict[str, Any]
    validator: jsonschema_rs.Draft202012Validator
    depth: int
    names: frozenset[str]


@lru_cache(maxsize=256)
def compiled(source: str) -> Compiled:
    """Return a schema from its JSON text. Nothing is fetched, patterns take linear time.

    Raises:
        InvalidRequest: it is no JSON Schema, or one that cannot be evaluated in bounded time.
    """
    if len(source.encode("utf-8", "replace")) > SIZE_MAX:
        raise TooLarge(f"the JSON schema is larger than {SIZE_MAX:,} bytes")
    try:
        schema = orjson.loads(source)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"the JSON schema is not JSON: {_plain(error.msg)}, line {error.lineno} "
            f"column {error.colno}"
        ) from None
    if not isinstance(schema, dict):
        raise InvalidRequest("a JSON schema must be an object")
    try:
        depth = answer_depth(schema)
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20),
        )
    except Unbounded as fault:
        raise InvalidRequest(f"the JSON schema cannot be used: {fault}") from None
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        said = _told(error)
        if "'anyOf'" in said:  # how the meta-schema writes down what a keyword may hold
            said = f"{said.split(':')[0]}: a value that this keyword cannot have"
        raise InvalidRequest(f"the JSON schema is not valid: {said}") from None
    return Compiled(schema, validator, depth, frozenset(_named(schema)))


def fault(schema: dict[str, Any]) -> str | None:
    """Return what is wrong with a schema of a policy, or None."""
    try:
        compiled(json.dumps(schema))
    except InvalidRequest as error:
        return str(error)
    except (TypeError, ValueError):
        return "the JSON schema holds what JSON cannot"
    return None


class SchemaCheck:
    """Lets text through and judges it whole; the release rule says whether it may leave.

    `demanded` says that the schema is the form of a call: calls that an engine makes itself are
    then judged by it, each by itself. Otherwise the schema is of text, and calls have none.
    """

    name = NAME

    def __init__(self, schema: Compiled | None, *, enforced: bool, demanded: bool = False) -> None:
        self._schema = schema
        self._demanded = demanded
        self._calls: list[ToolCall] = []
        self._text: list[str] = []
        waits = schema is not None and not enforced
        self.release = Release.FINAL if waits else Release.TOKEN

    def feed(self, text: str) -> str:
        """Return the text itself."""
        if self._schema is not None:
            self._text.append(text)
        return text

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict."""
        if self._schema is None:
            return "", Verdict(NAME, "not_applicable", "neither request nor route has a schema")
        text = "".join(self._text)
        if not self._calls or (text.strip() and not self._demanded):
            return "", judged(text, self._schema)
        if not self._demanded:
            return "", Verdict(NAME, "not_applicable", "the answer is calls, and has no text")
        verdicts = [judged(written(call), self._schema) for call in self._calls]
        failed = next((one for one in verdicts if one.outcome == "failed"), None)
        return "", replace(failed, spans=()) if failed else Verdict(NAME, "passed")

    def called(self, call: ToolCall) -> None:
        """Take a call that the engine made itself."""
        self._calls.append(call)


def judged(answer: str, schema: Compiled) -> Verdict:
    """Return the verdict on a whole answer; its reason quotes nothing that the answer says."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        if not answer.strip():
            return Verdict(NAME, "failed", "the answer is empty and should be JSON")
        at = min(error.pos, max(0, len(answer) - 1))
        reason = (
            f"the answer is not JSON: {_plain(error.msg)}, line {error.lineno} column {error.colno}"
        )
        return Verdict(NAME, "failed", reason, ((at, at + 1),))
    told = faults(value, schema, "the answer")
    if not told:
        return Verdict(NAME, "passed")
    return Verdict(NAME, "failed", "; ".join(told)[:_REASON_MAX], ((0, len(answer)),))


def faults(value: object, schema: Compiled, what: str) -> tuple[str, ...]:
    """Return what a JSON value breaks of a schema, the first few; none if it keeps to it all.

    Args:
        value: JSON of any depth.
        schema: What it is judged by.
        what: What the value is called where it nests too deeply.
    """
    if deeper_than(value, schema.depth):
        return (f"{what} nests deeper than {schema.depth} levels",)
    errors = islice(schema.validator.iter_errors(value), _TOLD_MAX)
    return tuple([_broken(error, schema.names) for error in errors])


def _broken(error: jsonschema_rs.ValidationError, names: frozenset[str]) -> str:
    """Return what an answer broke, and where, in words of the schema alone."""
    steps = (one if isinstance(one, int) or one in names else "*" for one in error.instance_path)
    if error.kind.name in _SCHEMAS_OWN:
        return f"{_path(steps)}: {_line(error.message)}"
    return f"{_path(steps)}: breaks {error.kind.name} at {_path(error.schema_path)} of the schema"


def _told(error: Exception) -> str:
    """Return what is wrong with a schema as a path and a sentence."""
    message = getattr(error, "message", "") or str(error)
    return f"{_path(getattr(error, 'instance_path', ()))}: {_line(message)}"


def _line(message: str) -> str:
    return message.splitlines()[0][:300]


def _path(steps: Iterable[str | int]) -> str:
    path = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in steps)
    return f"${path[:100]}"


def _named(schema: object) -> Iterator[str]:
    """Yield every property name that stands in a schema, which is known to be bounded in depth."""
    if isinstance(schema, list):
        for part in schema:
            yield from _named(part)
    elif isinstance(schema, dict):
        for key in ("properties", "required"):
            named = schema.get(key)
            if isinstance(named, dict | list):
                yield from (one for one in named if isinstance(one, str))
        for part in schema.values():
            yield from _named(part)


def _plain(message: str) -> str:
    """Return a parser's message without the position it repeats."""
    return message.split(": line ", maxsplit=1)[0].split(" at line", maxsplit=1)[0]
