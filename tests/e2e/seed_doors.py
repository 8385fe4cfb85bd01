"""One question through each door, streamed and not, and all that its client saw of the answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from routers import LONGEST_S
from seed_routers import Seeded
from tritonclient.grpc import service_pb2 as kserve
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from forebay.v1 import router_pb2 as pb

Source = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks; the policy's rules find out what it is about."""

    text: str
    schema: str = ""
    sources: tuple[Source, ...] = ()
    tokens: int = 16
    repetition_penalty: float = 1.0


@dataclass(slots=True)
class Seen:
    """What a client saw. `status` is the door's own word, `raw` all that came, as it came.

    `reason` is why there is no answer. `finish` is empty where the door does not tell it, and
    `refusal` where it is not OpenAI's. `decided` has each decision that `Generate` told, as
    `move:target`.
    """

    status: str = "OK"
    text: str = ""
    finish: str = ""
    reason: str = ""
    ticket: str = ""
    refusal: str = ""
    decided: list[str] = field(default_factory=list)
    calls: tuple[tuple[str, str], ...] = ()
    raw: list[str] = field(default_factory=list)

    def broke(self, error: grpc.RpcError) -> None:
        """Take in how a gRPC call failed."""
        self.status = error.code().name
        self.reason = dict(error.trailing_metadata() or ()).get("forebay-reason", "")
        self.raw += [error.details(), str(error.trailing_metadata())]


def grpc_question(asked: Question) -> pb.GenerateRequest:
    """Return a question in Forebay's own words."""
    made = pb.GenerateRequest()
    made.messages.add(role="user", content=asked.text)
    made.sampling.max_tokens, made.sampling.temperature = asked.tokens, 0
    made.sampling.repetition_penalty = asked.repetition_penalty
    if asked.schema:
        made.guide.json_schema = asked.schema
    for name, text in asked.sources:
        made.context.sources.add(id=name, text=text)
    return made


def generate(to: Seeded, asked: Question) -> Seen:
    """Ask `Generate`."""
    seen = Seen()
    try:
        for event in to.router.stub.Generate(grpc_question(asked), timeout=LONGEST_S):
            seen.raw.append(str(event))
            seen.text += event.token.text
            seen.ticket += event.ticket.id
            if event.WhichOneof("event") == "decision":
                seen.decided.append(f"{event.decision.move}:{event.decision.target}")
            if event.WhichOneof("event") == "done":
                seen.finish, seen.calls = event.done.finish, _calls(event.done)
    except grpc.RpcError as error:
        seen.broke(error)
    return seen


def complete(to: Seeded, asked: Question) -> Seen:
    """Ask `Complete`."""
    seen = Seen()
    try:
        answer = to.router.stub.Complete(grpc_question(asked), timeout=LONGEST_S)
    except grpc.RpcError as error:
        seen.broke(error)
        return seen
    seen.text, seen.finish, seen.ticket = answer.text, answer.done.finish, answer.ticket.id
    seen.calls = _calls(answer.done)
    seen.raw.append(str(answer))
    return seen


def _calls(done: pb.Done) -> tuple[tuple[str, str], ...]:
    return tuple((call.name, call.arguments_json) for call in done.tool_calls)


def kserve_question(asked: Question, *, stream: bool) -> kserve.ModelInferRequest:
    """Return a question as a client of Triton's ensemble asks it: a plain text."""
    made = kserve.ModelInferRequest(model_name="ensemble", id="7")
    said: dict[str, tuple[Any, str]] = {
        "text_input": (asked.text.encode(), "BYTES"),
        "max_tokens": (asked.tokens, "INT32"),
        "top_k": (1, "INT32"),
        "repetition_penalty": (asked.repetition_penalty, "FP32"),
        "stream": (stream, "BOOL"),
        "exclude_input_in_output": (True, "BOOL"),
    }
    if asked.schema:
        said["guided_decoding_guide_type"] = (b"json_schema", "BYTES")
        said["guided_decoding_guide"] = (asked.schema.encode(), "BYTES")
    for name, (value, kind) in said.items():
        dtype = {"BYTES": object, "INT32": np.int32, "FP32": np.float32, "BOOL": bool}[kind]
        tensor = triton.InferInput(name, [1, 1], kind)
        tensor.set_data_from_numpy(np.array([[value]], dtype=dtype))
        made.inputs.append(tensor._get_tensor())
        made.raw_input_contents.append(tensor._get_content())
    if asked.sources:
        sources = [{"id": name, "text": text} for name, text in asked.sources]
        made.parameters["forebay"].string_param = json.dumps({"sources": sources})
    return made


def infer(to: Seeded, asked: Question) -> Seen:
    """Ask `ModelInfer`."""
    seen = Seen()
    stub = GRPCInferenceServiceStub(to.router.channel)
    try:
        _responded(seen, stub.ModelInfer(kserve_question(asked, stream=False), timeout=LONGEST_S))
    except grpc.RpcError as error:
        seen.broke(error)
    return seen


def stream_infer(to: Seeded, asked: Question) -> Seen:
    """Ask `ModelStreamInfer`, whose own status stays OK: a request of a stream fails alone."""
    seen = Seen()
    stub = GRPCInferenceServiceStub(to.router.channel)
    questions = iter([kserve_question(asked, stream=True)])
    for one in stub.ModelStreamInfer(questions, timeout=LONGEST_S):
        seen.raw.append(one.error_message)
        _responded(seen, one.infer_response)
    return seen


def _responded(seen: Seen, response: kserve.ModelInferResponse) -> None:
    seen.raw.append(str(response))
    seen.text += "".join(raw[4:].decode() for raw in response.raw_output_contents)
    seen.ticket += response.parameters["forebay_ticket"].string_param
    seen.reason += response.parameters["forebay_reason"].string_param


def http_question(asked: Question, *, stream: bool) -> dict[str, Any]:
    """Return a question in OpenAI's words."""
    made: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": asked.text}],
        "max_tokens": asked.tokens,
        "temperature": 0,
        "repetition_penalty": asked.repetition_penalty,
        "stream": stream,
    }
    if asked.schema:
        named = {"name": "answer", "schema": json.loads(asked.schema)}
        made["response_format"] = {"type": "json_schema", "json_schema": named}
    if asked.sources:
        sources = [{"id": name, "text": text} for name, text in asked.sources]
        made["forebay"] = {"sources": sources}
    return made


def _posted(to: Seeded, asked: Question, *, stream: bool) -> tuple[Seen, str]:
    body = http_question(asked, stream=stream)
    answer = to.http.post("/v1/chat/completions", json=body)
    return Seen(status=str(answer.status_code), raw=[str(answer.headers), answer.text]), answer.text


def chat(to: Seeded, asked: Question) -> Seen:
    """Ask OpenAI's door for a whole answer."""
    seen, text = _posted(to, asked, stream=False)
    _chunk(seen, json.loads(text), "message")
    return seen


def chat_stream(to: Seeded, asked: Question) -> Seen:
    """Ask OpenAI's door for a stream."""
    seen, text = _posted(to, asked, stream=True)
    if seen.status != "200":
        _chunk(seen, json.loads(text), "delta")
        return seen
    frames = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data")]
    whole = frames[-1] == "[DONE]"
    for frame in frames[:-1] if whole else frames:
        _chunk(seen, json.loads(frame), "delta")
    assert whole != bool(seen.reason), text
    return seen


def _chunk(seen: Seen, said: dict[str, Any], part: str) -> None:
    seen.reason += said.get("error", {}).get("code", "")
    for choice in said.get("choices", []):
        message = choice[part]
        seen.text += message.get("content") or ""
        seen.refusal += message.get("refusal") or ""
        seen.finish = choice["finish_reason"] or seen.finish
        functions = [call["function"] for call in message.get("tool_calls", [])]
        seen.calls += tuple((one["name"], one["arguments"]) for one in functions)
    seen.ticket += said.get("forebay", {}).get("ticket", {}).get("id", "")


DOORS: dict[tuple[str, bool], Callable[[Seeded, Question], Seen]] = {
    ("grpc", False): complete,
    ("grpc", True): generate,
    ("kserve", False): infer,
    ("kserve", True): stream_infer,
    ("http", False): chat,
    ("http", True): chat_stream,
}
"""How each door, by its name in records, is asked for a whole answer and for a stream."""


def ask(to: Seeded, door: str, asked: Question, *, stream: bool) -> Seen:
    """Return what a client saw that asked at a door."""
    to.asked += 1
    return DOORS[door, stream](to, asked)
