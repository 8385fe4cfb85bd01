"""What goes back to Triton: tensors in upstream's names and shapes, errors as sentences."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from generation import Generation
from words import StopWords

PREVIOUS_TOKENS = 16
"""How many earlier tokens go along for detokenising: a character spans four bytes at most, and
tokens without text (special ones) may lie between them."""
OURS = "previous_ids"
UNMAPPED = "context_phase_params"
"""An output nothing in our ensemble takes: who asks for it asks for everything by default."""


class Fault(Enum):
    """Whose fault a failed request is; Triton turns it into a status."""

    INVALID = "INVALID_ARG"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(slots=True)
class Sequence:
    """One answer of a request while it grows. `sent` tokens of it have gone out."""

    index: int
    stop: StopWords
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    sent: int = 0
    done: bool = False


@dataclass(slots=True)
class Times:
    """When things happened, in nanoseconds of the monotonic clock; 0 for not yet."""

    arrival_ns: int
    first_scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0


class Reply:
    """The way back to one client. After `end`, `fail` or a lost client it is closed."""

    def __init__(self, pb_utils: Any, request: Any) -> None:
        self._pb = pb_utils
        self._sender = request.get_response_sender()
        self._wanted = frozenset(request.requested_output_names())
        self._for_text = OURS in self._wanted and UNMAPPED not in self._wanted
        self.open = True

    def cancelled(self) -> bool:
        """Return whether the client has gone. Costs one message to Triton and back."""
        return bool(self._sender.is_cancelled())

    def tokens(
        self, asked: Generation, sequence: Sequence, times: Times, *, upto: int, last: bool
    ) -> None:
        """Send the sequence's tokens from `sent` to `upto`; `last` closes the whole request."""
        response = self._response(asked, sequence, times, upto)
        sequence.sent = upto
        self._send(response, last=last)

    def fail(self, fault: Fault, sentence: str) -> None:
        """Send an error and close."""
        error = self._pb.TritonError(sentence, getattr(self._pb.TritonError, fault.value))
        self._send(self._pb.InferenceResponse(output_tensors=[], error=error), last=True)

    def end(self) -> None:
        """Close without a further response."""
        if self.open:
            self.open = False
            self._sender.send(flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _send(self, response: Any, *, last: bool) -> None:
        if not self.open:
            return
        self.open = not last
        flags = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if last else 0
        self._sender.send(response, flags=flags)

    def _response(self, asked: Generation, sequence: Sequence, times: Times, upto: int) -> Any:
        fresh = sequence.tokens[sequence.sent : upto]
        wanted = asked.wanted
        shown = (
            [*asked.prompt, *fresh] if wanted.prompt_in_output and not wanted.streaming else fresh
        )
        made = [
            self._tensor("output_ids", [[shown]], np.int32),
            self._tensor("sequence_length", [[len(shown)]], np.int32),
        ]
        for name, index in (("batch_index", 0), ("sequence_index", sequence.index)):
            if name in self._wanted:  # one tensor less is a twentieth of a token's cost
                made.append(self._tensor(name, [[index]], np.int32))
        if self._for_text:
            before = sequence.tokens[max(0, sequence.sent - PREVIOUS_TOKENS) : sequence.sent]
            made.append(self._tensor("previous_ids", [before], np.int32))
            made.append(self._tensor("finished", [[sequence.done]], np.bool_))
        if wanted.log_probs:
            probs = sequence.log_probs
            made.append(self._tensor("cum_log_probs", [[sum(probs[:upto])]], np.float32))
            made.append(
                self._tensor("output_log_probs", [[probs[sequence.sent : upto]]], np.float32)
            )
        if wanted.input_tokens:
            made.append(self._tensor("num_input_tokens", [[asked.prompt.size]], np.int32))
        if wanted.output_tokens:
            made.append(self._tensor("num_output_tokens", [[upto]], np.int32))
        if wanted.perf_metrics and sequence.done:
            made.extend(self._perf(times))
        return self._pb.InferenceResponse(output_tensors=made)

    def _perf(self, times: Times) -> list[Any]:
        stamps = {
            "arrival_time_ns": times.arrival_ns,
            "first_scheduled_time_ns": times.first_scheduled_ns,
            "first_token_time_ns": times.first_token_ns,
            "last_token_time_ns": times.last_token_ns,
        }
        return [self._tensor(name, [[value]], np.int64) for name, value in stamps.items()]

    def _tensor(self, name: str, values: Any, dtype: Any) -> Any:
        return self._pb.Tensor(name, np.array(values, dtype=dtype))
