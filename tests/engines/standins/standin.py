"""What TensorRT-LLM's tools would leave, small and the same for the same inputs.

Each stand-in parses its command line by the strict parser and writes files of the right names
and shapes. They compile nothing: they show that the pipeline calls the tools as they are called,
and survives what happens to them.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from enginebuild import flags


def digest(*parts: object) -> str:
    """Return a short hash of what is given."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def begin(tool: str) -> dict[str, object]:
    """Parse argv as `tool` does; stop in the middle or fail where a test asks for it."""
    said = flags.parse(tool, sys.argv[1:])
    out = Path(str(said["output_dir"]))
    out.mkdir(parents=True, exist_ok=True)
    print(f"{tool}: TensorRT-LLM stand-in, nothing is compiled", flush=True)
    if os.environ.get("STANDIN_FAIL") == tool:
        print(f"{tool}: CUDA out of memory (asked for by the test)", flush=True)
        sys.exit(3)
    if os.environ.get("STANDIN_PAUSE") == tool:
        (out / "half-written.bin").write_bytes(b"half")
        Path(os.environ["STANDIN_PAUSED"]).touch()
        time.sleep(300)
    return said


def checkpoint(tool: str) -> None:
    """Write a TensorRT-LLM checkpoint: config.json and one file of weights a rank."""
    said = begin(tool)
    source, out = Path(str(said["model_dir"])), Path(str(said["output_dir"]))
    config = json.loads((source / "config.json").read_text())
    tp, pp = int(str(said["tp_size"])), int(str(said["pp_size"]))
    mapping = {"world_size": tp * pp, "tp_size": tp, "pp_size": pp}
    quantization = {
        "quant_algo": said.get("qformat") or said.get("weight_only_precision"),
        "kv_cache_quant_algo": said.get("kv_cache_dtype"),
    }
    body = {
        "architecture": config["architectures"][0],
        "dtype": said["dtype"],
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "mapping": mapping,
        "quantization": quantization,
    }
    (out / "config.json").write_text(json.dumps(body, indent=2, sort_keys=True))
    if said.get("export_format") == "hf":
        (out / "model.safetensors").write_text(digest("hf", body))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (source / name).is_file():
                (out / name).write_bytes((source / name).read_bytes())
        return
    for rank in range(tp * pp):
        (out / f"rank{rank}.safetensors").write_text(digest(rank, body))
