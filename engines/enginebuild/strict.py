"""YAML read into frozen values: what nobody knows is an error at the line it stands on.

`FILE:LINE:COL: message; did you mean NAME?`
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enginebuild.errors import SpecError

Positive = Annotated[int, Field(gt=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(ge=0, le=10)]
StepSeconds = tuple[Seconds, Seconds, Seconds, Seconds]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """A frozen value read from YAML; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


T = TypeVar("T", bound=Strict)


def read_named(folder: Path, name: str, shape: type[T]) -> T:
    """Return the spec of that name: the file `name`.yaml in `folder`.

    Raises:
        SpecError: if there is none, with the nearest name; or it is wrong, with its place.
    """
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in names:
        raise SpecError(f"no {folder.name[:-1]} named {name!r}{nearest(name, names)}")
    return read_file(folder / f"{name}.yaml", shape)


def read_choice(folder: Path, name: str, key: str, shapes: Mapping[str, type[T]]) -> T:
    """Return the spec of that name, in the shape that the value of its `key` names.

    Raises:
        SpecError: as `read_named`, and where `key` names no shape.
    """
    names = sorted(p.stem for p in folder.glob("*.yaml"))
    if name not in names:
        raise SpecError(f"no {folder.name[:-1]} named {name!r}{nearest(name, names)}")
    path = folder / f"{name}.yaml"
    tree = _composed(path)
    pairs = tree.value if isinstance(tree, yaml.MappingNode) else []
    said = next((str(value.value) for named, value in pairs if named.value == key), "")
    if said not in shapes:
        line, column = _position(tree, (key,))
        near = nearest(said, list(shapes)) or f"; known: {', '.join(shapes)}"
        raise SpecError(f"{path}:{line}:{column}: no {key} {said!r}{near}")
    return read_file(path, shapes[said])


def read_file(path: Path, shape: type[T]) -> T:
    """Return the value that file holds.

    Raises:
        SpecError: naming file, line and column, with the nearest known key.
    """
    tree = _composed(path)
    try:
        return shape.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        line, column = _position(tree, first["loc"])
        raise SpecError(f"{path}:{line}:{column}: {_sentence(first, shape)}") from error


def _composed(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise SpecError(f"{path}:{where}: {error.problem}") from error


def nearest(name: str, names: list[str]) -> str:
    """Return `; did you mean NAME?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {close[0]}?" if close else ""


def _sentence(error: Any, shape: type[Strict]) -> str:
    keys = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {keys!r}{nearest(str(error['loc'][-1]), _keys(shape))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{keys}: {message}" if keys else message


def _keys(shape: type[BaseModel]) -> list[str]:
    found: list[str] = []
    for name, field in shape.model_fields.items():
        found.append(name)
        for inner in _shapes(field.annotation):
            found.extend(_keys(inner))
    return found


def _shapes(annotation: Any) -> list[type[BaseModel]]:
    """Return the models an annotation names, through unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [shape for part in getattr(annotation, "__args__", ()) for shape in _shapes(part)]


def _position(tree: yaml.Node | None, path: tuple[int | str, ...]) -> tuple[int, int]:
    """Return line and column, from 1, of the deepest node on that path that exists.

    A part of the path that names no key (the tag of a union) is stepped over.
    """
    mark = tree.start_mark if tree else None
    for part in path:
        if isinstance(tree, yaml.SequenceNode) and isinstance(part, int) and part < len(tree.value):
            tree = tree.value[part]
            mark = tree.start_mark
        elif isinstance(tree, yaml.MappingNode):
            pair = next((p for p in tree.value if p[0].value == part), None)
            if pair is not None:
                mark, tree = pair[0].start_mark, pair[1]
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
