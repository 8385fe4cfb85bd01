"""Stands for the trtllm-build command."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from standin import begin, digest

said = begin("trtllm-build")
source, out = Path(str(said["checkpoint_dir"])), Path(str(said["output_dir"]))
pretrained = json.loads((source / "config.json").read_text())
settings = {k: v for k, v in said.items() if k not in {"checkpoint_dir", "output_dir"}}
config = {"version": "1.2.1", "pretrained_config": pretrained, "build_config": settings}
(out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
for rank in range(pretrained["mapping"]["world_size"]):
    weights = (source / f"rank{rank}.safetensors").read_text()
    (out / f"rank{rank}.engine").write_text(digest(weights, settings))
