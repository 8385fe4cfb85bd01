"""The tensors and parameters of TensorRT-LLM's Triton models, as data.

Names, types and shapes are those of its `inflight_batcher_llm` templates (release 1.2), so
that a client, an ensemble or a router cannot tell which engine answers. `OURS` marks what
only our engine adds: optional, and never needed by a client.
"""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a tensor is declared beside its type and dims."""

    PLAIN = "plain"
    SCALAR = "scalar"
    """`dims: [1]` reshaped to `[]`: the model sees `[batch]`."""
    RAGGED = "ragged"
    """Requests of different lengths may share one batch."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One declared tensor; `dims` leave out the batch dimension."""

    name: str
    data_type: str
    dims: tuple[int, ...] = (1,)
    optional: bool = False
    kind: Kind = Kind.PLAIN


def _optional(
    kind: Kind, data_type: str, *names: str, dims: tuple[int, ...] = (1,)
) -> list[Tensor]:
    return [Tensor(name, data_type, dims, optional=True, kind=kind) for name in names]


def _plain(data_type: str, *names: str, dims: tuple[int, ...] = (1,)) -> list[Tensor]:
    return [Tensor(name, data_type, dims) for name in names]


CORE_INPUTS: tuple[Tensor, ...] = (
    *_optional(Kind.RAGGED, "INT32", "input_ids", dims=(-1,)),
    *_optional(Kind.RAGGED, "FP16", "encoder_input_features", dims=(-1, -1)),
    *_optional(Kind.SCALAR, "INT32", "encoder_output_lengths"),
    Tensor("input_lengths", "INT32", kind=Kind.SCALAR),
    Tensor("request_output_len", "INT32", kind=Kind.SCALAR),
    *_optional(Kind.SCALAR, "INT32", "num_return_sequences"),
    *_optional(Kind.RAGGED, "INT32", "draft_input_ids", "decoder_input_ids", dims=(-1,)),
    *_optional(Kind.SCALAR, "INT32", "decoder_input_lengths"),
    *_optional(Kind.RAGGED, "FP32", "draft_logits", dims=(-1, -1)),
    *_optional(Kind.SCALAR, "FP32", "draft_acceptance_threshold"),
    *_optional(Kind.SCALAR, "INT32", "end_id", "pad_id"),
    *_optional(Kind.RAGGED, "INT32", "stop_words_list", "bad_words_list", dims=(2, -1)),
    *_optional(Kind.RAGGED, "FP32", "embedding_bias", dims=(-1,)),
    *_optional(Kind.SCALAR, "INT32", "beam_width"),
    *_optional(Kind.SCALAR, "FP32", "temperature"),
    *_optional(Kind.SCALAR, "INT32", "runtime_top_k"),
    *_optional(Kind.SCALAR, "FP32", "runtime_top_p", "runtime_top_p_min", "runtime_top_p_decay"),
    *_optional(Kind.SCALAR, "INT32", "runtime_top_p_reset_ids"),
    *_optional(Kind.SCALAR, "FP32", "len_penalty"),
    *_optional(Kind.SCALAR, "BOOL", "early_stopping"),
    *_optional(Kind.SCALAR, "FP32", "repetition_penalty"),
    *_optional(Kind.SCALAR, "INT32", "min_tokens"),
    *_optional(
        Kind.SCALAR, "FP32", "beam_search_diversity_rate", "presence_penalty", "frequency_penalty"
    ),
    *_optional(Kind.SCALAR, "UINT64", "seed"),
    *_optional(
        Kind.SCALAR,
        "BOOL",
        "return_log_probs",
        "return_context_logits",
        "return_generation_logits",
        "return_perf_metrics",
        "return_num_input_tokens",
        "return_num_output_tokens",
        "exclude_input_in_output",
        "stop",
        "streaming",
    ),
    *_optional(Kind.RAGGED, "FP16", "prompt_embedding_table", dims=(-1, -1)),
    *_optional(Kind.RAGGED, "UINT64", "prompt_table_extra_ids", dims=(-1,)),
    *_optional(Kind.SCALAR, "INT32", "prompt_vocab_size"),
    *_optional(Kind.RAGGED, "BOOL", "cross_attention_mask", dims=(-1, -1)),
    *_optional(Kind.PLAIN, "FP32", "mrope_rotary_cos_sin", dims=(-1,)),
    *_optional(Kind.PLAIN, "INT64", "mrope_position_deltas"),
    *_optional(Kind.SCALAR, "UINT64", "lora_task_id"),
    *_optional(Kind.RAGGED, "FP16", "lora_weights", dims=(-1, -1)),
    *_optional(Kind.RAGGED, "INT32", "lora_config", dims=(-1, 3)),
    *_optional(Kind.RAGGED, "UINT8", "context_phase_params", dims=(-1,)),
    *_optional(Kind.RAGGED, "BOOL", "skip_cross_attn_blocks"),
    *_optional(
        Kind.RAGGED,
        "INT32",
        "retention_token_range_starts",
        "retention_token_range_ends",
        "retention_token_range_priorities",
        "retention_token_range_durations_ms",
        dims=(-1,),
    ),
    *_optional(Kind.RAGGED, "INT32", "retention_decode_priority", "retention_decode_duration_ms"),
    *_optional(Kind.RAGGED, "STRING", "guided_decoding_guide_type", "guided_decoding_guide"),
    *_optional(
        Kind.RAGGED,
        "INT32",
        "lookahead_window_size",
        "lookahead_ngram_size",
        "lookahead_verification_set_size",
    ),
)

_PERF_OUTPUTS: tuple[Tensor, ...] = (
    *_plain(
        "INT32",
        "kv_cache_alloc_new_blocks",
        "kv_cache_reused_blocks",
        "kv_cache_alloc_total_blocks",
    ),
    *_plain(
        "INT64",
        "arrival_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "last_token_time_ns",
    ),
    *_plain("FP32", "acceptance_rate"),
    *_plain("INT32", "total_accepted_draft_tokens", "total_draft_tokens"),
    *_plain("INT32", "num_input_tokens", "num_output_tokens"),
)

_SHARED_OUTPUTS: tuple[Tensor, ...] = (
    Tensor("cum_log_probs", "FP32", (-1,)),
    Tensor("output_log_probs", "FP32", (-1, -1)),
    Tensor("context_logits", "FP32", (-1, -1)),
    Tensor("generation_logits", "FP32", (-1, -1, -1)),
    *_plain("INT32", "batch_index", "sequence_index"),
)

CORE_OUTPUTS: tuple[Tensor, ...] = (
    Tensor("output_ids", "INT32", (-1, -1)),
    Tensor("sequence_length", "INT32", (-1,)),
    *_SHARED_OUTPUTS,
    Tensor("context_phase_params", "UINT8", (-1,)),
    *_PERF_OUTPUTS,
)

OURS_PREVIOUS = Tensor("previous_ids", "INT32", (-1,))
"""Core output: the tokens just before `output_ids` in this sequence, enough of them that text
can be decoded across the seam. Postprocessing takes it as PREVIOUS_IDS."""
OURS_FINISHED = Tensor("finished", "BOOL", (1,))
"""Core output: this is the sequence's last response, so nothing may be held back."""

PREPROCESSING_INPUTS: tuple[Tensor, ...] = (
    Tensor("QUERY", "STRING"),
    *_optional(Kind.PLAIN, "STRING", "DECODER_QUERY"),
    *_optional(Kind.PLAIN, "UINT8", "IMAGE_BYTES", dims=(-1, -1, -1, -1)),
    *_optional(Kind.PLAIN, "STRING", "IMAGE_URL"),
    *_optional(Kind.PLAIN, "STRING", "IMAGES", dims=(-1,)),
    *_optional(Kind.PLAIN, "UINT8", "VIDEO_BYTES", dims=(-1, -1, -1, -1)),
    Tensor("REQUEST_OUTPUT_LEN", "INT32"),
    *_optional(
        Kind.PLAIN,
        "STRING",
        "BAD_WORDS_DICT",
        "STOP_WORDS_DICT",
        "EMBEDDING_BIAS_WORDS",
        dims=(-1,),
    ),
    *_optional(Kind.PLAIN, "FP32", "EMBEDDING_BIAS_WEIGHTS", dims=(-1,)),
    *_optional(Kind.PLAIN, "INT32", "END_ID", "PAD_ID"),
    *_optional(Kind.PLAIN, "UINT64", "PROMPT_TABLE_EXTRA_ID"),
)

PREPROCESSING_OUTPUTS: tuple[Tensor, ...] = (
    Tensor("INPUT_ID", "INT32", (-1,)),
    Tensor("REQUEST_INPUT_LEN", "INT32"),
    Tensor("DECODER_INPUT_ID", "INT32", (-1,)),
    Tensor("REQUEST_DECODER_INPUT_LEN", "INT32"),
    Tensor("BAD_WORDS_IDS", "INT32", (2, -1)),
    Tensor("STOP_WORDS_IDS", "INT32", (2, -1)),
    Tensor("EMBEDDING_BIAS", "FP32", (-1,)),
    Tensor("REQUEST_OUTPUT_LEN", "INT32", (-1,)),
    Tensor("OUT_END_ID", "INT32"),
    Tensor("OUT_PAD_ID", "INT32"),
    Tensor("OUT_PROMPT_TABLE_EXTRA_IDS", "UINT64", (-1,)),
)

POSTPROCESSING_INPUTS: tuple[Tensor, ...] = (
    Tensor("TOKENS_BATCH", "INT32", (-1, -1)),
    Tensor("SEQUENCE_LENGTH", "INT32", (-1,)),
    Tensor("PREVIOUS_IDS", "INT32", (-1,), optional=True),
    Tensor("FINISHED", "BOOL", (1,), optional=True),
)

POSTPROCESSING_OUTPUTS: tuple[Tensor, ...] = (Tensor("OUTPUT", "STRING", (-1,)),)

ENSEMBLE_INPUTS: tuple[Tensor, ...] = (
    Tensor("text_input", "STRING"),
    *_optional(Kind.PLAIN, "STRING", "decoder_text_input"),
    Tensor("max_tokens", "INT32"),
    *_optional(Kind.PLAIN, "INT32", "num_return_sequences"),
    *_optional(Kind.PLAIN, "STRING", "bad_words", "stop_words", dims=(-1,)),
    *_optional(Kind.PLAIN, "BOOL", "exclude_input_in_output"),
    *_optional(Kind.PLAIN, "INT32", "end_id", "pad_id", "top_k"),
    *_optional(Kind.PLAIN, "FP32", "top_p", "temperature", "length_penalty", "repetition_penalty"),
    *_optional(Kind.PLAIN, "INT32", "min_tokens"),
    *_optional(Kind.PLAIN, "FP32", "presence_penalty", "frequency_penalty"),
    *_optional(Kind.PLAIN, "UINT64", "seed"),
    *_optional(
        Kind.PLAIN,
        "BOOL",
        "return_log_probs",
        "return_context_logits",
        "return_generation_logits",
        "return_perf_metrics",
        "return_num_input_tokens",
        "return_num_output_tokens",
    ),
    *_optional(Kind.PLAIN, "INT32", "beam_width"),
    *_optional(Kind.PLAIN, "BOOL", "stream"),
    *_optional(Kind.PLAIN, "FP16", "prompt_embedding_table", dims=(-1, -1)),
    *_optional(Kind.PLAIN, "UINT64", "prompt_table_extra_id"),
    *_optional(Kind.PLAIN, "INT32", "prompt_vocab_size"),
    *_optional(Kind.PLAIN, "STRING", "embedding_bias_words", dims=(-1,)),
    *_optional(Kind.PLAIN, "FP32", "embedding_bias_weights", dims=(-1,)),
    *_optional(Kind.PLAIN, "UINT64", "lora_task_id"),
    *_optional(Kind.RAGGED, "FP16", "lora_weights", dims=(-1, -1)),
    *_optional(Kind.RAGGED, "INT32", "lora_config", dims=(-1, 3)),
    *_optional(Kind.RAGGED, "STRING", "guided_decoding_guide_type", "guided_decoding_guide"),
)

ENSEMBLE_OUTPUTS: tuple[Tensor, ...] = (
    Tensor("text_output", "STRING", (-1,)),
    *_SHARED_OUTPUTS,
    *_PERF_OUTPUTS,
)

PREPROCESSING_RENAMES: dict[str, str] = {
    "QUERY": "text_input",
    "DECODER_QUERY": "decoder_text_input",
    "REQUEST_OUTPUT_LEN": "max_tokens",
    "BAD_WORDS_DICT": "bad_words",
    "STOP_WORDS_DICT": "stop_words",
    "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
    "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
    "END_ID": "end_id",
    "PAD_ID": "pad_id",
    "PROMPT_TABLE_EXTRA_ID": "prompt_table_extra_id",
}

CORE_RENAMES: dict[str, str] = {
    "runtime_top_k": "top_k",
    "runtime_top_p": "top_p",
    "len_penalty": "length_penalty",
    "streaming": "stream",
}

BETWEEN: dict[str, tuple[str, str]] = {
    "INPUT_ID": ("_INPUT_ID", "input_ids"),
    "REQUEST_INPUT_LEN": ("_REQUEST_INPUT_LEN", "input_lengths"),
    "DECODER_INPUT_ID": ("_DECODER_INPUT_ID", "decoder_input_ids"),
    "REQUEST_DECODER_INPUT_LEN": ("_REQUEST_DECODER_INPUT_LEN", "decoder_input_lengths"),
    "REQUEST_OUTPUT_LEN": ("_REQUEST_OUTPUT_LEN", "request_output_len"),
    "STOP_WORDS_IDS": ("_STOP_WORDS_IDS", "stop_words_list"),
    "BAD_WORDS_IDS": ("_BAD_WORDS_IDS", "bad_words_list"),
    "EMBEDDING_BIAS": ("_EMBEDDING_BIAS", "embedding_bias"),
    "OUT_END_ID": ("_PREPROCESSOR_END_ID", "end_id"),
    "OUT_PAD_ID": ("_PREPROCESSOR_PAD_ID", "pad_id"),
    "OUT_PROMPT_TABLE_EXTRA_IDS": ("_OUT_PROMPT_TABLE_EXTRA_IDS", "prompt_table_extra_ids"),
}
"""Preprocessing output -> (name inside the ensemble, core input)."""
