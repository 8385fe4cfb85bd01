"""The command lines of TensorRT-LLM's tools, read strictly from data.

`parse` is stricter than argparse: no abbreviations, no option twice, no positional words. What
it accepts, the tool accepts; `trtllm_flags.yaml` says where each option was read.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from enginebuild.errors import BuildError
from enginebuild.strict import Strict, nearest

FLAGS = Path(__file__).resolve().parent / "trtllm_flags.yaml"
BUILD = "trtllm-build"
CONVERT = "convert_checkpoint.py"
QUANTIZE = "quantize.py"
RUN = "run.py"
READ = {"str": str, "int": int, "float": float}


class FlagError(BuildError):
    """A command line that the tool would not accept, or would read otherwise than meant."""


class Option(Strict):
    """What one option takes. A `flag` takes nothing; `many` takes one or more values."""

    type: Literal["str", "int", "float", "flag"] = "str"
    choices: tuple[str | int, ...] = ()
    default: str | int | float | None = None
    many: bool = False
    also: tuple[str, ...] = ()


@cache
def options(tool: str) -> Mapping[str, Option]:
    """Return the options of that tool by name, without their dashes."""
    content = yaml.safe_load(FLAGS.read_text(encoding="utf-8"))
    return {name: Option.model_validate(said) for name, said in content[tool].items()}


def parse(tool: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the value of every option of `tool`, defaults included, by its first spelling.

    Raises:
        FlagError: naming the tool, the word, and the nearest option where one is near.
    """
    known = options(tool)
    spelt = {other: name for name, one in known.items() for other in (name, *one.also)}
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise FlagError(f"{tool}: {word!r} belongs to no option")
        name = spelt.get(word[2:])
        if name is None:
            raise FlagError(f"{tool}: unknown option {word}{nearest(word[2:], list(spelt))}")
        if name in found:
            raise FlagError(f"{tool}: --{name} is given twice")
        found[name] = _taken(tool, name, known[name], rest)
    return {name: found.get(name, _default(one)) for name, one in known.items()}


def _default(one: Option) -> Any:
    return False if one.type == "flag" else one.default


def _taken(tool: str, name: str, option: Option, rest: list[str]) -> Any:
    """Take the option's values off `rest` and return them."""
    if option.type == "flag":
        return True
    values: list[Any] = []
    while rest and not rest[0].startswith("--") and (option.many or not values):
        values.append(_value(tool, name, option, rest.pop(0)))
    if not values:
        raise FlagError(f"{tool}: --{name} needs a value")
    return values if option.many else values[0]


def _value(tool: str, name: str, option: Option, word: str) -> str | int | float:
    try:
        value: str | int | float = READ[option.type](word)
    except ValueError as error:
        raise FlagError(f"{tool}: --{name} {word!r} is no {option.type}") from error
    if option.choices and value not in option.choices:
        known = ", ".join(map(str, option.choices))
        raise FlagError(f"{tool}: --{name} {word!r} is none of {known}")
    return value
