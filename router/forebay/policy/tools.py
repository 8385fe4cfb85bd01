"""Tool calls in the text of models that have no other way to make them.

The form is the one the prompt asks for: JSON objects with `name` and `arguments`, one or
several, each naming a tool that was offered. Recognition stands behind the verifiers, so what
they withhold or redact in an argument never reaches a client as a call either.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forebay.values import Guide, ToolCall

if TYPE_CHECKING:
    from forebay.values import Request, Tool

ANY_CHOICES = ("auto", "none", "required")


def guide(tools: tuple[Tool, ...], choice: str) -> Guide | None:
    """Return the form an answer must have where a call is demanded, else None."""
    if choice in ("auto", "none"):
        return None
    wanted = [_call_schema(tool) for tool in tools if choice in ("required", tool.name)]
    return Guide("json_schema", json.dumps(wanted[0] if len(wanted) == 1 else {"anyOf": wanted}))


def _call_schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.name},
            "arguments": tool.parameters or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


class Calls:
    """Holds back what may be a tool call; any other text passes through untouched."""

    def __init__(self, request: Request) -> None:
        offered = () if request.tool_choice == "none" else request.tools
        self._names = {tool.name for tool in offered}
        self._id = request.id
        self._held = ""
        self._plain = not offered

    def feed(self, text: str) -> str:
        """Return text that is no call; empty while it may still become one."""
        if self._plain or not text:
            return text
        self._held += text
        begun = self._held.lstrip()
        if begun and not begun.startswith("{"):
            self._plain, text, self._held = True, self._held, ""
            return text
        return ""

    def finish(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """Return the rest of the text, or the calls that the whole answer consists of."""
        text = self._held + text
        calls = () if self._plain else self._read(text)
        return ("", calls) if calls else (text, ())

    def _read(self, text: str) -> tuple[ToolCall, ...]:
        decoder = json.JSONDecoder()
        calls: list[ToolCall] = []
        rest = text.strip()
        while rest:
            try:
                found, end = decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                return ()
            if not isinstance(found, dict) or found.get("name") not in self._names:
                return ()
            arguments = json.dumps(found.get("arguments", {}), ensure_ascii=False)
            calls.append(ToolCall(f"call_{self._id}_{len(calls)}", found["name"], arguments))
            rest = rest[end:].lstrip(" \n,;")
        return tuple(calls)
