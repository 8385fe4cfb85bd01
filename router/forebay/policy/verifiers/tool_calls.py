"""`tool_call_schema`: whether every call of an answer is one that its tool can take.

A call names a tool that was offered, its arguments are one JSON object of that tool's schema,
and a choice that the client made (`none`, `required`, one tool) is kept. Calls come from an
engine that makes them itself, or from text that is nothing but calls. Text that was meant as a
call and is none fails too: a client would read JSON where it waits for a call.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import orjson

from forebay.errors import InvalidRequest
from forebay.policy.tools import ANY_CHOICES, Calls
from forebay.policy.verifiers.bounds import DEPTH_MAX, deeper_than
from forebay.policy.verifiers.json_schema import compiled, faults
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.verifiers.json_schema import Compiled
    from forebay.values import Request, ToolCall

NAME = "tool_call_schema"

_TOLD_MAX = 3
_REASON_MAX = 500

# One bounded repetition each: time linear in the text.
_NAME = re.compile(r"""["']?\bname["']?\s{0,64}[:=]\s{0,64}["']""")
_ARGUMENTS = re.compile(r"""["']?\b(?:arguments|parameters)["']?\s{0,64}[:=]""")
_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=", "<function_call>")
"""How some models begin a call; none of these forms is read here."""


def offered(request: Request) -> dict[str, Compiled]:
    """Return the schema of the arguments of each tool that a request offers.

    Raises:
        InvalidRequest: a tool's parameters are no JSON Schema, or none that is evaluated.
    """
    schemas: dict[str, Compiled] = {}
    for tool in request.tools:
        try:
            schemas[tool.name] = compiled(json.dumps(tool.parameters))
        except InvalidRequest as error:
            refused = type(error)(f"tools: the parameters of {tool.name}: {error}")
            refused.param = "tools"
            raise refused from None
    return schemas


class ToolCallCheck:
    """Reads an answer whole, and judges the calls in it."""

    name = NAME

    def __init__(self, request: Request, schemas: Mapping[str, Compiled]) -> None:
        self._choice = request.tool_choice
        self._schemas = schemas
        self._request = request
        self._text: list[str] = []
        self._native: list[ToolCall] = []
        self.release = Release.FINAL if schemas else Release.TOKEN

    def feed(self, text: str) -> str:
        """Return the text itself."""
        self._text.append(text)
        return text

    def called(self, call: ToolCall) -> None:
        """Take a call that the engine made itself."""
        self._native.append(call)

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict; its reason repeats no value of the answer."""
        text = "".join(self._text)
        calls = tuple(self._native) or Calls(self._request).finish(text)[1]
        if not calls and not self._schemas and not self._demands:
            return "", Verdict(NAME, "not_applicable", "no tool was offered")
        told = [fault for n, call in enumerate(calls, 1) for fault in self._faults(n, call)]
        if not calls:
            told = self._of_text(text)
        if not told:
            return "", Verdict(NAME, "passed")
        spans = ((0, len(text)),) if text and not self._native else ()
        return "", Verdict(NAME, "failed", "; ".join(told[:_TOLD_MAX])[:_REASON_MAX], spans)

    @property
    def _demands(self) -> bool:
        return self._choice not in ("auto", "none")

    def _faults(self, number: int, call: ToolCall) -> list[str]:
        """Return what is wrong with one call; calls are counted from one."""
        said = f"call {number}"
        if self._choice == "none":
            return [f"{said}: no call was allowed"]
        schema = self._schemas.get(call.name)
        if schema is None:
            return [f"{said}: it names no tool that was offered"]
        said = f"{said} of {call.name}"
        if self._choice not in (*ANY_CHOICES, call.name):
            return [f"{said}: a call of {self._choice} was demanded"]
        try:
            arguments = _object(call.arguments)
        except ValueError as error:
            return [f"{said}: {error}"]
        return [f"{said}: {fault}" for fault in faults(arguments, schema, "the object")]

    def _of_text(self, text: str) -> list[str]:
        """Return what is wrong with an answer that makes no call."""
        if self._schemas and self._choice != "none" and meant(text):
            return ["it looks like a call and is none: no JSON, or more than calls"]
        if self._choice == "required":
            return ["a call was demanded, and the answer makes none"]
        if self._demands:
            return [f"a call of {self._choice} was demanded, and the answer makes none"]
        return []


def meant(text: str) -> bool:
    """Return whether a text that is no call looks as if it was meant as one."""
    named = _NAME.search(text) is not None and _ARGUMENTS.search(text) is not None
    return named or any(mark in text for mark in _MARKS)


def _object(arguments: str) -> dict[str, Any]:
    """Return arguments as their reader will; raise ValueError with the end of a sentence."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        raise ValueError("its arguments are not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("its arguments are not an object")  # noqa: TRY004 - told, not a type fault
    if deeper_than(value, DEPTH_MAX):
        raise ValueError(f"its arguments nest deeper than {DEPTH_MAX} levels")
    json.loads(arguments, object_pairs_hook=_once)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: readers differ in which of the two they take."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("its arguments give one name twice")
    return made
