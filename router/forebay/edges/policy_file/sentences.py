"""What is wrong with the shape of a document, in sentences for the person who wrote it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError

from forebay.policy.check import near

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from forebay.edges.policy_file.reader import Mark, Path


class Fault(NamedTuple):
    """One value that does not fit; `whole` is the part to leave out so that the rest does.

    `mark` is where it stands, `around` where the parts stand that it is in.
    """

    path: Path
    message: str
    suggestion: str | None = None
    key: bool = False
    whole: Path = ()
    mark: Mark | None = None
    around: tuple[Mark, ...] = ()


def faults_of(error: ValidationError, shape: type[BaseModel], data: object) -> list[Fault]:
    """Return the faults of a document, each once."""
    faults: dict[tuple[Path, str], Fault] = {}
    for detail in error.errors(include_url=False):
        path, value, branch = _located(detail, data)
        fault = _fault(detail, shape, path, value, branch)
        if fault is not None:
            faults.setdefault((fault.path, fault.message), fault)
    return list(faults.values())


def _located(detail: ErrorDetails, data: object) -> tuple[Path, Any, str]:
    """Return the path into the data, the value there, and the branch of a union that was tried."""
    path: Path = ()
    branch = ""
    *above, last = detail["loc"] or ("",)
    for step in (*above, last):
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_list or (isinstance(data, dict) and step in data):
            data = data[step]  # type: ignore[index]
        else:
            branch = branch or str(step)
            continue
        path = (*path, step)
    return path, data, branch


_EITHER = {
    "model": "expected a target, or any_of: with several",
    "spill": "expected never, or to: with a target",
    "replicas": "expected a list of host:port, dns: with a name, or file: with a path",
}
"""Keys that take several forms."""


def _fault(
    detail: ErrorDetails, shape: type[BaseModel], path: Path, value: Any, branch: str
) -> Fault | None:
    kind = detail["type"]
    if kind == "missing":
        missing = str(detail["loc"][-1])
        return Fault(path, f"missing key {missing}", whole=path)
    if kind == "extra_forbidden":
        return _unknown_key(shape, path)
    if kind == "too_short" and len(value) >= detail.get("ctx", {}).get("min_length", 0):
        return None  # too short only once its faulty items, which are told, are taken away
    last = path[-1] if path else ""
    if last in _EITHER and branch and kind != "too_short":
        if isinstance(value, dict):
            return None
        return Fault(path, f"{_EITHER[str(last)]}, not {_shown(value)}", whole=path)
    message, suggestion = _sentence(kind, detail.get("ctx", {}), str(last), value)
    return Fault(path, message, suggestion, whole=path)


def _unknown_key(shape: type[BaseModel], path: Path) -> Fault:
    name = str(path[-1])
    known = _keys(shape, path[:-1])
    suggestion = near(name, known)
    listed = "" if suggestion else f"; known: {', '.join(known)}"
    return Fault(path, f"unknown key {name}{listed}", suggestion, key=True, whole=path)


_COMPARED = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}

_EXPECTED = {
    "tuple_type": "a name or a list of names",
    "string_type": "a name",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "dict_type": "keys with values",
    "bool_type": "true or false",
}


_FIXED = {
    "string_too_short": "expected a name, not an empty one",
    "string_too_long": "expected a name of at most {max_length} characters",
    "too_short": "expected at least {min_length} of them",
}

_KEY = "expected env:NAME or file:PATH; a key itself is never written here"


def _sentence(
    kind: str, context: Mapping[str, Any], last: str, value: Any
) -> tuple[str, str | None]:
    """Return what was expected and found, and what was probably meant."""
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        suggestion = near(value, known) if isinstance(value, str) else None
        return f"expected one of {', '.join(known)}, not {_shown(value)}", suggestion
    if kind in _COMPARED:
        limit, words = _COMPARED[kind]
        return f"expected {words} {context[limit]:g}, not {_shown(value)}", None
    if kind in _FIXED:
        return _FIXED[kind].format(**context), None
    if kind == "string_pattern_mismatch":
        # What stands where a key belongs may be the key itself: it is not repeated.
        shown = _shown(value)
        said = _KEY if last == "key" else f"a name is small letters, digits and _ . -, not {shown}"
        return said, None
    expected = _EXPECTED.get(kind, "another value")
    if kind == "tuple_type" and last in ("routes", "classify", "probes"):
        expected = "a list"
    return f"expected {expected}, not {_shown(value)}", None


def _shown(value: Any) -> str:
    """Return a value as its writer would know it again."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "keys with values"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:56]}..."'  # noqa: PLR2004 - room on a line


# ---- which keys are known where -----------------------------------------------------------


def _keys(shape: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that may stand at a path."""
    current: type[BaseModel] | None = shape
    field: FieldInfo | None = None
    named = False
    for step in path:
        if isinstance(step, int):
            # Where a key takes a list or a mapping, a position says that the list was meant.
            current = _model_in(_list_in(field.annotation)) if field else current
            continue
        if named:
            named = False
            continue
        field = _field(current, step) if current else None
        current = _model_in(field.annotation) if field else None
        named = field is not None and get_origin(field.annotation) is dict
    return [_written(n, f) for n, f in current.model_fields.items()] if current else []


def _field(shape: type[BaseModel], step: str) -> FieldInfo | None:
    for name, field in shape.model_fields.items():
        if step in (name, _written(name, field)):
            return field
    return None


def _written(name: str, field: FieldInfo) -> str:
    """Return the key as operators write it: its first alias, or its name."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation like `tuple[Route, ...]` or `str | AnyOf`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _list_in(annotation: Any) -> Any:
    """Return the list inside an annotation like `Lookup | tuple[Replica, ...]`."""
    if get_origin(annotation) is tuple:
        return annotation
    found = (_list_in(argument) for argument in get_args(annotation))
    return next((listed for listed in found if listed is not None), None)
