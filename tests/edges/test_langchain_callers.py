"""LangChain's and LangGraph's own clients at the HTTP door, used as their manuals say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from edges.doors import http_door
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

from forebay.errors import EngineFailed, InvalidRequest, Overloaded
from forebay.testing import FakeEngine
from forebay.values import Abilities, Chunk, Labels, ToolCall

ALTITUDE = '{"name": "altitude", "arguments": {"of": "%s"}}'
"""A call as models write it that have no other way to make one."""


@tool
def altitude(of: str) -> str:
    """Return how high a place lies."""
    return f"{of} lies at 408 m"


class Agent(FakeEngine):
    """An engine that asks for altitudes, then says what it was told of them."""

    asks = (ALTITUDE % "Zurich",)
    made = ()

    async def generate(self, call):
        self.calls.append(call)
        told = [m.content for m in call.request.prompt.messages if m.role == "tool"]
        for word in (*(f"{one}. " for one in told),) if told else self.asks:
            yield Chunk(word, 1)
        yield Chunk(finish="stop") if told else Chunk(finish="stop", tool_calls=self.made)


class Native(Agent):
    """One that makes its calls itself, as a provider's model does."""

    asks = ()
    made = (ToolCall("call_7", "altitude", '{"of": "Zurich"}'),)


class Twice(Agent):
    """One that wants two places at once."""

    asks = (ALTITUDE % "Zurich", ALTITUDE % "Bern")


class NativeTwice(Native):
    """One that wants two places at once, by calls of its own."""

    made = (*Native.made, ToolCall("call_8", "altitude", '{"of": "Bern"}'))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing():
    """One door, and connections that are closed in the loop that opened them."""
    async with http_door() as back, openai.DefaultAsyncHttpxClient() as held:
        with openai.DefaultHttpxClient() as held_too:
            url = f"http://127.0.0.1:{back.port}/v1"
            yield back, {"base_url": url, "http_client": held_too, "http_async_client": held}


@pytest.fixture
def chatting(standing):
    """Return LangChain's client before an engine, and what stands behind its door."""
    back, reached = standing

    def made(engine=None, **said):
        back.engine = back.house.engines["local"] = engine or FakeEngine()
        back.forgive()
        back.ledger.records.clear()
        return ChatOpenAI(model="auto", api_key="unused", **reached, **said), back

    return made


async def answered(runnable, asked, *, stream):
    """Return an answer, whole or put together from its chunks as LangChain does."""
    if not stream:
        return await runnable.ainvoke(asked)
    whole = None
    async for chunk in runnable.astream(asked):
        whole = chunk if whole is None else whole + chunk
    return whole


pytestmark = pytest.mark.asyncio(loop_scope="module")
both = pytest.mark.parametrize("stream", [False, True])


# ---- chats --------------------------------------------------------------------------------


async def test_a_whole_answer(chatting):
    chat, back = chatting(include_response_headers=True)
    answer = await asyncio.to_thread(chat.invoke, "Say hello")
    assert answer.text == "Hello, world."
    assert answer.usage_metadata["output_tokens"] == 4
    told = answer.response_metadata
    assert (told["finish_reason"], told["model_name"]) == ("stop", "local")
    assert told["headers"]["x-request-id"] == back.ledger.records[0].id


async def test_a_stream_leaves_word_by_word_and_ends_with_its_usage(chatting):
    chat, back = chatting(stream_usage=True)
    chunks = [chunk async for chunk in chat.astream("Say hello")]
    assert [chunk.text for chunk in chunks if chunk.text] == list(FakeEngine().script)
    whole = chunks[0] + chunks[1:]
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata["output_tokens"] == 4
    assert back.engine.calls[0].request.stream


async def test_a_stream_that_is_left_frees_the_engine(chatting):
    chat, back = chatting(FakeEngine(script=("word ",) * 3, hang=True))
    stream = chat.astream("Say hello")
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    await back.cancelled(1.0)
    assert back.held == 0


@both
async def test_what_a_request_brings_beside_its_text(chatting, stream):
    brought = {"labels": {"task": "summarize", "sensitivity": "high"}, "deadline_ms": 9000}
    more = {"temperature": 0.5, "max_tokens": 3, "stop_sequences": ["END"], "seed": 7}
    chat, back = chatting(extra_body={"forebay": brought}, **more)
    asked = [SystemMessage("Be brief."), HumanMessage([{"type": "text", "text": "Hello"}])]
    answer = await answered(chat, asked, stream=stream)
    assert answer.text == "Hello, world"
    request = back.engine.calls[0].request
    assert request.labels == Labels(task="summarize", sensitivity="high")
    assert request.deadline_s == pytest.approx(request.received_s + 9)
    assert [(m.role, m.content) for m in request.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    sampling = request.sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.5, 3)
    assert (sampling.stop, sampling.seed) == (("END",), 7)


# ---- tools --------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("engine", [Agent, Native])
async def test_a_call_and_its_result_go_both_ways(chatting, engine, stream):
    chat, back = chatting(engine())
    bound = chat.bind_tools([altitude])
    question = HumanMessage("How high is Zurich?")
    called = await answered(bound, [question], stream=stream)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("altitude", {"of": "Zurich"})
    assert called.response_metadata["finish_reason"] == "tool_calls"
    assert called.text == ""
    result = await altitude.ainvoke(call)
    assert isinstance(result, ToolMessage)
    answer = await answered(bound, [question, called, result], stream=stream)
    assert answer.text == "Zurich lies at 408 m. "
    assert not answer.tool_calls
    first, second = (call.request for call in back.engine.calls)
    assert [t.name for t in first.tools] == ["altitude"]
    assert first.tools[0].description == "Return how high a place lies."
    assert first.tools[0].parameters["required"] == ["of"]
    turns = second.prompt.messages
    assert turns[1].tool_calls == (ToolCall(call["id"], "altitude", '{"of": "Zurich"}'),)
    assert (turns[2].role, turns[2].tool_call_id) == ("tool", call["id"])


@both
@pytest.mark.parametrize("engine", [Twice, NativeTwice])
@pytest.mark.parametrize(("bound", "made"), [({}, 2), ({"parallel_tool_calls": False}, 1)])
async def test_several_calls_at_once_where_they_are_wanted(chatting, engine, bound, made, stream):
    chat, _ = chatting(engine())
    tools = chat.bind_tools([altitude], **bound)
    called = await answered(tools, "How high are Zurich and Bern?", stream=stream)
    assert [call["args"]["of"] for call in called.tool_calls] == ["Zurich", "Bern"][:made]


@pytest.mark.parametrize(
    ("said", "heard"), [("any", "required"), ("altitude", "altitude"), ("none", "none")]
)
async def test_what_may_be_called(chatting, said, heard):
    chat, back = chatting(Agent())
    called = await chat.bind_tools([altitude], tool_choice=said, strict=True).ainvoke("Hi")
    assert back.engine.calls[0].request.tool_choice == heard
    assert len(called.tool_calls) == (heard != "none")


# ---- structured output --------------------------------------------------------------------


class Place(BaseModel):
    """A place."""

    name: str
    metres: int


PLACE = '{"name": "Zurich", "metres": 408}'


@both
@pytest.mark.parametrize(
    ("said", "script"),
    [
        ({}, PLACE),
        ({"method": "json_schema", "strict": True}, PLACE),
        ({"method": "json_mode"}, PLACE),
        ({"method": "function_calling"}, f'{{"name": "Place", "arguments": {PLACE}}}'),
    ],
)
# The SDK puts a parsed object where its own type says none, and LangChain dumps it.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
async def test_an_answer_in_a_form(chatting, said, script, stream):
    engine = FakeEngine(script=(script[:9], script[9:]))
    chat, back = chatting(engine)
    formed = chat.with_structured_output(Place, **said)
    if stream:
        made = [one async for one in formed.astream("Where?")][-1]
    else:
        made = await formed.ainvoke("Where?")
    assert made == Place(name="Zurich", metres=408)
    guide = back.engine.calls[0].request.guide
    assert guide.kind == "json_schema"
    assert ("metres" in guide.source) == (said.get("method") != "json_mode")


# ---- errors -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("error", "kind", "code", "after_s"),
    [
        (Overloaded("it is full", 2.5), openai.RateLimitError, "overloaded", "3"),
        (InvalidRequest("it is wrong"), openai.BadRequestError, "invalid_request", None),
        (EngineFailed("it broke"), openai.InternalServerError, "engine_failed", None),
    ],
)
async def test_what_a_target_refuses_is_raised_as_the_clients_own(
    chatting, error, kind, code, after_s, stream
):
    chat, _ = chatting(FakeEngine(error=error), max_retries=0)
    with pytest.raises(kind, match=str(error)) as raised:
        await answered(chat, "Say hello", stream=stream)
    assert raised.value.code == code
    assert raised.value.response.headers.get("retry-after") == after_s


@both
async def test_what_the_door_refuses_names_the_key(chatting, stream):
    chat, back = chatting(temperature=2.5, max_retries=0)
    with pytest.raises(openai.BadRequestError, match="temperature") as raised:
        await answered(chat, "Say hello", stream=stream)
    assert raised.value.param == "temperature"
    assert back.engine.calls == []


@both
async def test_a_prompt_that_fits_nowhere_is_langchains_own_overflow(chatting, stream):
    """Agents look for it, and shorten what they send."""
    engine = FakeEngine(abilities=Abilities(max_input_tokens=3, max_seq_tokens=8))
    chat, _ = chatting(engine, max_retries=0)
    with pytest.raises(ContextOverflowError, match="too long for local"):
        await answered(chat, "one two three four", stream=stream)


async def test_there_is_no_responses_api(chatting):
    chat, _ = chatting(use_responses_api=True)
    with pytest.raises(openai.NotFoundError, match="nothing at /v1/responses"):
        await chat.ainvoke("Say hello")


async def test_a_full_router_is_asked_again_when_it_says(chatting):
    class Full(FakeEngine):
        async def generate(self, call):
            self.error = None if self.calls else Overloaded("it is full", 0.1)
            async for chunk in super().generate(call):
                yield chunk

    loop = asyncio.get_running_loop()
    chat, back = chatting(Full())
    begun_s = loop.time()
    answer = await chat.ainvoke("Say hello")
    assert loop.time() - begun_s >= 1.0, "Retry-After is whole seconds"
    assert answer.text == "Hello, world."
    assert len(back.ledger.records) == 2


async def test_an_error_after_the_first_byte_ends_the_stream_by_raising(chatting):
    engine = FakeEngine(error=EngineFailed("it broke"), error_after=2)
    chat, _ = chatting(engine)
    stream = chat.astream("Say hello")
    assert [(await anext(stream)).text for _ in range(3)] == ["", "Hello", ","]
    with pytest.raises(openai.APIError, match="it broke"):
        await anext(stream)


# ---- LangGraph ----------------------------------------------------------------------------


def agent(chat):
    """Return LangGraph's own first example: a model and its tools, until no tool is called."""
    bound = chat.bind_tools([altitude])

    async def model(state: MessagesState):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([altitude]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


QUESTION = {"messages": [{"role": "user", "content": "How high is it?"}]}


@pytest.mark.parametrize(
    ("engine", "results"), [(Agent, 1), (Native, 1), (Twice, 2), (NativeTwice, 2)]
)
async def test_an_agent_calls_its_tools_and_ends(chatting, engine, results):
    chat, back = chatting(engine())
    ended = await agent(chat).ainvoke(QUESTION)
    kinds = [message.type for message in ended["messages"]]
    assert kinds == ["human", "ai", *(["tool"] * results), "ai"]
    assert ended["messages"][-1].text.startswith("Zurich lies at 408 m.")
    assert [r.status for r in back.ledger.records] == ["ok", "ok"]
    assert not any(call.request.stream for call in back.engine.calls)


async def test_an_agent_streams_its_words_while_they_come(chatting):
    chat, back = chatting(Twice())
    said = [
        chunk.text
        async for chunk, of in agent(chat).astream(QUESTION, stream_mode="messages")
        if isinstance(chunk, AIMessageChunk) and of["langgraph_node"] == "model" and chunk.text
    ]
    assert said == ["Zurich lies at 408 m. ", "Bern lies at 408 m. "]
    assert all(call.request.stream for call in back.engine.calls)


async def test_the_example_in_the_docs_runs_as_it_is_written(chatting, capsys):
    _, back = chatting(Agent())
    docs = (Path(__file__).parents[2] / "docs" / "doors.md").read_text()
    (example,) = (part.split("```")[0] for part in docs.split("```python\n")[1:])
    example = example.replace("127.0.0.1:8080", f"127.0.0.1:{back.port}")
    await asyncio.to_thread(exec, example, {})
    assert capsys.readouterr().out.endswith("Zurich lies at 408 m. \n")
    assert {call.request.labels.sensitivity for call in back.engine.calls} == {"low"}
