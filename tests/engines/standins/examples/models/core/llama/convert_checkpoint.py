"""Stands for examples/models/core/llama/convert_checkpoint.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from standin import checkpoint

checkpoint("convert_checkpoint.py")
