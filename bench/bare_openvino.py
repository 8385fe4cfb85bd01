"""Tokens per second of bare OpenVINO GenAI on an installed engine: the yardstick for Triton.

    .venv-triton/bin/python bench/bare_openvino.py ENGINE_DIRECTORY [--in-flight 1 8 32]

prints one JSON object a line. With `--serve` it loads once, then answers each line of
standard input (a number in flight) with such an object, so that runs can be interleaved.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from prompts import ids

NEW_TOKENS = 64


def pipeline(engine: Path) -> Any:
    said = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 0
    scheduler.num_kv_blocks = said["kv_blocks"]
    scheduler.max_num_seqs = said["max_batch_size"]
    scheduler.max_num_batched_tokens = said["max_num_tokens"]
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    threads = len(os.sched_getaffinity(0))
    properties = {"INFERENCE_NUM_THREADS": threads, **said["properties"]}
    return genai.ContinuousBatchingPipeline(
        str(engine / said["weights"]), scheduler, "CPU", properties
    )


def measure(engine: Any, count: int, seed: int, new_tokens: int) -> dict[str, float]:
    config = genai.GenerationConfig(
        apply_chat_template=False, max_new_tokens=new_tokens, ignore_eos=True
    )
    started = time.monotonic()
    handles = [
        engine.add_request(order, ov.Tensor(np.array([prompt], dtype=np.int64)), config)
        for order, prompt in enumerate(ids(count, seed))
    ]
    first = [0.0] * count
    tokens = 0
    while engine.has_non_finished_requests():
        engine.step()
        now = time.monotonic()
        for order, handle in enumerate(handles):
            while handle.can_read():
                for output in handle.read().values():
                    tokens += len(output.generated_ids)
                    first[order] = first[order] or now - started
    took = time.monotonic() - started
    return {
        "in_flight": count,
        "tokens": tokens,
        "tokens_per_s": round(tokens / took, 1),
        "largest_ttft_s": round(max(first), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--serve", action="store_true")
    asked = parser.parse_args()
    engine = pipeline(asked.engine)
    measure(engine, 8, 0, 8)
    if not asked.serve:
        for count in asked.in_flight:
            sys.stdout.write(json.dumps(measure(engine, count, count, asked.tokens)) + "\n")
        return
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    for line in sys.stdin:
        count, seed = map(int, line.split())
        sys.stdout.write(json.dumps(measure(engine, count, seed, asked.tokens)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
