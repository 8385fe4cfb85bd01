"""KServe v2 inference requests to values, and events to inference responses."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from tritonclient.grpc import service_pb2 as kserve

from forebay.edges.grpc_door import tensors
from forebay.edges.grpc_door.arrival import request_id
from forebay.errors import UnknownModel, sentence_of, status_of
from forebay.policy.context import (
    NOTHING,
    checked,
    checked_guide,
    context_of_json,
    earlier,
    fault,
    few,
    fit,
    unique,
)
from forebay.values import Decided, Guide, Request, Sampling, Text, Ticket, Token

if TYPE_CHECKING:
    from forebay.edges.grpc_door.arrival import Arrival

ALIASES = ("ensemble", "tensorrt_llm_bls")
"""Names that TensorRT-LLM gives its text models; here they mean `auto`."""

OUTPUTS = (
    "text_output",
    "cum_log_probs",
    "output_log_probs",
    "sequence_index",
    "batch_index",
    "num_input_tokens",
    "num_output_tokens",
)
"""Outputs of the ensemble that the router can answer."""

_GUIDES = {"json": "json", "json_schema": "json_schema", "regex": "regex"}
_SAMPLING = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "end_id",
)
_CALLED = {"stop": "stop_words", "bad": "bad_words"}
_FINAL = "triton_final_response"
_WANTS_FINAL = "triton_enable_empty_final_response"
_DECISION = "forebay"
_TICKET = "forebay_ticket"
_MICROS = 1_000_000
_NO_TEXT = Token("", 0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What an inference request asks, beside what the corridor has to know."""

    request: Request
    model: str
    id: str
    echo: str
    """Text to stand before the answer: the ensemble repeats its input unless told not to."""
    outputs: tuple[str, ...]
    in_pieces: bool
    final: bool
    """Whether an empty last response is wanted."""


def asked_of(message: kserve.ModelInferRequest, arrival: Arrival) -> Asked:
    """Return what a request asks.

    Raises:
        InvalidRequest: a tensor, parameter or output is wrong or cannot be honoured.
    """
    known_version(message.model_name, message.model_version)
    parameters = _parameters(message)
    values = tensors.read(message)
    if values.get("top_p") == 0:
        del values["top_p"]  # how TensorRT-LLM says "no top-p"
    for name in ("text_input", "max_tokens"):
        if name not in values:
            raise fault(name, "must be given")
    said = parameters.get("forebay")
    brought = NOTHING if said is None else context_of_json(said)
    prompt = Text(values["text_input"])
    fit(prompt, brought.tools, "auto", "forebay.tools")
    in_pieces = values.get("stream", False)
    timeout_us, deadline_ms = parameters.get("timeout"), brought.deadline_ms
    request = Request(
        id=arrival.id,
        model="auto" if message.model_name in ALIASES else message.model_name,
        prompt=prompt,
        received_s=arrival.received_s,
        sampling=_sampling(values),
        guide=_guide(values),
        labels=brought.labels,
        sources=brought.sources,
        tools=brought.tools,
        deadline_s=earlier(
            arrival.received_s,
            arrival.remaining_s,
            None if deadline_ms is None else deadline_ms / 1000,
            None if timeout_us is None else timeout_us / _MICROS,
        ),
        stream=in_pieces,
        explain=brought.explain,
        door="kserve",
    )
    return Asked(
        request=request,
        model=message.model_name,
        id=message.id,
        echo="" if in_pieces or values.get("exclude_input_in_output") else values["text_input"],
        outputs=_outputs(message, values),
        in_pieces=in_pieces,
        final=parameters.get(_WANTS_FINAL, False),
    )


def known_version(model: str, version: str) -> None:
    """Refuse any version but the only one."""
    if version not in ("", "1"):
        raise UnknownModel(
            f"model {model[:128]!r} has no version {version[:16]!r}; its only one is 1"
        )


def _sampling(values: dict[str, Any]) -> Sampling:
    said = {name: values[name] for name in _SAMPLING if name in values}
    return checked(
        Sampling(
            stop=tuple(values.get("stop_words", ())),
            bad=tuple(values.get("bad_words", ())),
            logprobs=values.get("return_log_probs", False),
            **said,
        ),
        _CALLED,
    )


def _guide(values: dict[str, Any]) -> Guide | None:
    kind, source = (
        values.get("guided_decoding_guide_type"),
        values.get("guided_decoding_guide", ""),
    )
    if kind is None:
        if source:
            raise fault("guided_decoding_guide", "needs guided_decoding_guide_type beside it")
        return None
    if kind not in _GUIDES:
        known = ", ".join(_GUIDES)
        raise fault("guided_decoding_guide_type", f"must be one of {known}, and is {kind[:64]!r}")
    return checked_guide(Guide(kind, source), "guided_decoding_guide")


def _parameters(message: kserve.ModelInferRequest) -> dict[str, Any]:
    """Return the request parameters that mean something; refuse all others by name."""
    wanted = {"forebay": "string_param", _WANTS_FINAL: "bool_param", "timeout": "int64_param"}
    values = {}
    for name, parameter in message.parameters.items():
        form = parameter.WhichOneof("parameter_choice")
        if name not in wanted:
            raise fault(f"parameter {name[:64]}", "is not known to the router")
        if form != wanted[name]:
            raise fault(f"parameter {name}", f"must be a {wanted[name]}")
        values[name] = getattr(parameter, wanted[name])
    if values.get("timeout", 1) <= 0:
        raise fault("parameter timeout", "must be a positive number of microseconds")
    return values


def _outputs(message: kserve.ModelInferRequest, values: dict[str, Any]) -> tuple[str, ...]:
    """Return the outputs to send: those named, or else the text and what was asked for by flag."""
    few("outputs", len(message.outputs), len(OUTPUTS))
    unique((output.name for output in message.outputs), "outputs")
    for output in message.outputs:
        if output.name not in OUTPUTS:
            raise fault(f"output {output.name[:64]}", f"is none of {', '.join(OUTPUTS)}")
        if output.parameters:
            raise fault(f"output {output.name}", "takes no parameters here")
    if message.outputs:
        return tuple(output.name for output in message.outputs)
    flags = {
        "cum_log_probs": "return_log_probs",
        "output_log_probs": "return_log_probs",
        "num_input_tokens": "return_num_input_tokens",
        "num_output_tokens": "return_num_output_tokens",
    }
    return ("text_output", *(name for name, flag in flags.items() if values.get(flag)))


class Answers:
    """Builds the responses to one request; those that hold text alone reuse one message.

    A response is read before the next is built: writing it serialises it.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._prompt_tokens = self._tokens = 0
        self._cum_log_prob = 0.0
        self._ticket = ""
        self._response = self._empty(final=False)
        self._plain = asked.outputs == ("text_output",) and not asked.request.explain
        self._begun = False

    def decided(self, event: Decided) -> None:
        """Note where the request went; told with the first response where it was asked for."""
        self._prompt_tokens = event.prompt_tokens
        if self._asked.request.explain:
            told = orjson.dumps({"request_id": self._asked.request.id, "decision": event}).decode()
            self._response.parameters[_DECISION].string_param = told

    def parked(self, event: Ticket) -> None:
        """Note that a person will answer; told with the last response, which has no text."""
        self._ticket = event.id

    def piece(self, event: Token, *, final: bool = False) -> kserve.ModelInferResponse:
        """Return the response that carries one piece of text, and what was decoded for it."""
        self._tokens += event.tokens
        self._cum_log_prob += sum(event.logprobs)
        response = self._response
        text = event.text.encode()
        raw = len(text).to_bytes(4, "little") + text
        if final:
            self._finish(response)
        if self._plain and self._begun:
            response.raw_output_contents[0] = raw
            return response
        if self._begun:
            response.parameters.pop(_DECISION, None)
        del response.outputs[:], response.raw_output_contents[:]
        for name in self._asked.outputs:
            kind, shape, content = self._output(name, raw, event)
            response.outputs.add(name=name, datatype=kind, shape=shape)
            response.raw_output_contents.append(content)
        self._begun = True
        return response

    def end(self) -> kserve.ModelInferResponse:
        """Return the last response of a stream, whose text is empty.

        That it is the last can only be told apart from the text before it, because a token is
        sent before it is known whether another follows. Without outputs it comes only to those
        who asked for such a response; others would stumble over it.
        """
        if not self._asked.final:
            return self.piece(_NO_TEXT, final=True)
        last = self._empty(final=True)
        self._finish(last)
        return last

    def _finish(self, response: kserve.ModelInferResponse) -> None:
        """Mark the last response."""
        response.parameters[_FINAL].bool_param = True
        if self._ticket:
            response.parameters[_TICKET].string_param = self._ticket

    def _output(self, name: str, raw: bytes, event: Token) -> tuple[str, list[int], bytes]:
        if name == "text_output":
            return "BYTES", [1, 1], raw
        if name == "output_log_probs":
            probs = event.logprobs
            return "FP32", [1, 1, len(probs)], struct.pack(f"<{len(probs)}f", *probs)
        if name == "cum_log_probs":
            return "FP32", [1, 1], struct.pack("<f", self._cum_log_prob)
        counts = {"num_input_tokens": self._prompt_tokens, "num_output_tokens": self._tokens}
        return "INT32", [1, 1], struct.pack("<i", counts.get(name, 0))

    def _empty(self, *, final: bool) -> kserve.ModelInferResponse:
        response = kserve.ModelInferResponse(
            model_name=self._asked.model, model_version="1", id=self._asked.id
        )
        response.parameters[_FINAL].bool_param = final
        return response


def failure(error: BaseException, asked_id: str) -> kserve.ModelStreamInferResponse:
    """Return an error that ends one request of a stream and leaves the others alone.

    Args:
        error: What went wrong.
        asked_id: The id that the client gave its request.
    """
    response = kserve.ModelStreamInferResponse(error_message=sentence_of(error))
    response.infer_response.id = asked_id
    parameters = response.infer_response.parameters
    parameters[_FINAL].bool_param = True
    parameters["forebay_reason"].string_param = status_of(error).reason
    if request_id():
        parameters["forebay_request_id"].string_param = request_id()
    after_s = getattr(error, "retry_after_s", None)
    if after_s is not None:
        parameters["retry_after_s"].double_param = after_s
    return response
