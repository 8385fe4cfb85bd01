"""One repair of an answer that failed its verifiers, before the ladder is climbed."""

from __future__ import annotations

from dataclasses import dataclass, field

from forebay.corridor import Corridor
from forebay.errors import AnswerRefused
from forebay.testing import FakeEngine, MemoryLedger, house, request
from forebay.values import Chat, Chunk, Message, Text, Token, Tool, ToolCall

SCHEMA = {"type": "object", "required": ["a"]}
POLICY = {
    "models": {"small": {"triton": {}}, "large": {"triton": {}}},
    "default": {
        "model": "small",
        "fallback": "large",
        "repair": 1,
        "verify": ["json_schema"],
        "schema": SCHEMA,
        "stream": "final",
    },
}
HELLO = Chat((Message("user", "Give me an a"),))


@dataclass(slots=True)
class Learner(FakeEngine):
    """Says `script` at first, and `better` once it is told what was wrong."""

    better: tuple[str, ...] = ()
    told: list[str] = field(default_factory=list)

    async def generate(self, call):
        prompt = call.request.prompt
        said = prompt.messages[-1].content if isinstance(prompt, Chat) else prompt.text
        self.told.append(said)
        if len(self.told) > 1 and self.better:
            self.script = self.better
        async for chunk in FakeEngine.generate(self, call):
            yield chunk


class Caller(FakeEngine):
    """Answers with one call of its own and no text, as a provider does."""

    def __init__(self, call):
        super().__init__()
        self.made = call

    async def generate(self, call):
        self.calls.append(call)
        yield Chunk(tokens=1)
        yield Chunk(finish="tool_calls", tool_calls=(self.made,))


async def walked(small, large=None, prompt=HELLO, policy=POLICY):
    ledger = MemoryLedger()
    made = house(
        {"small": small, "large": large or FakeEngine(('{"a": 2}',))}, policy, ledger=ledger
    )
    events = [e async for e in Corridor(made).run(request(prompt=prompt))]
    text = "".join(e.text for e in events if isinstance(e, Token))
    steps = [f"{a.move}:{a.target}:{a.outcome}" for a in ledger.records[0].attempts]
    return text, steps, events


async def test_the_target_is_told_why_and_mends_it():
    small = Learner(('{"b": 1}',), better=('{"a": 1}',))
    text, steps, _ = await walked(small)
    assert text == '{"a": 1}'
    assert steps == ["first:small:refused", "repair:small:answered"]
    assert "json_schema" in small.told[1]
    assert "a" in small.told[1]
    assert small.calls[1].request.prompt.messages[1] == Message("assistant", '{"b": 1}')


async def test_a_repair_that_fails_climbs_with_the_prompt_as_it_was():
    small, large = Learner(('{"b": 1}',)), FakeEngine(('{"a": 2}',))
    text, steps, _ = await walked(small, large)
    assert text == '{"a": 2}'
    assert steps == ["first:small:refused", "repair:small:refused", "escalate:large:answered"]
    assert large.calls[0].request.prompt == HELLO


async def test_one_repair_in_a_walk():
    bad = ('{"b": 1}',)
    _, steps, events = await walked(Learner(bad), FakeEngine(bad))
    assert steps == ["first:small:refused", "repair:small:refused", "escalate:large:refused"]
    assert isinstance(events[-1].error, AnswerRefused)


async def test_an_answer_of_calls_is_told_as_it_was_made():
    call = ToolCall("c1", "weather", '{"town": "Oslo"}')
    tool = Tool("weather", parameters={"type": "object", "required": ["city"]})
    document = {
        "models": {"small": {"triton": {}}},
        "default": {"model": "small", "repair": 1, "verify": ["tool_call_schema"]},
    }
    small = Caller(call)
    made = house({"small": small}, document)
    async for _ in Corridor(made).run(request(prompt=HELLO, tools=(tool,))):
        pass
    told = small.calls[1].request.prompt.messages[1].content
    assert told == '{"name": "weather", "arguments": {"town": "Oslo"}}'


async def test_a_plain_text_is_not_repaired():
    _, steps, _ = await walked(Learner(('{"b": 1}',)), prompt=Text("a"))
    assert steps == ["first:small:refused", "escalate:large:answered"]
