"""forebay.v1 messages to values and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.errors import BROKEN_SENTENCE, ForebayError, sentence_of, status_of
from forebay.policy.context import (
    MAX_BAD,
    MAX_CONTEXT_BYTES,
    MAX_MESSAGES,
    MAX_SOURCES,
    MAX_STOP,
    MAX_TOOL_CALLS,
    MAX_TOOLS,
    NOTHING,
    Context,
    bounded,
    checked,
    checked_choice,
    checked_guide,
    context_of,
    earlier,
    fault,
    few,
    fit,
    parsed,
)
from forebay.v1 import router_pb2 as pb
from forebay.values import (
    Admit,
    Chat,
    Decided,
    Done,
    Downgrade,
    Explanation,
    Guide,
    Labels,
    Message,
    Progress,
    Queue,
    Refuse,
    Request,
    Rung,
    Sampling,
    Spill,
    Text,
    Ticket,
    Token,
    ToolCall,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.edges.grpc_door.arrival import Arrival

ROLES = ("system", "user", "assistant", "tool")


def request_of(message: pb.GenerateRequest, arrival: Arrival, *, stream: bool) -> Request:
    """Return what a message asks.

    Raises:
        InvalidRequest: a field is wrong; the sentence names it.
    """
    brought = _context(message.context) if message.HasField("context") else NOTHING
    deadline_ms = brought.deadline_ms
    prompt, choice = _prompt(message), message.tool_choice or "auto"
    fit(prompt, brought.tools, choice, "context.tools")
    return Request(
        id=arrival.id,
        model=message.model or "auto",
        prompt=prompt,
        received_s=arrival.received_s,
        sampling=_sampling(message.sampling) if message.HasField("sampling") else Sampling(),
        guide=_guide(message.guide) if message.HasField("guide") else None,
        labels=brought.labels,
        sources=brought.sources,
        tools=brought.tools,
        tool_choice=checked_choice(choice, brought.tools),
        deadline_s=earlier(
            arrival.received_s,
            arrival.remaining_s,
            None if deadline_ms is None else deadline_ms / 1000,
        ),
        stream=stream,
        explain=brought.explain,
        door="grpc",
    )


def _prompt(message: pb.GenerateRequest) -> Chat | Text:
    if bool(message.messages) == bool(message.text):
        raise fault("messages", "or text must be given, and not both")
    if message.text:
        return Text(message.text)
    few("messages", len(message.messages), MAX_MESSAGES)
    made = sum(len(turn.tool_calls) for turn in message.messages)
    few("messages", made, MAX_TOOL_CALLS, "tool calls")
    return Chat(tuple([_message(i, turn) for i, turn in enumerate(message.messages)]))


def _message(position: int, turn: pb.Message) -> Message:
    if turn.role not in ROLES:
        raise fault(f"messages[{position}].role", f"must be one of {', '.join(ROLES)}")
    few(f"messages[{position}].tool_calls", len(turn.tool_calls), MAX_TOOLS)
    calls = tuple([ToolCall(c.id, c.name, c.arguments_json) for c in turn.tool_calls])
    return Message(turn.role, turn.content, calls, turn.tool_call_id or None)


def _said(message: Any, *fields: str) -> dict[str, Any]:
    return {field: getattr(message, field) for field in fields if message.HasField(field)}


_SAMPLING = tuple(
    field.name
    for field in pb.Sampling.DESCRIPTOR.fields
    if field.name not in ("stop", "bad", "logprobs")
)
_LABELS = tuple(field.name for field in pb.Labels.DESCRIPTOR.fields)
_CALLED = {name: f"sampling.{name}" for name in (*_SAMPLING, "stop", "bad")}


def _sampling(said: pb.Sampling) -> Sampling:
    few("sampling.stop", len(said.stop), MAX_STOP)
    few("sampling.bad", len(said.bad), MAX_BAD)
    values = Sampling(
        stop=tuple(said.stop),
        bad=tuple(said.bad),
        logprobs=said.logprobs,
        **_said(said, *_SAMPLING),
    )
    return checked(values, _CALLED)


def _guide(said: pb.Guide) -> Guide | None:
    form = said.WhichOneof("form")
    if form is None or (form == "json" and not said.json):
        return None
    if form == "json":
        return Guide("json")
    if form == "regex":
        return checked_guide(Guide("regex", said.regex), "guide.regex")
    return checked_guide(Guide("json_schema", said.json_schema), "guide.json_schema")


def _context(said: pb.Context) -> Context:
    few("context.tools", len(said.tools), MAX_TOOLS)
    few("context.sources", len(said.sources), MAX_SOURCES)
    bounded("context", said.ByteSize(), MAX_CONTEXT_BYTES)
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": parsed(
                tool.parameters_json_schema or "{}", f"context.tools[{i}].parameters_json_schema"
            ),
        }
        for i, tool in enumerate(said.tools)
    ]
    written = {
        "labels": _said(said.labels, *_LABELS),
        "sources": [{"id": source.id, "text": source.text} for source in said.sources],
        "tools": tools,
        "explain": said.explain,
        **_said(said, "deadline_ms"),
    }
    return context_of(written, "context")


# ---- and back ---------------------------------------------------------------------------


def decision(request_id: str, event: Decided) -> pb.Decision:
    """Return a decision as a message."""
    expected = event.predicted
    return pb.Decision(
        request_id=request_id,
        route=event.route,
        target=event.target,
        move=event.move,
        reason=event.reason,
        why=event.why,
        labels=labels(event.labels),
        policy=event.policy,
        release=event.release,
        prompt_tokens=event.prompt_tokens,
        replica=event.replica,
        queued_ms=event.waited_s * 1000,
        predicted_ttft_ms=None if expected is None else expected.ttft_s * 1000,
        predicted_tpot_ms=None if expected is None else expected.tpot_s * 1000,
        predicted_e2e_ms=None if expected is None else expected.e2e_s * 1000,
    )


def labels(said: Labels) -> pb.Labels:
    """Return labels as a message; what is not said stays unset."""
    return pb.Labels(
        task=said.task,
        sensitivity=said.sensitivity,
        tier=said.tier,
        language=said.language,
        mode=said.mode,
    )


def verdict(event: Verdict) -> pb.Verdict:
    """Return a verdict as a message."""
    spans = [pb.Span(start=start, end=end) for start, end in event.spans]
    return pb.Verdict(
        verifier=event.verifier, outcome=event.outcome, reason=event.reason, spans=spans
    )


def ticket(event: Ticket) -> pb.Ticket:
    """Return a ticket as a message."""
    return pb.Ticket(id=event.id, state=event.state, at_unix_s=event.at_wall_s)


def done(event: Done) -> pb.Done:
    """Return the end of a whole answer as a message."""
    return pb.Done(
        finish=event.finish,
        prompt_tokens=event.usage.prompt_tokens,
        completion_tokens=event.usage.completion_tokens,
        ttft_ms=event.timing.ttft_ms,
        tpot_ms=event.timing.tpot_ms,
        e2e_ms=event.timing.e2e_ms,
        tool_calls=[
            pb.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments)
            for call in event.tool_calls
        ],
        flagged=event.flagged,
    )


def error(failure: BaseException) -> pb.Error:
    """Return a failure as a message."""
    after_s = failure.retry_after_s if isinstance(failure, ForebayError) else None
    sentence = sentence_of(failure) or BROKEN_SENTENCE
    return pb.Error(reason=status_of(failure).reason, message=sentence, retry_after_s=after_s)


EVENTS: dict[type, Callable[[Any], pb.GenerateEvent]] = {
    Token: lambda event: pb.GenerateEvent(
        token=pb.Token(text=event.text, tokens=event.tokens, logprobs=event.logprobs)
    ),
    Progress: lambda event: pb.GenerateEvent(status=pb.Status(what=event.what)),
    Ticket: lambda event: pb.GenerateEvent(ticket=ticket(event)),
    Verdict: lambda event: pb.GenerateEvent(verdict=verdict(event)),
    Done: lambda event: pb.GenerateEvent(done=done(event)),
}
"""How each event of the corridor is told; decisions and failures need more than themselves."""


def explanation(said: Explanation) -> pb.ExplainResponse:
    """Return an explanation as a message."""
    return pb.ExplainResponse(
        route=said.route,
        reason=said.reason,
        why=said.why,
        labels=labels(said.labels),
        policy=said.policy,
        release=said.release,
        rungs=[_rung(rung) for rung in said.rungs],
        verify=said.verify,
    )


def _rung(rung: Rung) -> pb.Rung:
    placed = rung.placement
    match placed:
        case Admit(replica=replica):
            kind, why = "admit", f"at {replica}" if replica else ""
        case Queue(most_s=most_s):
            kind, why = "queue", f"for at most {most_s:.1f} s"
        case Downgrade(target=target):
            kind, why = "downgrade", f"to {target}"
        case Spill(target=target):
            kind, why = "spill", f"to {target}"
        case Refuse(limit=limit):
            kind, why = "refuse", limit
    return pb.Rung(
        target=rung.target,
        placement=kind,
        reason=placed.reason,
        why=why,
        prompt_tokens=rung.prompt_tokens,
    )
