"""The bare-engine probe: a fixed closed-loop burst straight at Triton, past the router.

Prompts are drawn anew each time, so that no probe finds the last one's prefixes in the cache.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from grpc import aio
from tokenizers import Tokenizer
from tritonclient.grpc import service_pb2 as pb

from loadtest.arrivals import stream
from loadtest.prompts import TOKENIZER, corpus
from loadtest.sweep_plan import PROBED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from loadtest.sweep_plan import Probe

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
MODEL = "tensorrt_llm"
LIMIT_S = 120.0


class ProbeError(Exception):
    """The bare engine did not answer; the message says what Triton said."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What one burst gave."""

    tokens_per_s: float
    ttft_p50_ms: float


def moved(before: Probed, after: Probed) -> float:
    """Return by what share the engine's speed changed between two probes."""
    return abs(after.tokens_per_s / before.tokens_per_s - 1)


async def probe(address: str, said: Probe, seed: int) -> Probed:
    """Return the speed of the engine behind Triton's gRPC port.

    Raises:
        ProbeError: an answer was an error, or none came in time.
    """
    raws = [_request(ids, said.output_tokens) for ids in _prompts(said, seed)]
    waiting = list(raws)
    firsts_ms: list[float] = []
    async with aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(METHOD)

        async def client() -> None:
            while waiting:
                firsts_ms.append(await _one(call, waiting.pop()))

        began_s = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                for _ in range(said.clients):
                    group.create_task(client())
        except TimeoutError as error:
            raise ProbeError(
                f"the bare engine at {address} did not answer within {LIMIT_S:g} s"
            ) from error
        except ExceptionGroup as error:
            why = error.exceptions[0]
            said = why.details() if isinstance(why, aio.AioRpcError) else str(why)
            raise ProbeError(f"the bare engine at {address} does not answer: {said}") from error
        took_s = time.monotonic() - began_s
    made = len(raws) * said.output_tokens
    return Probed(round(made / took_s, 1), round(float(np.median(firsts_ms)), 1))


async def _one(call: Any, raw: bytes) -> float:
    """Return the milliseconds to the first token of one request that is read to its end."""

    async def once() -> AsyncIterator[bytes]:
        yield raw

    began_s, first_ms = time.monotonic(), None
    async for answer in call(once()):
        if first_ms is None:
            first_ms = (time.monotonic() - began_s) * 1000
        if failure := pb.ModelStreamInferResponse.FromString(answer).error_message:
            raise ProbeError(failure)
    if first_ms is None:
        raise ProbeError("the stream ended without a token")
    return first_ms


def _prompts(said: Probe, seed: int) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    draw, text = stream(f"probe/{seed}"), corpus(PROBED)
    return [
        tokenizer.encode(text.cut(2 * said.prompt_tokens, draw)).ids[: said.prompt_tokens]
        for _ in range(said.requests)
    ]


def _request(ids: list[int], tokens: int) -> bytes:
    asked = pb.ModelInferRequest(model_name=MODEL)
    tensors = {
        "input_ids": ("INT32", np.array([ids], dtype=np.int32)),
        "input_lengths": ("INT32", np.array([[len(ids)]], dtype=np.int32)),
        "request_output_len": ("INT32", np.array([[tokens]], dtype=np.int32)),
        "end_id": ("INT32", np.array([[-1]], dtype=np.int32)),
        "streaming": ("BOOL", np.array([[True]])),
    }
    for name, (kind, array) in tensors.items():
        asked.inputs.add(name=name, datatype=kind, shape=array.shape)
        asked.raw_input_contents.append(array.tobytes())
    asked.outputs.add(name="output_ids")
    asked.outputs.add(name="sequence_length")
    return bytes(asked.SerializeToString())
