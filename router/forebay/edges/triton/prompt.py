"""From a chat to the one text that a model reads, by the model's own template."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from forebay.errors import InvalidRequest
from forebay.values import Chat, Message

if TYPE_CHECKING:
    from forebay.values import Request, Tool

_TOOLS_PREAMBLE = """You can call these functions:
{tools}
To call one, answer with one JSON object and nothing else:
{{"name": <function>, "arguments": <object that its schema allows>}}"""


class ChatTemplate:
    """A model's chat template; Jinja, in a sandbox, compiled once."""

    def __init__(self, source: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now(tz=UTC).strftime(form)
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(source)
        self._knows_tools = "tools" in source

    def text(self, request: Request) -> str:
        """Return the text that a request's prompt becomes.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        prompt = request.prompt
        if not isinstance(prompt, Chat):
            return prompt.text
        tools = () if request.tool_choice == "none" else request.tools
        messages = [_written(message) for message in prompt.messages]
        listed = [_function(tool) for tool in tools]
        if tools and not self._knows_tools:
            messages.insert(0, {"role": "system", "content": _told(listed)})
        try:
            return self._template.render(
                messages=messages, tools=listed or None, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidRequest(f"the model's chat template refuses: {error}") from error


def _written(message: Message) -> dict[str, Any]:
    """Return a message as templates expect it; calls that were made are shown as they were."""
    calls = [
        json.dumps({"name": call.name, "arguments": _parsed(call.arguments)}, ensure_ascii=False)
        for call in message.tool_calls
    ]
    content = "\n".join([message.content, *calls] if message.content else calls)
    return {"role": message.role, "content": content}


def _parsed(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _function(tool: Tool) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": about}


def _told(listed: list[dict[str, Any]]) -> str:
    tools = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in listed)
    return _TOOLS_PREAMBLE.format(tools=tools)


def _refuse(message: str) -> None:
    raise TemplateError(message)
