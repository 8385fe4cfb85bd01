"""`python -m loadtest.cloud_stub`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import uvicorn

from loadtest.cloud_stub.bodies import FAULTS
from loadtest.cloud_stub.server import Pace, Stub, config, listener


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal, having said where."""
    usual = Pace()
    parser = argparse.ArgumentParser("loadtest.cloud_stub", description="A paced OpenAI API")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    for name, value in asdict(usual).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    parser.add_argument("--fault", choices=sorted(FAULTS))
    parser.add_argument("--fault-share", type=float, default=1.0)
    said = parser.parse_args(argv)
    pace = Pace(**{name: getattr(said, name) for name in asdict(usual)})
    stub = Stub(pace, seed=said.seed, fault=said.fault, fault_share=said.fault_share)
    taken = listener(said.port)
    print(json.dumps({"url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"}), flush=True)
    uvicorn.Server(config(stub)).run(sockets=[taken])


if __name__ == "__main__":
    main()
