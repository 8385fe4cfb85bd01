"""Load an embedded engine as its Triton model does, and decode a few tokens greedily.

Run by Triton's environment. argv: engine, the folder of the model's Python, where to write the
ids, how many to decode, and the prompt's ids.
"""

import json
import sys
from pathlib import Path

engine, model, result, tokens, *prompt = sys.argv[1:]
sys.path.insert(0, model)

import numpy as np
from generation import Generation, Sampling, Wanted
from pipeline import Pipeline, read_engine

NO_END = -1
GREEDY = Sampling(
    sample=False,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    seed=None,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    min_tokens=0,
)
WANTED = Wanted(
    streaming=False,
    prompt_in_output=False,
    log_probs=False,
    perf_metrics=False,
    input_tokens=False,
    output_tokens=False,
)
asked = Generation(
    prompt=np.array([int(one) for one in prompt], np.int64),
    max_tokens=int(tokens),
    sequences=1,
    end_id=NO_END,
    sampling=GREEDY,
    stop_words=(),
    guide=None,
    wanted=WANTED,
    kv_blocks=1,
)
pipeline = Pipeline(read_engine(Path(engine)))
running = pipeline.add(1, asked, None)
ids: list[int] = []
while not running.over():
    pipeline.step()
    ids += [token for decoded in running.decoded() for token in decoded.tokens]
Path(result).write_text(json.dumps({"ids": ids}), encoding="utf-8")
print(f"decoded {ids}")
