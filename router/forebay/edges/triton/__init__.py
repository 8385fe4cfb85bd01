"""Triton as an `Engine`: prompts become ids here, ids become text here.

The router calls the model `tensorrt_llm` itself and not the `ensemble`, because a cancelled
call does not reach the engine through an ensemble: it would decode on for nobody.
"""

from forebay.edges.triton.engine import CHANNEL_OPTIONS, TritonEngine
from forebay.edges.triton.files import EngineFiles
from forebay.edges.triton.identity import Identity
from forebay.edges.triton.prompts import Prompts
from forebay.edges.triton.replicated import ReplicatedEngine

__all__ = [
    "CHANNEL_OPTIONS",
    "EngineFiles",
    "Identity",
    "Prompts",
    "ReplicatedEngine",
    "TritonEngine",
]
