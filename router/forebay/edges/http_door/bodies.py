"""OpenAI's request bodies, read strictly.

Each key is honoured, refused by name because leaving it out would change the answer, or ignored
because it cannot: the two tables below say which. Any other key is not known, and refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, FailFast, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from forebay.policy.context import (
    MAX_MESSAGES,
    MAX_STOP,
    MAX_TOOLS,
    SENTENCE,
    Strict,
    ToolName,
    fault,
    first_fault,
)

MAX_PARTS = 1024
"""Parts of one message's content."""

HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
    }
)
"""Keys about billing, bookkeeping or speed: no answer differs by them."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "must be 1: one answer is given to a request"),
    "best_of": ((1,), "must be 1: one answer is given to a request"),
    "logit_bias": (({},), "cannot be honoured here"),
    "top_logprobs": ((0,), "must be 0: log-probabilities are of the chosen tokens only"),
    "modalities": ((["text"],), 'must be ["text"]: answers are text'),
    "audio": ((), "cannot be honoured here: answers are text"),
    "web_search_options": ((), "cannot be honoured here: no model searches the web"),
    "functions": ((), "was replaced by tools; send tools"),
    "function_call": ((), "was replaced by tool_choice; send tool_choice"),
    "reasoning_effort": ((), "cannot be honoured here"),
    "verbosity": ((), "cannot be honoured here"),
    "echo": ((False,), "must be false: the prompt is not repeated"),
    "suffix": (("",), "cannot be honoured here: models write forward only"),
    "min_p": ((0, 0.0), "cannot be honoured here; use top_p or top_k"),
    "moderation": ((), "cannot be honoured here"),
}
"""Keys that would change the answer: the values that ask for nothing, and what is told else."""

_NAMED_ONLY = ("name", "refusal", "annotations")
"""Keys of a message that clients send back and no chat template reads."""


def _said(message: str) -> PydanticCustomError:
    return PydanticCustomError(SENTENCE, message)


def _content(value: object) -> object:
    """Read a list of text parts as their text."""
    if not isinstance(value, list):
        return value
    if len(value) > MAX_PARTS:
        raise _said(f"must hold at most {MAX_PARTS} parts")
    texts: list[str] = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise _said("must hold parts of type text only: images and audio are not taken")
        if not isinstance(text := part.get("text"), str):
            raise _said("must hold parts whose text is text")
        texts.append(text)
    return "".join(texts)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _one_prompt(value: object) -> object:
    """Read a list of one text as that text."""
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], str):
        raise _said("must be one text: batches and token ids are not taken")
    return value[0]


def _choice(value: object) -> object:
    """Read OpenAI's object that names a function as that name."""
    match value:
        case str():
            return value
        case {"type": "function", "function": {"name": str() as name}}:
            return name
    raise _said("must be auto, none, required, or an object that names a function")


def _schema(value: object) -> object:
    if not isinstance(value, dict | bool):
        raise _said("must be a JSON Schema: an object, true or false")
    return value


class _CalledFunction(Strict):
    name: ToolName
    arguments: str


class _ToolCall(Strict):
    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: _CalledFunction
    index: int | None = None


class _Message(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_content)] = ""
    tool_calls: Annotated[list[_ToolCall], FailFast()] = Field(default=[], max_length=MAX_TOOLS)
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_echoes(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {k: v for k, v in value.items() if v is not None and k not in _NAMED_ONLY}


class _Function(Strict):
    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool | None = None
    """Taken and not enforced while decoding: `tool_call_schema` on a route checks arguments."""


class _Tool(Strict):
    type: Literal["function"]
    function: _Function


class _Schema(Strict):
    name: str = ""
    description: str = ""
    schema_: Annotated[Any, BeforeValidator(_schema)] = Field(alias="schema")
    strict: bool | None = None


class _Format(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Body(Strict):
    """What both of OpenAI's text endpoints take; three keys are common extensions to theirs."""

    model: str = "auto"
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    temperature: float | None = None
    top_p: float | None = None
    stop: Annotated[list[str], FailFast(), BeforeValidator(_listed)] = Field(
        default=[], max_length=MAX_STOP
    )
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    response_format: _Format | None = None
    forebay: Any = None


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[_Message], FailFast()] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = None
    logprobs: bool = False
    tools: Annotated[list[_Tool], FailFast()] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: Annotated[str, BeforeValidator(_choice)] = "auto"
    parallel_tool_calls: bool = True


class CompletionBody(Body):
    """`POST /v1/completions`."""

    prompt: Annotated[str, BeforeValidator(_one_prompt), Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=0)] | None = None


B = TypeVar("B", bound=Body)


def read(kind: type[B], said: object) -> B:
    """Return a parsed JSON body as one of the classes above; null is the same as not said.

    Raises:
        InvalidRequest: a key is wrong, refused or not known; the sentence names it.
    """
    if not isinstance(said, dict):
        raise fault("the body", "must be a JSON object")
    kept = {}
    for key, value in said.items():
        if value is None or key in HARMLESS:
            continue
        neutral, told = REFUSED.get(key, ((), ""))
        if not told:
            if key not in kind.model_fields:  # the first is enough; each would cost a sentence
                raise fault(key[:64], "is not known")
            kept[key] = value
        elif value not in neutral:
            raise fault(key, told)
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        raise first_fault(error) from None
