"""OpenVINO GenAI's continuous batching behind the few calls the batcher makes.

The only module that knows OpenVINO. A `Handle` is one request inside the pipeline; dropping
it would cancel it, so it lives exactly as long as the request does.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from generation import Generation, Limits
from guides import GuideKind
from stepping import Decoded

RUNNING = genai.GenerationStatus.RUNNING
WARM_UP_TOKENS = 160
UNFINISHED = genai.GenerationFinishReason.NONE


@dataclass(frozen=True, slots=True)
class EngineFile:
    """What `engine.json` says: the engine's files, limits and OpenVINO's properties."""

    folder: Path
    weights: str
    tokenizer: str
    limits: Limits
    max_num_tokens: int
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Handle:
    """A request inside the pipeline."""

    handle: Any

    def decoded(self) -> Iterator[Decoded]:
        """Yield what has been decoded since the last call, in order."""
        while self.handle.can_read():
            for sequence, output in self.handle.read().items():
                yield Decoded(
                    sequence=sequence,
                    tokens=output.generated_ids,
                    log_probs=output.generated_log_probs,
                    last=output.finish_reason != UNFINISHED,
                )

    def over(self) -> bool:
        """Return whether the pipeline has stopped working on it, for whatever reason."""
        return bool(self.handle.get_status() != RUNNING)

    def cancel(self) -> None:
        """Ask the pipeline to drop it at its next step."""
        self.handle.cancel()


def read_engine(folder: Path) -> EngineFile:
    """Return what the engine's builder wrote for its runtime."""
    said = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    return EngineFile(
        folder=folder,
        weights=said["weights"],
        tokenizer=said["tokenizer"],
        limits=Limits(
            max_batch_size=said["max_batch_size"],
            max_queue_size=said["max_queue_size"],
            max_input_len=said["max_input_len"],
            max_seq_len=said["max_seq_len"],
            vocab_size=said["vocab_size"],
            tokens_per_block=said["tokens_per_block"],
            kv_blocks=said["kv_blocks"],
            end_id=said["end_id"],
        ),
        max_num_tokens=said["max_num_tokens"],
        properties=said["properties"],
    )


class Pipeline:
    """The engine itself. Not for several threads: `step` holds Python's global lock throughout."""

    def __init__(self, engine: EngineFile) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 0
        scheduler.num_kv_blocks = engine.limits.kv_blocks
        scheduler.max_num_seqs = engine.limits.max_batch_size
        scheduler.max_num_batched_tokens = engine.max_num_tokens
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": _threads(), **engine.properties}
        self._inner = genai.ContinuousBatchingPipeline(
            str(engine.folder / engine.weights), scheduler, "CPU", properties
        )
        self._kv_blocks = engine.limits.kv_blocks
        self._warm_up()

    def add(self, key: int, asked: Generation, guide: str | None) -> Handle:
        """Put a request in; it joins the batch at the next step.

        Raises:
            RuntimeError: if OpenVINO refuses its parameters.
        """
        ids = ov.Tensor(np.ascontiguousarray(asked.prompt[np.newaxis, :]))
        return Handle(self._inner.add_request(key, ids, _config(asked, guide)))

    def _warm_up(self) -> None:
        """Decode a little, so that the first client does not wait for kernels to be made."""
        ids = ov.Tensor(np.arange(WARM_UP_TOKENS, dtype=np.int64)[np.newaxis, :])
        config = genai.GenerationConfig(
            apply_chat_template=False, max_new_tokens=4, ignore_eos=True
        )
        handle = self._inner.add_request(0, ids, config)
        while self.busy():
            self.step()
        del handle

    def step(self) -> None:
        """Decode one token of every running sequence, and a chunk of every waiting prompt."""
        self._inner.step()

    def busy(self) -> bool:
        """Return whether a step would do anything."""
        return bool(self._inner.has_non_finished_requests())

    def scheduled(self) -> int:
        """Return how many requests the last step worked on."""
        return int(self._inner.get_metrics().scheduled_requests)

    def used_blocks(self) -> int:
        """Return how many cache blocks the last step's sequences held."""
        percent = float(self._inner.get_metrics().cache_usage)
        return round(percent / 100 * self._kv_blocks)


def _threads() -> int:
    """Return the cores this process may use: OpenVINO would count the machine's."""
    return len(os.sched_getaffinity(0))


def _config(asked: Generation, guide: str | None) -> Any:
    sampling = asked.sampling
    config = genai.GenerationConfig(
        apply_chat_template=False,
        max_new_tokens=asked.max_tokens,
        min_new_tokens=sampling.min_tokens,
        num_return_sequences=asked.sequences,
        do_sample=sampling.sample,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logprobs=1 if asked.wanted.log_probs else 0,
    )
    if asked.end_id < 0:
        config.ignore_eos = True
    else:
        config.set_eos_token_id(asked.end_id)
    if sampling.sample:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k:
            config.top_k = sampling.top_k
        config.rng_seed = _seed(sampling.seed)
    if asked.guide is not None and guide is not None:
        config.structured_output_config = _structured(asked.guide.kind, guide)
    return config


def _seed(asked: int | None) -> int:
    """Return a seed of 32 bits, which is all that OpenVINO's generator takes in."""
    if asked is None:
        return int.from_bytes(os.urandom(4), "big")
    return (asked ^ asked >> 32) & 0xFFFFFFFF


def _structured(kind: GuideKind, guide: str) -> Any:
    if kind in {GuideKind.JSON, GuideKind.JSON_SCHEMA}:
        return genai.StructuredOutputConfig(json_schema=guide)
    if kind is GuideKind.REGEX:
        return genai.StructuredOutputConfig(regex=guide)
    if kind is GuideKind.EBNF:
        return genai.StructuredOutputConfig(grammar=guide)
    return genai.StructuredOutputConfig(structural_tags_config=guide)
