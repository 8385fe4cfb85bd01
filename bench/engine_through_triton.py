"""What Triton costs: the same engine bare and behind Triton, in interleaved runs.

    .venv/bin/python bench/engine_through_triton.py HOST:PORT \
        --engine model_repository/tensorrt_llm/1/engine --triton-python .venv-triton/bin/python

Each round measures, for every number in flight, the bare engine and then Triton, with the
same prompts and one response for each token; a machine that slows down slows both. Printed:
medians, the ratio of each round, and a newcomer's TTFT behind 31 that run.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Measurer:
    """A benchmark process that answers each line with one JSON object."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def compare(bare: Measurer, triton: Measurer, counts: list[int], rounds: int) -> None:
    for count in counts:
        pairs = []
        for turn in range(rounds):
            seed = 1000 * count + turn
            pairs.append((bare.ask(f"{count} {seed}"), triton.ask(f"{count} {seed}")))
        ratios = [there["tokens_per_s"] / here["tokens_per_s"] for here, there in pairs]
        line = {
            "in_flight": count,
            "bare_tokens_per_s": statistics.median(here["tokens_per_s"] for here, _ in pairs),
            "triton_tokens_per_s": statistics.median(there["tokens_per_s"] for _, there in pairs),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
            "bare_largest_ttft_s": statistics.median(here["largest_ttft_s"] for here, _ in pairs),
            "triton_largest_ttft_s": statistics.median(
                there["largest_ttft_s"] for _, there in pairs
            ),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--triton-python", default=sys.executable)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    bare = Measurer(
        asked.triton_python, str(HERE / "bare_openvino.py"), str(asked.engine), "--serve"
    )
    bare.read()
    triton = Measurer(sys.executable, str(HERE / "engine_client.py"), asked.target)
    triton.ask("8 1")
    compare(bare, triton, asked.in_flight, asked.rounds)
    late = [triton.ask(f"31 {9000 + turn} newcomer")["newcomer_ttft_s"] for turn in range(3)]
    sys.stdout.write(json.dumps({"newcomer_behind_31_ttft_s": late}) + "\n")
    bare.close()
    triton.close()


if __name__ == "__main__":
    main()
