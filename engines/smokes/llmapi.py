"""Load a checkpoint by TensorRT-LLM's LLM API, as its Triton model does, and decode a few tokens.

Run by the container's Python; it has not met a GPU. argv: engine, where to write the ids, how
many to decode, and the prompt's ids.
"""

import json
import sys
from pathlib import Path

import yaml
from tensorrt_llm import LLM, SamplingParams

# Beside an engine that serves on the same GPU; a few tokens need little.
KV_FRACTION = 0.2


def main(engine: Path, result: Path, tokens: int, prompt: list[int]) -> None:
    """Write the ids that were decoded."""
    settings = yaml.safe_load((engine / "model.yaml").read_text(encoding="utf-8"))
    settings.pop("triton_config")
    settings |= {"model": str(engine), "tokenizer": str(engine)}
    settings.setdefault("kv_cache_config", {})["free_gpu_memory_fraction"] = KV_FRACTION
    llm = LLM(**settings)
    answer = llm.generate(prompt, SamplingParams(max_tokens=tokens), use_tqdm=False)
    ids = list(answer.outputs[0].token_ids)
    llm.shutdown()
    result.write_text(json.dumps({"ids": ids}), encoding="utf-8")
    print(f"decoded {ids}")


if __name__ == "__main__":  # its workers import this file again
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), [int(one) for one in sys.argv[4:]])
