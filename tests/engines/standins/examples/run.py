"""Stands for examples/run.py: reads the engine's record, loads nothing, writes a row of ids."""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tokenizers import Tokenizer

from enginebuild import flags

said = flags.parse("run.py", sys.argv[1:])
print("run.py: TensorRT-LLM stand-in, nothing is decoded", flush=True)
engine = Path(said["engine_dir"])
ranks = json.loads((engine / "config.json").read_text())["pretrained_config"]["mapping"]
assert all((engine / f"rank{n}.engine").is_file() for n in range(ranks["world_size"]))
assert ranks["world_size"] == int(os.environ.get("STANDIN_RANKS", "1")), "mpirun: another world"
if os.environ.get("STANDIN_FAIL") == "run.py":
    print("run.py: engine plan cannot be deserialised (asked for by the test)", flush=True)
    sys.exit(3)
if os.environ.get("STANDIN_PAUSE") == "run.py":
    Path(os.environ["STANDIN_PAUSED"]).touch()
    time.sleep(300)
tokenizer = Tokenizer.from_file(str(Path(said["tokenizer_dir"]) / "tokenizer.json"))
prompt = tokenizer.encode(said["input_text"][0], add_special_tokens=False).ids
step = int(os.environ.get("STANDIN_DECODES", "1"))
decoded = [step] * said["max_output_len"]
Path(said["output_csv"]).write_text(",".join(map(str, [*prompt, *decoded])) + "\n")
