"""Imports the Python of a Triton model as Triton does: its version directory first on the path."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def of(model: str, name: str) -> ModuleType:
    """Return a module of a model's version 1; the path is as it was afterwards."""
    folder = str(REPOSITORY / model / "1")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)
