"""Tool calls in the text of models that have no other way to make them.

The form is the one the prompt asks for: JSON objects with `name` and `arguments`, one or
several, each naming a tool that was offered. Recognition stands behind the verifiers, which
read JSON's escapes as their reader will: what they withhold or redact in an argument never
reaches a client as a call either.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from forebay.policy.context import MAX_GUIDE_BYTES, bounded, fault
from forebay.policy.verifiers.bounds import DEPTH_MAX, deeper_than
from forebay.values import Guide, ToolCall

if TYPE_CHECKING:
    from forebay.values import Request, Tool

ANY_CHOICES = ("auto", "none", "required")

_BETWEEN = " \t\r\n,;"


def guide(tools: tuple[Tool, ...], choice: str) -> Guide | None:
    """Return the form an answer must have where a call is demanded, else None.

    Raises:
        InvalidRequest: the call demanded is of no tool at hand, or the tools' schemas together
            are larger than any guide may be.
    """
    if choice in ("auto", "none"):
        return None
    wanted = [tool for tool in tools if choice in ("required", tool.name)]
    if not wanted:
        offered = ", ".join(tool.name for tool in tools)
        known = f"it offers {offered[:500]}" if offered else "it offers none"
        raise fault("tool_choice", f"demands a tool that this request does not offer; {known}")
    if any(deeper_than(tool.parameters, DEPTH_MAX) for tool in wanted):
        raise fault("tools", f"hold parameters that nest deeper than {DEPTH_MAX} levels")
    shared: dict[str, Any] = {}
    calls = [_call_schema(tool, f"tool{n}", shared) for n, tool in enumerate(wanted)]
    form: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if shared:
        form["$defs"] = shared
    source = json.dumps(form)
    bounded("tools", len(source), MAX_GUIDE_BYTES)
    return Guide("json_schema", source)


def _call_schema(tool: Tool, place: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the form of one call; parameters that refer to themselves go to `shared`."""
    arguments = {k: v for k, v in tool.parameters.items() if k not in ("$schema", "$id")}
    if _refers(arguments):
        shared[place] = _moved(arguments, f"#/$defs/{place}")
        arguments = {"$ref": f"#/$defs/{place}"}
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.name},
            "arguments": arguments or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by names which are no keywords."""

_VALUES = frozenset({"const", "enum", "default", "examples"})
"""Keywords that hold values, in which a `$ref` is a word like any other."""


def _refers(schema: object) -> bool:
    if isinstance(schema, list):
        return any(_refers(part) for part in schema)
    return isinstance(schema, dict) and ("$ref" in schema or any(map(_refers, schema.values())))


def _moved(schema: object, root: str) -> Any:
    """Return a schema whose pointers into itself lead to `root`, where it stands now."""
    if isinstance(schema, list):
        return [_moved(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for word, part in schema.items():
        if word == "$ref" and isinstance(part, str) and (part == "#" or part.startswith("#/")):
            made[word] = root + part[1:]
        elif word in _NAMED and isinstance(part, dict):
            made[word] = {name: _moved(one, root) for name, one in part.items()}
        else:
            made[word] = part if word in _VALUES else _moved(part, root)
    return made


def written(call: ToolCall) -> str:
    """Return a call that an engine made itself as the text of one: what verifiers read of it.

    Its escapes are resolved, so that they hide nothing; arguments that are no JSON stay as said.
    """
    try:
        arguments = json.dumps(_DECODER.decode(call.arguments), ensure_ascii=False)
    except (ValueError, RecursionError):
        arguments = call.arguments
    return f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {arguments}}}'


class Calls:
    """Holds back what may be a tool call; any other text passes through untouched."""

    def __init__(self, request: Request) -> None:
        offered = () if request.tool_choice == "none" else request.tools
        self._names = {tool.name for tool in offered}
        self._id = request.id
        self._held: list[str] = []
        self._begun = False
        self._plain = not offered
        self._most = None if request.parallel_tool_calls else 1

    def feed(self, text: str) -> str:
        """Return text that is no call; empty while it may still become one."""
        if self._plain or not text:
            return text
        self._held.append(text)
        begins = "" if self._begun else text.lstrip()
        if begins and not begins.startswith("{"):
            self._plain, text, self._held = True, "".join(self._held), []
            return text
        self._begun = self._begun or bool(begins)
        return ""

    def finish(
        self, text: str, native: tuple[ToolCall, ...] = ()
    ) -> tuple[str, tuple[ToolCall, ...]]:
        """Return the rest of the text, or the calls that the whole answer consists of.

        Where the engine made calls itself, those are the calls and all text is text. Of several
        calls the first alone is kept where the request wants one at a time.
        """
        text = "".join(self._held) + text
        if native:
            return text, native[: self._most]
        calls = () if self._plain else self._read(text)
        return ("", calls[: self._most]) if calls else (text, ())

    def _read(self, text: str) -> tuple[ToolCall, ...]:
        """Return the calls, none if any part of the text is something else."""
        calls: list[ToolCall] = []
        text, at = text.strip(), 0
        while at < len(text):
            try:
                found, at = _DECODER.raw_decode(text, at)
                written = self._arguments(found)
            except (ValueError, RecursionError):
                return ()
            if written is None:
                return ()
            calls.append(ToolCall(f"call_{self._id}_{len(calls)}", found["name"], written))
            while at < len(text) and text[at] in _BETWEEN:
                at += 1
        return tuple(calls)

    def _arguments(self, found: object) -> str | None:
        """Return a call's arguments as JSON text; None where this is no call of a tool offered."""
        if not isinstance(found, dict):
            return None
        name, arguments = found.get("name"), found.get("arguments", {})
        if not isinstance(name, str) or name not in self._names:
            return None
        if isinstance(arguments, str):  # the JSON text of them, as some models learnt it
            arguments = _DECODER.decode(arguments)
        if not isinstance(arguments, dict) or deeper_than(arguments, DEPTH_MAX):
            return None
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        if any("\ud800" <= character <= "\udfff" for character in written):
            # Half a pair is JSON and no text: it travels only as the escape it was.
            return json.dumps(arguments)
        return written


def _no_json(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_no_json)


def is_json(text: str) -> bool:
    """Return whether a call's arguments can be read by who gets them."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
