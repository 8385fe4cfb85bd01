"""How often a greedy answer changes because others are in the batch.

    python bench/engine_batch_effect.py HOST:PORT [--tokens 48]

sends 32 prompts of mixed lengths all at once, then each of them alone, and prints the share of
answers that differ and the first position at which each does. The accurate profile prints 0.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import engine_client
import grpc
import numpy as np
from prompts import ids
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

COUNT = 32


def answer(stub: Any, prompt: list[int], tokens: int) -> list[int]:
    asked = pb.ModelInferRequest.FromString(engine_client.request(prompt, tokens))
    made: list[int] = []
    for response in stub.ModelStreamInfer(iter([asked]), timeout=300):
        if response.error_message:
            raise RuntimeError(response.error_message)
        raw = dict(
            zip(
                (tensor.name for tensor in response.infer_response.outputs),
                response.infer_response.raw_output_contents,
                strict=True,
            )
        )
        made += np.frombuffer(raw["output_ids"], dtype=np.int32).tolist()
    return made


def first_difference(one: list[int], other: list[int]) -> int | None:
    pairs = enumerate(zip(one, other, strict=True))
    return next((place for place, (left, right) in pairs if left != right), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--tokens", type=int, default=48)
    asked = parser.parse_args()
    drawn = ids(COUNT, 4242)
    prompts = [(prompt * 4)[: 5 + 5 * order] for order, prompt in enumerate(drawn)]
    with grpc.insecure_channel(asked.target) as channel, ThreadPoolExecutor(COUNT) as pool:
        stub = GRPCInferenceServiceStub(channel)
        together = list(pool.map(lambda prompt: answer(stub, prompt, asked.tokens), prompts))
        alone = [answer(stub, prompt, asked.tokens) for prompt in prompts]
    places = [first_difference(*pair) for pair in zip(together, alone, strict=True)]
    found = sorted(place for place in places if place is not None)
    sys.stdout.write(
        json.dumps({"answers": COUNT, "share": len(found) / COUNT, "first_positions": found}) + "\n"
    )


if __name__ == "__main__":
    main()
