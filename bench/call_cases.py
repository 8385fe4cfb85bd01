"""Tool calls of the BFCL sample: those its answers accept, and each with one fault."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.citation_cases import PROMPTS

from forebay.values import Tool

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}
"""What BFCL calls types, where JSON Schema has another word or none."""

_WRONG: dict[Any, Any] = {
    "integer": "five",
    "number": "five",
    "boolean": "perhaps",
    "string": 5,
    "array": "no list",
    "object": "no object",
}


@dataclass(frozen=True)
class CallCase:
    """One answer that is meant to call a tool; `right` says whether it should pass."""

    id: str
    kind: str
    tool: Tool
    name: str
    arguments: str
    right: bool


def cases() -> Iterator[CallCase]:
    """Yield every case: the accepted calls of each task, and its mutations."""
    tasks = (PROMPTS / "bfcl_simple_even.jsonl").read_text().splitlines()
    answers = (PROMPTS / "bfcl_simple_answers_even.jsonl").read_text().splitlines()
    for line, answer in zip(tasks, answers, strict=True):
        task, (accepted,) = json.loads(line), json.loads(answer)["ground_truth"]
        (function,) = task["function"]
        tool = Tool(function["name"], function["description"], _schema(function["parameters"]))
        ((name, values),) = accepted.items()
        yield from _of_task(task["id"], tool, name, values)


def _of_task(task: str, tool: Tool, name: str, values: dict[str, list[Any]]) -> Iterator[CallCase]:
    values = {key: [_plain(one) for one in said] for key, said in values.items()}
    first = {key: said[0] for key, said in values.items() if said[0] != ""}
    right = _written(first)
    yield CallCase(task, "accepted", tool, name, right, right=True)
    for key, said in values.items():
        for other in said[1:]:
            changed = {**first, key: other}
            if other == "":
                changed.pop(key)
            yield CallCase(
                task, "accepted, another value", tool, name, _written(changed), right=True
            )
    for kind, called, arguments in _mutated(tool, name, first, right):
        yield CallCase(task, kind, tool, called, arguments, right=False)


def _plain(value: Any) -> Any:
    """Return an accepted value; BFCL lists alternatives for each member of an object too."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _plain(said[0]) for key, said in value.items() if said[0] != ""}


def _mutated(
    tool: Tool, name: str, first: dict[str, Any], right: str
) -> Iterator[tuple[str, str, str]]:
    yield "wrong name", f"{name}_v2", right
    for key in tool.parameters.get("required", ()):
        without = {one: value for one, value in first.items() if one != key}
        yield "required argument missing", name, _written(without)
    for key, value in first.items():
        kind = tool.parameters["properties"].get(key, {}).get("type")
        if kind in _WRONG:
            yield "argument of a wrong type", name, _written({**first, key: _WRONG[kind]})
        allowed = tool.parameters["properties"].get(key, {}).get("enum")
        if allowed and isinstance(value, str):
            yield "value outside an enum", name, _written({**first, key: f"not {value}"})
    yield "unknown argument", name, _written({**first, "verbose_mode": True})
    yield "broken JSON", name, right[:-1]
    yield "broken JSON", name, right.replace(":", "", 1)
    yield "arguments are a list", name, json.dumps(list(first.values()))


def _written(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _schema(told: dict[str, Any]) -> dict[str, Any]:
    """Return BFCL's parameters as a JSON Schema that allows no other arguments."""
    made = _typed(told)
    made["additionalProperties"] = False
    return made


def _typed(told: Any) -> Any:
    if isinstance(told, list):
        return [_typed(one) for one in told]
    if not isinstance(told, dict):
        return told
    made = {key: _typed(value) for key, value in told.items()}
    if isinstance(said := told.get("type"), str) and said in _TYPES:
        made["type"] = _TYPES[said]
        if made["type"] is None:
            del made["type"]
    return made
