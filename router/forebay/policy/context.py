"""What a request brings beside its text, read strictly and bounded, the same in all doors.

One object carries it: `{labels, sources, tools, deadline_ms, explain}`. Here too are the bounds
of sampling values and guides, and the sentences in which a field's fault is told: they name the
field as the client wrote it, and nothing of how it is read.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from forebay.errors import InvalidRequest, TooLarge, UnknownModel
from forebay.values import Guide, Labels, Sampling, Source, Text, Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic_core import ErrorDetails

    from forebay.values import Chat

MAX_CONTEXT_BYTES = 256 * 1024
MAX_GUIDE_BYTES = 64 * 1024
MAX_DEADLINE_MS = 86_400_000
MAX_MESSAGES = 4096
MAX_TOOL_CALLS = 4096
"""Tool calls in all messages of one chat."""
MAX_STOP = 16
MAX_BAD = 128
MAX_WORD_CHARS = 256
MAX_TOOLS = 128
MAX_SOURCES = 1024

_INT32 = 2**31 - 1
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("max_tokens", 1, _INT32),
    ("min_tokens", 0, _INT32),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("top_k", 0, _INT32),
    ("seed", 0, 2**64 - 1),
    ("repetition_penalty", 0, 10),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("end_id", -1, _INT32),
)
_ABOVE_LOW = frozenset({"top_p", "repetition_penalty"})
"""Fields whose lower bound is itself forbidden."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a request brings beside its text; `deadline_ms` counts from its arrival."""

    labels: Labels = field(default_factory=Labels)
    sources: tuple[Source, ...] = ()
    tools: tuple[Tool, ...] = ()
    deadline_ms: int | None = None
    explain: bool = False


NOTHING = Context()


class Strict(BaseModel):
    """What a client writes: immutable once read, no unknown key, no coercion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Word = Annotated[str, Field(min_length=1, max_length=128)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class _Labels(Strict):
    task: Word | None = None
    sensitivity: Literal["low", "medium", "high"] | None = None
    tier: Word | None = None
    language: Word | None = None
    mode: Word | None = None


class _Source(Strict):
    id: Word
    text: str


class _Tool(Strict):
    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class _Context(Strict):
    labels: _Labels = _Labels()
    sources: Annotated[list[_Source], FailFast()] = Field(default=[], max_length=MAX_SOURCES)
    tools: Annotated[list[_Tool], FailFast()] = Field(default=[], max_length=MAX_TOOLS)
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = None
    explain: bool = False


def context_of_json(raw: bytes | str, root: str = "forebay") -> Context:
    """Return the context written as JSON text.

    Raises:
        InvalidRequest: it is no JSON, or a field is wrong; `root` stands before its name.
    """
    encoded = raw.encode() if isinstance(raw, str) else raw
    bounded(root, len(encoded), MAX_CONTEXT_BYTES)
    return context_of(parsed(encoded, root), root)


def context_of(said: object, root: str = "forebay") -> Context:
    """Return the context in an object that was parsed already and is known to be bounded."""
    try:
        read = _Context.model_validate(said)
    except ValidationError as error:
        raise first_fault(error, root) from None
    labels = read.labels
    unique((tool.name for tool in read.tools), f"{root}.tools")
    unique((source.id for source in read.sources), f"{root}.sources")
    for position, tool in enumerate(read.tools):
        written(tool.parameters, f"{root}.tools[{position}].parameters")
    return Context(
        labels=Labels(labels.task, labels.sensitivity, labels.tier, labels.language, labels.mode),
        sources=tuple([Source(source.id, source.text) for source in read.sources]),
        tools=tuple([Tool(tool.name, tool.description, tool.parameters) for tool in read.tools]),
        deadline_ms=read.deadline_ms,
        explain=read.explain,
    )


def parsed(raw: bytes | str, field: str) -> object:
    """Return what JSON text means; `field` is named when it means nothing."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise fault(field, f"is not JSON: {_plain(error)}") from None


def written(value: object, field: str) -> bytes:
    """Return a parsed value as JSON again; what nests too deeply to be written is refused."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise fault(field, "is nested too deeply") from None


def checked(sampling: Sampling, called: Mapping[str, str] | None = None) -> Sampling:
    """Return the sampling values unchanged if all keep their bounds.

    Args:
        sampling: Values of the right types.
        called: What a door calls a field, where its name differs.
    """
    names = called or {}
    for name, low, high in _BOUNDS:
        value = getattr(sampling, name)
        if value is None:
            continue
        if not low <= value <= high or (value == low and name in _ABOVE_LOW):
            span = f"more than {low}" if name in _ABOVE_LOW else f"at least {low}"
            wanted = f"must be {span} and at most {high}, and is {value}"
            raise fault(names.get(name, name), wanted)
    _words(sampling.stop, names.get("stop", "stop"), MAX_STOP)
    _words(sampling.bad, names.get("bad", "bad"), MAX_BAD)
    low_tokens, high_tokens = sampling.min_tokens, sampling.max_tokens
    if low_tokens is not None and high_tokens is not None and low_tokens > high_tokens:
        least, most = (names.get(n, n) for n in ("min_tokens", "max_tokens"))
        raise fault(least, f"must not exceed {most}, which is {high_tokens}")
    return sampling


def checked_guide(guide: Guide, field: str) -> Guide:
    """Return the guide unchanged if it is bounded and, for a JSON Schema, an object or a bool."""
    bounded(field, len(guide.source.encode()), MAX_GUIDE_BYTES)
    if guide.kind == "json_schema" and not isinstance(parsed(guide.source, field), dict | bool):
        raise fault(field, "must be a JSON Schema: an object, true or false")
    if guide.kind == "regex" and not guide.source:
        raise fault(field, "must not be empty")
    return guide


def checked_choice(choice: str, tools: Iterable[Tool], field: str = "tool_choice") -> str:
    """Return the tool choice unchanged if it is a mode or names one of the tools at hand.

    A class may add tools of its own, so a name is only refused where the request brings tools.
    """
    names = [tool.name for tool in tools]
    if choice in ("auto", "none", "required") or not names or choice in names:
        return choice
    known = ", ".join(names)
    raise fault(field, f"must be auto, none, required or one of {known}; it is {choice[:64]!r}")


def fit(prompt: Chat | Text, tools: Sequence[Tool], choice: str, field: str) -> None:
    """Refuse a client's own tools beside a plain text: the model would never be shown them.

    Tools reach a model through its chat template, which a plain text does not go through.

    Args:
        prompt: What the model is asked.
        tools: What the client brings along.
        choice: What it says of them.
        field: What the door calls its tools.
    """
    if not isinstance(prompt, Text):
        return
    if tools or choice not in ("auto", "none"):
        wrong = field if tools else "tool_choice"
        raise fault(wrong, "cannot be honoured beside a plain text: only a chat shows tools")


def few(field: str, count: int, most: int, what: str = "items") -> None:
    """Refuse a list that is longer than its bound, before anything is done for each item."""
    if count > most:
        raise fault(field, f"must hold at most {most} {what}, and holds {count}")


def earlier(received_s: float, *limits_s: float | None) -> float | None:
    """Return the first of several deadlines, given in seconds after arrival, on the clock."""
    said = [limit for limit in limits_s if limit is not None]
    return received_s + min(said) if said else None


def unknown_model(name: str, known: Iterable[str]) -> UnknownModel:
    """Return the error for a name that is no model, with the nearest names."""
    names = list(known)
    near = difflib.get_close_matches(name[:128], names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    error = UnknownModel(f"no model {name[:128]!r}; {hint}")
    error.param = "model"
    return error


def unique(names: Iterable[str], field: str) -> None:
    """Refuse a list in which two items share a name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise fault(field, f"names {name[:64]!r} twice")
        seen.add(name)


def bounded(field: str, size_bytes: int, most_bytes: int) -> None:
    """Refuse what is larger than its bound."""
    if size_bytes > most_bytes:
        error = TooLarge(f"{field} holds {size_bytes} bytes; at most {most_bytes} are taken")
        error.param = field
        raise error


def fault(field: str, sentence: str) -> InvalidRequest:
    """Return the error for one field; the sentence goes on after the field's name."""
    error = InvalidRequest(f"{field} {sentence}")
    error.param = field
    return error


_FAULTS = {
    "extra_forbidden": "is not known",
    "missing": "must be given",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "must hold at most {max_length} items",
    "too_short": "must hold at least {min_length} item",
    "int_parsing_size": "is too large",
}
SENTENCE = "sentence"
"""The type of a custom error whose message is already the sentence to tell."""


def first_fault(error: ValidationError, root: str = "") -> InvalidRequest:
    """Return the first thing that is wrong, told of the field that the client wrote."""
    details = error.errors(include_url=False, include_input=False)[0]
    return fault(_path(details, root), _sentence(details))


def _path(details: ErrorDetails, root: str) -> str:
    path = root
    for part in details["loc"]:
        key = f"[{part}]" if isinstance(part, int) else part[:64]
        path += key if isinstance(part, int) or not path else f".{key}"
    return path or "the body"


def _sentence(details: ErrorDetails) -> str:
    kind = details["type"]
    if kind == SENTENCE:
        return details["msg"]
    return _FAULTS.get(kind, "is not valid").format_map(details.get("ctx", {}))


def _words(words: tuple[str, ...], field: str, most: int) -> None:
    few(field, len(words), most)
    if any(not 0 < len(word) <= MAX_WORD_CHARS for word in words):
        raise fault(field, f"must hold words of 1 to {MAX_WORD_CHARS} characters")


def _plain(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg} at line {error.lineno}, column {error.colno}"
