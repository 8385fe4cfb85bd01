"""Calls that an engine makes itself, through the gate: changed, judged, and sent or not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from test_corridor import walk

from forebay.errors import AnswerRefused
from forebay.policy.verify import check
from forebay.testing import FakeEngine, house
from forebay.values import Chat, Chunk, Done, Failed, Message, Tool, ToolCall, Verdict

MAIL = Tool("mail", "", {"properties": {"to": {"type": "string"}}, "required": ["to"]})
CHAT = Chat((Message("user", "Write to Ann"),))


@dataclass(slots=True)
class Caller(FakeEngine):
    """An engine that makes calls of its own on its last chunk."""

    calls_made: tuple[ToolCall, ...] = ()

    async def generate(self, call):
        async for chunk in super(Caller, self).generate(call):
            if chunk.finish is None:
                yield chunk
        yield Chunk(finish="tool_calls", tool_calls=self.calls_made)


def caller(*calls, text=()):
    return Caller(text, calls_made=tuple(ToolCall(*call) for call in calls))


def document(*verify, **changed):
    return {
        "models": {"small": {"triton": {}}, "large": {"triton": {}}},
        "default": {"model": "small", "fallback": "large", "verify": list(verify), **changed},
    }


GOOD = ("call_7", "mail", '{"to": "Ann"}')
BAD = ("call_8", "mail", '{"to": 5}')


async def ask(small, large=None, verify=("tool_call_schema",), **changed):
    more = {key: changed.pop(key) for key in ("tool_choice", "guide") if key in changed}
    made = house({"small": small, "large": large or caller(GOOD)}, document(*verify, **changed))
    asked = {"prompt": CHAT, "tools": (MAIL,), **more}
    return await walk(made, **asked)


async def test_a_call_keeps_its_own_id_and_passes():
    events, text, record = await ask(caller(GOOD))
    assert isinstance(events[-1], Done)
    assert events[-1].tool_calls == (ToolCall(*GOOD),)
    assert events[-1].finish == "tool_calls"
    assert text == ""
    assert [v.outcome for v in record.attempts[0].verdicts] == ["passed"]


@pytest.mark.parametrize(
    ("why", "calls", "changed", "steps"),
    [
        ("a wrong type", [BAD], {}, ["small:refused", "large:answered"]),
        ("one of two", [GOOD, BAD], {}, ["small:refused", "large:answered"]),
        ("no tool of ours", [("1", "rm", "{}")], {}, ["small:refused", "large:answered"]),
        ("broken", [("1", "mail", '{"to": ')], {}, ["small:refused", "large:answered"]),
        ("none though demanded", [], {"tool_choice": "mail"}, ["small:refused", "large:answered"]),
        ("demanded and made", [GOOD], {"tool_choice": "mail"}, ["small:answered"]),
        ("demanded, judged by the schema verifier", [BAD],
         {"tool_choice": "mail", "verify": ("json_schema",)}, ["small:refused", "large:answered"]),
        ("two demanded, each by itself", [GOOD, GOOD],
         {"tool_choice": "required", "verify": ("json_schema",)}, ["small:answered"]),
        ("not demanded, the schema is of text", [GOOD],
         {"verify": ("json_schema",), "schema": {"type": "array"}}, ["small:answered"]),
    ],
)  # fmt: skip
async def test_a_call_that_its_tool_cannot_take_climbs(why, calls, changed, steps):
    events, _, record = await ask(caller(*calls), **changed)
    assert [f"{a.target}:{a.outcome}" for a in record.attempts] == steps, why
    assert isinstance(events[-1], Done), why
    assert events[-1].tool_calls[0].arguments == GOOD[2], why


async def test_a_call_behind_text_is_judged_before_either_leaves():
    events, text, record = await ask(
        caller(BAD, text=("Let", " me")), caller(GOOD, text=("I'll", " write"))
    )
    assert text == "I'll write"
    assert events[-1].tool_calls == (ToolCall(*GOOD),)
    assert [a.outcome for a in record.attempts] == ["refused", "answered"]


async def test_no_rung_passes_and_no_call_leaves():
    events, text, _ = await ask(caller(BAD), caller(BAD))
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, AnswerRefused)
    assert text == ""
    assert not any(isinstance(event, Done) for event in events)


async def test_a_failed_call_may_leave_flagged():
    events, _, _ = await ask(caller(BAD), caller(BAD), on_exhausted="flag")
    assert events[-1].flagged
    assert events[-1].tool_calls == (ToolCall(*BAD),)


PII = ("pii_redaction",)


@pytest.mark.parametrize(
    ("why", "call", "sent"),
    [
        ("in an argument", ("1", "mail", '{"to": "ann@firma.de"}'),
         ("1", "mail", '{"to": "[EMAIL]"}')),
        ("behind escapes", ("1", "mail", r'{"to": "ann\u0040firma.de"}'),
         ("1", "mail", '{"to": "[EMAIL]"}')),
        ("in a key", ("1", "mail", '{"ann@firma.de": 1}'), ("1", "mail", '{"[EMAIL]": 1}')),
        ("in a name", ("1", "ann@firma.de", "{}"), ("1", "[EMAIL]", "{}")),
        ("a tool's own name", ("1", "mail", '{"to": "x"}'), ("1", "mail", '{"to": "x"}')),
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", [(), ("Writing", " now")])
async def test_attack_07_what_is_personal_in_a_call_is_redacted(why, call, sent, text):
    events, _, record = await ask(caller(call, text=text), verify=PII)
    assert events[-1].tool_calls == (ToolCall(*sent),), why
    (verdict,) = record.attempts[0].verdicts
    assert verdict.outcome == ("passed" if call == sent else "redacted"), why
    assert verdict.reason == ("" if call == sent else "call 1: 1 EMAIL"), why
    assert "firma" not in repr(events)


async def test_attack_07_a_number_that_is_redacted_leaves_no_call():
    events, _, record = await ask(caller(("1", "mail", '{"to": 4111111111111111}')), verify=PII)
    assert [a.outcome for a in record.attempts] == ["refused", "answered"]
    assert "4111111111111111" not in repr(events)


async def test_attack_07_redaction_comes_before_every_judgement():
    events, _, record = await ask(
        caller(("1", "mail", '{"to": "ann@firma.de"}')), verify=("tool_call_schema", *PII)
    )
    assert events[-1].tool_calls[0].arguments == '{"to": "[EMAIL]"}'
    assert [v.outcome for v in record.attempts[0].verdicts] == ["passed", "redacted"]


async def test_text_that_looks_like_a_call_stays_text_beside_one():
    text = '{"name": "mail", "arguments": {"to": "Bob"}}'
    events, said, _ = await ask(caller(GOOD, text=(text,)), verify=())
    assert said == text
    assert events[-1].tool_calls == (ToolCall(*GOOD),)


class Breaks:
    """A verifier that raises when it should judge."""

    name = "tool_call_schema"

    def __init__(self, inner):
        self.inner, self.release = inner, inner.release

    def feed(self, text):
        return self.inner.feed(text)

    def finish(self):
        raise RuntimeError("ann@firma.de")


async def test_a_verifier_that_breaks_is_no_answer_and_climbs():
    made = house({"small": caller(GOOD), "large": caller(GOOD)}, document("tool_call_schema"))
    made = replace(made, verifier=lambda name, subject: Breaks(check(name, subject)))
    events, text, record = await walk(made, prompt=CHAT, tools=(MAIL,))
    assert isinstance(events[-1].error, AnswerRefused)
    assert [a.outcome for a in record.attempts] == ["refused", "refused"]
    said = [event for event in events if isinstance(event, Verdict)]
    assert {v.reason for v in said} == {"the verifier broke: it raised RuntimeError"}
    assert text == ""
    assert "firma" not in repr(events)
