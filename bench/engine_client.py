"""A lean gRPC client of `tensorrt_llm`: N streams at once, responses counted and not decoded.

    python bench/engine_client.py HOST:PORT [--tokens 64]

answers each line of standard input, `IN_FLIGHT SEED`, with one JSON object. It runs in a
process of its own, so that the client's work is not the server's. With `newcomer` as a third
word, one more request joins when all the others are running, and its TTFT is reported.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from prompts import ids
from tritonclient.grpc import service_pb2 as pb

NEW_TOKENS = 64
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


def request(prompt: list[int], tokens: int) -> bytes:
    asked = pb.ModelInferRequest(model_name="tensorrt_llm")
    _add(asked, "input_ids", "INT32", np.array([prompt], dtype=np.int32))
    _add(asked, "input_lengths", "INT32", np.array([[len(prompt)]], dtype=np.int32))
    _add(asked, "request_output_len", "INT32", np.array([[tokens]], dtype=np.int32))
    _add(asked, "end_id", "INT32", np.array([[-1]], dtype=np.int32))
    _add(asked, "streaming", "BOOL", np.array([[True]]))
    asked.outputs.add(name="output_ids")
    asked.outputs.add(name="sequence_length")
    raw: bytes = asked.SerializeToString()
    return raw


def _add(asked: Any, name: str, kind: str, array: Any) -> None:
    asked.inputs.add(name=name, datatype=kind, shape=array.shape)
    asked.raw_input_contents.append(array.tobytes())


class Stream:
    """One request's stream: when its first and last responses came, and how many there were."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(METHOD)
        self.first = asyncio.Event()
        self.started = self.first_s = 0.0
        self.responses = 0

    async def run(self, raw: bytes) -> None:
        async def once() -> AsyncIterator[bytes]:
            yield raw

        self.started = time.monotonic()
        async for answer in self._call(once()):
            if not self.responses:
                self.first_s = time.monotonic() - self.started
                self.first.set()
                failure = pb.ModelStreamInferResponse.FromString(answer).error_message
                if failure:
                    raise RuntimeError(failure)
            self.responses += 1


async def measure(target: str, count: int, seed: int, tokens: int, *, newcomer: bool) -> Any:
    raws = [request(prompt, tokens) for prompt in ids(count, seed)]
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.channel_ready()
        started = time.monotonic()
        streams = [Stream(channel) for _ in raws]
        async with asyncio.TaskGroup() as group:
            for stream, raw in zip(streams, raws, strict=True):
                group.create_task(stream.run(raw))
            late = Stream(channel)
            if newcomer:
                for stream in streams:
                    await stream.first.wait()
                group.create_task(late.run(request(ids(1, seed + 7919)[0], 4)))
        took = time.monotonic() - started
    made = sum(stream.responses for stream in streams)
    return {
        "in_flight": count,
        "tokens": made,
        "tokens_per_s": round(made / took, 1),
        "largest_ttft_s": round(max(stream.first_s for stream in streams), 3),
        "newcomer_ttft_s": round(late.first_s, 3) if newcomer else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS)
    asked = parser.parse_args()
    for line in sys.stdin:
        words = line.split()
        count, seed = int(words[0]), int(words[1])
        found = asyncio.run(
            measure(asked.target, count, seed, asked.tokens, newcomer="newcomer" in words)
        )
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
