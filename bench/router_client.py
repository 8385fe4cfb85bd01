"""A lean gRPC client of the router: N streams at once over `forebay.v1`, tokens counted.

    python bench/router_client.py HOST:PORT [--tokens 64]

answers each line of standard input, `IN_FLIGHT SEED`, with one JSON object, as
`engine_client.py` does for Triton. Prompts are the same ids, as text; `min_tokens`
keeps every answer at its full length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
from prompts import texts

from forebay.v1 import router_pb2 as pb

NEW_TOKENS = 64
METHOD = "/forebay.v1.Router/Generate"


def request(prompt: str, tokens: int, model: str) -> bytes:
    """Return one greedy request for exactly `tokens` tokens."""
    sampling = pb.Sampling(max_tokens=tokens, min_tokens=tokens, temperature=0)
    made = pb.GenerateRequest(model=model, text=prompt, sampling=sampling)
    return bytes(made.SerializeToString())


class Stream:
    """One request's stream: when each token came, on this process's clock."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.unary_stream(METHOD)
        self.first = asyncio.Event()
        self.first_s = 0.0
        self.tokens = 0
        self.times_s: list[float] = []

    async def run(self, raw: bytes) -> None:
        """Read the stream to its end."""
        started = time.monotonic()
        async for answer in self._call(raw):
            event = pb.GenerateEvent.FromString(answer)
            if event.HasField("token"):
                now = time.monotonic()
                self.first_s = self.first_s or now - started
                self.times_s.append(now)
                self.tokens += event.token.tokens
                self.first.set()


async def measure(target: str, raws: list[bytes], late_raw: bytes | None) -> dict[str, Any]:
    """Run all requests at once, and perhaps one more when all of them have begun."""
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.channel_ready()
        started = time.monotonic()
        streams, late = [Stream(channel) for _ in raws], Stream(channel)
        async with asyncio.TaskGroup() as group:
            for stream, raw in zip(streams, raws, strict=True):
                group.create_task(stream.run(raw))
            if late_raw is not None:
                for stream in streams:
                    await stream.first.wait()
                group.create_task(late.run(late_raw))
        took = time.monotonic() - started
    made = sum(stream.tokens for stream in streams)
    gaps = [b - a for stream in streams for a, b in pairwise(stream.times_s)]
    return {
        "in_flight": len(raws),
        "tokens": made,
        "events": sum(len(stream.times_s) for stream in streams),
        "tokens_per_s": round(made / took, 1),
        "largest_ttft_s": round(max(stream.first_s for stream in streams), 4),
        "itl_p50_ms": round(float(np.percentile(gaps, 50)) * 1000, 1) if gaps else None,
        "itl_p99_ms": round(float(np.percentile(gaps, 99)) * 1000, 1) if gaps else None,
        "newcomer_ttft_s": round(late.first_s, 3) if late_raw is not None else None,
    }


def main() -> None:
    """Answer lines until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--model", default="auto")
    asked = parser.parse_args()
    for line in sys.stdin:
        words = line.split()
        count, seed = int(words[0]), int(words[1])
        raws = [request(p, asked.tokens, asked.model) for p in texts(count, seed)]
        late = None
        if "newcomer" in words:
            late = request(texts(1, seed + 7919)[0], 4, asked.model)
        sys.stdout.write(json.dumps(asyncio.run(measure(asked.target, raws, late))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
