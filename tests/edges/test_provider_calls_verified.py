"""A provider's own tool calls, from its socket through the corridor: redacted, judged, kept."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from edges.provider import DONE, HEAD, STOP, delta, openai, says, sse, tool

from forebay.corridor import Corridor
from forebay.errors import AnswerRefused
from forebay.testing import LoopClock, house, request
from forebay.values import Chat, Done, Failed, Message, Token, Tool, ToolCall

MAIL = Tool("mail", "", {"properties": {"to": {"type": "string"}}, "required": ["to"]})
CHAT = Chat((Message("user", "Write to Ann"),))
DOCUMENT = {
    "models": {"cloud": {"openai": {"model": "any", "base_url": "http://127.0.0.1:1/v1"}}},
    "default": {"model": "cloud", "verify": ["tool_call_schema", "pii_redaction"]},
}
ENDS = (delta("tool_calls"), DONE)


async def ask(*events, **changed):
    async with openai(HEAD + sse(*events)) as (engine, _):
        made = house({"cloud": engine}, DOCUMENT, clock=LoopClock())
        asked = {"prompt": CHAT, "tools": (MAIL,), **changed}
        async with aclosing(Corridor(made).run(request(**asked))) as run:
            return [event async for event in run]


@pytest.mark.parametrize("text", [(), (says("Let me "), says("write."))])
async def test_attack_07_an_address_split_over_deltas_of_a_call_is_redacted(text):
    events = await ask(
        *text,
        tool(0, id="call_9", name="mail"),
        *(tool(0, part) for part in ('{"to": "an', "n@fir", "ma.", 'de"}')),
        *ENDS,
    )
    assert isinstance(events[-1], Done)
    assert events[-1].tool_calls == (ToolCall("call_9", "mail", '{"to": "[EMAIL]"}'),)
    assert "".join(e.text for e in events if isinstance(e, Token)) == ("Let me write." * bool(text))
    assert "firma" not in repr(events)


@pytest.mark.parametrize(
    ("why", "name", "arguments"),
    [
        ("no tool of ours", "rm", "{}"),
        ("nothing of what is required", "mail", "{}"),
        ("of a wrong type", "mail", '{"to": 5}'),
        ("cut short", "mail", '{"to": "Ann'),
        ("no object", "mail", '"Ann"'),
    ],
)
async def test_a_call_that_its_tool_cannot_take_never_leaves(why, name, arguments):
    events = await ask(tool(0, arguments, id="c", name=name), *ENDS)
    assert isinstance(events[-1], Failed), why
    assert isinstance(events[-1].error, AnswerRefused), why
    assert not any(isinstance(event, Token | Done) for event in events), why


async def test_a_demanded_call_that_is_not_made_fails():
    events = await ask(says("I'd rather not."), STOP, DONE, tool_choice="mail")
    assert isinstance(events[-1], Failed)
    assert not any(isinstance(event, Token) for event in events)
