"""Forebay: SLO-aware routing in front of TensorRT-LLM engines in Triton."""

__version__ = "0.1.0"
