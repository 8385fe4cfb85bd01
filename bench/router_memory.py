"""The router's memory over many requests.

    .venv/bin/python bench/router_memory.py HOST:PORT --pid PID [--requests 10000]

Sends short requests, 16 at a time, and prints the router's resident memory as it goes. Growth
is counted from the first tenth, when pools and caches have filled, to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import grpc
import psutil
from router_client import METHOD, request

IN_FLIGHT = 16
POINTS = 10


async def send(target: str, count: int, offset: int) -> int:
    """Send `count` requests of one token each; return how many did not end well."""
    failed = 0
    places = asyncio.Semaphore(IN_FLIGHT)
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_stream(METHOD)

        async def one(number: int) -> None:
            nonlocal failed
            async with places:
                try:
                    async for _ in call(request(f"Request {number} says hello.", 1, "auto")):
                        pass
                except grpc.RpcError:
                    failed += 1

        async with asyncio.TaskGroup() as group:
            for number in range(offset, offset + count):
                group.create_task(one(number))
    return failed


def main() -> None:
    """Print one JSON object for each tenth and one at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    asked = parser.parse_args()
    router = psutil.Process(asked.pid)
    step, failed, sizes = asked.requests // POINTS, 0, []
    for point in range(POINTS):
        failed += asyncio.run(send(asked.target, step, point * step))
        sizes.append(router.memory_info().rss / 2**20)
        line = {"requests": (point + 1) * step, "rss_mib": round(sizes[-1], 1), "failed": failed}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    growth = sizes[-1] / sizes[0] - 1
    sys.stdout.write(json.dumps({"growth": round(growth, 4), "largest_mib": max(sizes)}) + "\n")


if __name__ == "__main__":
    main()
