"""What a request tells a target outside the house: nothing personal, where its class says so.

`pii_redaction` watches what comes back; this is the same redactor on what goes out. Names and
addresses it does not find are sent as they are (docs/verifiers.md).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from forebay.errors import InvalidRequest
from forebay.policy.tools import is_json
from forebay.policy.verifiers.pii import NAME, Redactor
from forebay.values import Chat, Text, Verdict

if TYPE_CHECKING:
    from forebay.values import Message, Request, Tool, ToolCall

LENGTHY = 16_384
"""Characters of a prompt that are read in about ten milliseconds."""

PIECE = 4_096
"""Characters that the redactor is fed at once."""


def lengthy(request: Request) -> bool:
    """Return whether reading a prompt takes longer than others should wait for it."""
    prompt = request.prompt
    texts = [prompt.text] if isinstance(prompt, Text) else [m.content for m in prompt.messages]
    return sum(map(len, texts)) > LENGTHY


def cleaned(request: Request) -> tuple[Request, Verdict | None]:
    """Return the request without what is personal, and a verdict that names what was found.

    Turns, the arguments of earlier calls and the descriptions of tools are read; what a schema
    demands is its form, and stays.

    Raises:
        InvalidRequest: an earlier call's arguments are no JSON without what was redacted.
    """
    desk = _Desk()
    prompt = request.prompt
    if isinstance(prompt, Chat):
        prompt = Chat(tuple([desk.message(one) for one in prompt.messages]))
    else:
        prompt = Text(desk.text(prompt.text))
    tools = tuple([desk.tool(one) for one in request.tools])
    if not desk.found:
        return request, None
    counts = ", ".join(f"{count} {name}" for name, count in sorted(desk.found.items()))
    told = Verdict(NAME, "redacted", f"in what the target was told: {counts}")
    return replace(request, prompt=prompt, tools=tools), told


@dataclass(slots=True)
class _Desk:
    """Redacts text after text, and counts what was found."""

    found: Counter[str] = field(default_factory=Counter)

    def text(self, text: str) -> str:
        """Return a text without what is personal in it."""
        redactor = Redactor()
        kept = [redactor.feed(text[start : start + PIECE]) for start in range(0, len(text), PIECE)]
        rest, _ = redactor.finish()
        self.found.update(redactor.counts())
        return "".join(kept) + rest

    def message(self, message: Message) -> Message:
        """Return a turn."""
        calls = tuple([self.call(one) for one in message.tool_calls])
        return replace(message, content=self.text(message.content), tool_calls=calls)

    def call(self, call: ToolCall) -> ToolCall:
        """Return an earlier call."""
        arguments = self.text(call.arguments)
        if arguments != call.arguments and is_json(call.arguments) and not is_json(arguments):
            raise InvalidRequest(
                f"call {call.id[:64]}: without what is personal its arguments are no JSON, and "
                "they may not leave with it"
            )
        return replace(call, arguments=arguments)

    def tool(self, tool: Tool) -> Tool:
        """Return a tool."""
        return replace(tool, description=self.text(tool.description))
