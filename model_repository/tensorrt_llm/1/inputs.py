"""What a request may say to this engine, and what it may not.

`HONOURED` and `REFUSED` together name every input of the model's config. A tensor the engine
cannot honour is refused by its name, never ignored; an empty tensor, or one that holds the
value that changes nothing, counts as absent, because upstream's own preprocessing sends those.
Nothing here imports Triton or OpenVINO: arrays in, a value or a sentence out.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from generation import Generation, Limits, Sampling, Stop, Wanted
from guides import Guide, GuideRefusedError, guide_of
from numpy.typing import NDArray
from words import words_of

GREEDY_TEMPERATURE = 1e-3
"""Below this, dividing logits by the temperature overflows; the limit is the argmax."""
MAX_WORDS_TOKENS = 1024

HONOURED = frozenset(
    {
        "input_ids", "input_lengths", "request_output_len", "num_return_sequences",
        "end_id", "pad_id", "stop_words_list", "bad_words_list", "temperature",
        "runtime_top_k", "runtime_top_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty", "min_tokens", "seed", "return_log_probs", "return_perf_metrics",
        "return_num_input_tokens", "return_num_output_tokens", "exclude_input_in_output",
        "stop", "streaming", "guided_decoding_guide_type", "guided_decoding_guide",
    }
)  # fmt: skip

_ONE_BEAM = "it decodes one beam"
_NO_LORA = "it holds no LoRA adapters"
_NO_DRAFT = "it has no speculative decoding"
_DECODER_ONLY = "its model has a decoder only"
_TEXT_ONLY = "its model reads token ids only"
_FIXED_TOP_P = "its top-p does not change from token to token"
_NO_LOGITS = "it returns no logits"
_NO_RETENTION = "its KV cache has no retention priorities"

REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "encoder_input_features": ((), _DECODER_ONLY),
    "encoder_output_lengths": ((0,), _DECODER_ONLY),
    "decoder_input_ids": ((), _DECODER_ONLY),
    "decoder_input_lengths": ((0,), _DECODER_ONLY),
    "cross_attention_mask": ((), _DECODER_ONLY),
    "skip_cross_attn_blocks": ((False,), _DECODER_ONLY),
    "draft_input_ids": ((), _NO_DRAFT),
    "draft_logits": ((), _NO_DRAFT),
    "draft_acceptance_threshold": ((), _NO_DRAFT),
    "lookahead_window_size": ((), _NO_DRAFT),
    "lookahead_ngram_size": ((), _NO_DRAFT),
    "lookahead_verification_set_size": ((), _NO_DRAFT),
    "embedding_bias": ((), "it has no logit bias"),
    "beam_width": ((0, 1), _ONE_BEAM),
    "len_penalty": ((0.0, 1.0), _ONE_BEAM),
    "early_stopping": ((False,), _ONE_BEAM),
    "beam_search_diversity_rate": ((0.0,), _ONE_BEAM),
    "runtime_top_p_min": ((), _FIXED_TOP_P),
    "runtime_top_p_decay": ((1.0,), _FIXED_TOP_P),
    "runtime_top_p_reset_ids": ((-1,), _FIXED_TOP_P),
    "return_context_logits": ((False,), _NO_LOGITS),
    "return_generation_logits": ((False,), _NO_LOGITS),
    "prompt_embedding_table": ((), _TEXT_ONLY),
    "prompt_table_extra_ids": ((), _TEXT_ONLY),
    "prompt_vocab_size": ((0,), _TEXT_ONLY),
    "mrope_rotary_cos_sin": ((), _TEXT_ONLY),
    "mrope_position_deltas": ((), _TEXT_ONLY),
    "lora_task_id": ((), _NO_LORA),
    "lora_weights": ((), _NO_LORA),
    "lora_config": ((), _NO_LORA),
    "context_phase_params": ((), "it computes context and generation in one place"),
    "retention_token_range_starts": ((), _NO_RETENTION),
    "retention_token_range_ends": ((), _NO_RETENTION),
    "retention_token_range_priorities": ((), _NO_RETENTION),
    "retention_token_range_durations_ms": ((), _NO_RETENTION),
    "retention_decode_priority": ((), _NO_RETENTION),
    "retention_decode_duration_ms": ((), _NO_RETENTION),
}
"""Input -> (values that change nothing, why another value is refused)."""


class InvalidRequestError(Exception):
    """The request cannot be served as it stands; the text is the sentence for its sender."""


def parse(
    tensors: Mapping[str, NDArray[Any]], limits: Limits, *, prompt_in_output: bool
) -> Generation | Stop:
    """Return what is asked for.

    Args:
        tensors: The inputs that were sent, by name.
        limits: What the engine accepts.
        prompt_in_output: The model's own setting, for requests that do not say.

    Raises:
        InvalidRequestError: naming the first tensor that cannot be honoured.
    """
    sent = {name: array for name, array in tensors.items() if array.size}
    if _flag(sent, "stop"):
        return Stop()
    _refuse_unsupported(sent)
    prompt, max_tokens = _lengths(sent, limits)
    sampling = _sampling(sent, max_tokens, limits)
    sequences = _sequences(sent, sampling, limits)
    blocks = sequences * limits.blocks_of(prompt.size + max_tokens)
    if blocks > limits.kv_blocks:
        raise InvalidRequestError(
            f"{sequences} sequences of {prompt.size + max_tokens} tokens need {blocks} KV cache "
            f"blocks; this engine has {limits.kv_blocks}"
        )
    end_id = _end_id(sent, limits)
    bad_words = _words(sent, "bad_words_list", limits)
    guide = _guide(sent, bad_words)
    if guide is not None and end_id < 0:
        raise InvalidRequestError("a guided or word-filtered answer needs an end_id to end with")
    return Generation(
        prompt=prompt,
        max_tokens=max_tokens,
        sequences=sequences,
        end_id=end_id,
        sampling=sampling,
        stop_words=_words(sent, "stop_words_list", limits),
        guide=guide,
        wanted=Wanted(
            streaming=_flag(sent, "streaming"),
            prompt_in_output=not _flag(
                sent, "exclude_input_in_output", default=not prompt_in_output
            ),
            log_probs=_flag(sent, "return_log_probs"),
            perf_metrics=_flag(sent, "return_perf_metrics"),
            input_tokens=_flag(sent, "return_num_input_tokens"),
            output_tokens=_flag(sent, "return_num_output_tokens"),
        ),
        kv_blocks=blocks,
    )


def _refuse_unsupported(sent: Mapping[str, NDArray[Any]]) -> None:
    for name, array in sent.items():
        if name in HONOURED:
            continue
        if name not in REFUSED:
            raise InvalidRequestError(f"this engine does not know the input {name}")
        neutral, why = REFUSED[name]
        if not all(value in neutral for value in array.ravel().tolist()):
            raise InvalidRequestError(f"{name} is not supported by this engine: {why}")


def _lengths(sent: Mapping[str, NDArray[Any]], limits: Limits) -> tuple[NDArray[np.int64], int]:
    if "input_ids" not in sent:
        raise InvalidRequestError("input_ids is missing or empty; send at least one token")
    if sent["input_ids"].ndim > 1 and sent["input_ids"].shape[0] != 1:
        raise InvalidRequestError("input_ids holds several prompts; send one request for each")
    ids = sent["input_ids"].ravel().astype(np.int64)
    stated = _integer(sent, "input_lengths", ids.size)
    if not 0 < stated <= ids.size:
        raise InvalidRequestError(
            f"input_lengths {stated} does not fit input_ids of {ids.size} tokens"
        )
    ids = ids[:stated]
    if ids.min() < 0 or ids.max() >= limits.vocab_size:
        raise InvalidRequestError(f"input_ids holds a token outside 0..{limits.vocab_size - 1}")
    max_tokens = _integer(sent, "request_output_len", 0)
    if max_tokens < 1:
        raise InvalidRequestError(f"request_output_len {max_tokens} must be at least 1")
    if ids.size > limits.max_input_len:
        raise InvalidRequestError(
            f"the prompt has {ids.size} tokens; this engine takes at most {limits.max_input_len}"
        )
    if ids.size + max_tokens > limits.max_seq_len:
        raise InvalidRequestError(
            f"a prompt of {ids.size} tokens with request_output_len {max_tokens} exceeds this "
            f"engine's max_seq_len of {limits.max_seq_len}"
        )
    return ids, max_tokens


def _sampling(sent: Mapping[str, NDArray[Any]], max_tokens: int, limits: Limits) -> Sampling:
    temperature = _number(sent, "temperature", 1.0, 0.0, math.inf)
    top_k = _integer(sent, "runtime_top_k", 0)
    if top_k < 0:
        raise InvalidRequestError(f"runtime_top_k {top_k} must not be negative")
    top_p = _number(sent, "runtime_top_p", 0.0, 0.0, 1.0)
    min_tokens = _integer(sent, "min_tokens", 0)
    if not 0 <= min_tokens <= max_tokens:
        raise InvalidRequestError(
            f"min_tokens {min_tokens} must lie in 0..{max_tokens} (request_output_len)"
        )
    drawn = top_k > 1 or (top_k == 0 and top_p > 0.0)
    return Sampling(
        sample=drawn and temperature >= GREEDY_TEMPERATURE,
        temperature=temperature,
        top_k=min(top_k, limits.vocab_size),
        top_p=top_p or 1.0,
        seed=_integer(sent, "seed", 0) if "seed" in sent else None,
        repetition_penalty=_number(sent, "repetition_penalty", 1.0, 0.01, 100.0),
        presence_penalty=_number(sent, "presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=_number(sent, "frequency_penalty", 0.0, -2.0, 2.0),
        min_tokens=min_tokens,
    )


def _sequences(sent: Mapping[str, NDArray[Any]], sampling: Sampling, limits: Limits) -> int:
    count = _integer(sent, "num_return_sequences", 1)
    if not 1 <= count <= limits.max_batch_size:
        raise InvalidRequestError(
            f"num_return_sequences {count} must lie in 1..{limits.max_batch_size}"
        )
    if count > 1 and not sampling.sample:
        raise InvalidRequestError("num_return_sequences above 1 needs sampling: set runtime_top_p")
    return count


def _end_id(sent: Mapping[str, NDArray[Any]], limits: Limits) -> int:
    end_id = _integer(sent, "end_id", limits.end_id)
    if not -1 <= end_id < limits.vocab_size:
        raise InvalidRequestError(
            f"end_id {end_id} must be a token of this model, or -1 to run to request_output_len"
        )
    _integer(sent, "pad_id", 0)
    return end_id


def _guide(
    sent: Mapping[str, NDArray[Any]], bad_words: tuple[tuple[int, ...], ...]
) -> Guide | None:
    kind = _text(sent, "guided_decoding_guide_type")
    try:
        return guide_of(kind, _text(sent, "guided_decoding_guide"), bad_words)
    except GuideRefusedError as error:
        raise InvalidRequestError(str(error)) from error


def _words(
    sent: Mapping[str, NDArray[Any]], name: str, limits: Limits
) -> tuple[tuple[int, ...], ...]:
    if name not in sent:
        return ()
    array = sent[name]
    if array.shape[-2:-1] != (2,) or array.ndim > 3 or array.size > 2 * MAX_WORDS_TOKENS:  # noqa: PLR2004
        raise InvalidRequestError(
            f"{name} must have shape [2, n] with n at most {MAX_WORDS_TOKENS}: ids, then offsets"
        )
    try:
        return words_of(array.reshape(2, -1), limits.vocab_size)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: {error}") from error


def _one(sent: Mapping[str, NDArray[Any]], name: str) -> Any:
    if sent[name].size != 1:
        raise InvalidRequestError(f"{name} must hold one value, not {sent[name].size}")
    return sent[name].ravel()[0]


def _flag(sent: Mapping[str, NDArray[Any]], name: str, *, default: bool = False) -> bool:
    return bool(_one(sent, name)) if name in sent else default


def _integer(sent: Mapping[str, NDArray[Any]], name: str, default: int) -> int:
    return int(_one(sent, name)) if name in sent else default


def _number(
    sent: Mapping[str, NDArray[Any]], name: str, default: float, low: float, high: float
) -> float:
    value = float(_one(sent, name)) if name in sent else default
    if not math.isfinite(value) or not low <= round(value, 6) <= high:
        within = f"at least {low:g}" if math.isinf(high) else f"in {low:g}..{high:g}"
        raise InvalidRequestError(f"{name} {value:g} must be a number {within}")
    return value


def _text(sent: Mapping[str, NDArray[Any]], name: str) -> str | None:
    if name not in sent:
        return None
    raw = _one(sent, name)
    try:
        return raw.decode() if isinstance(raw, bytes) else str(raw)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name} is not UTF-8 text") from error
