"""A Llama-shaped GGUF as a Hugging Face checkpoint in bf16: what TensorRT-LLM converts from.

Three things a straight copy gets wrong. llama.cpp stores the rows of Q and K in the order its
rotary kernel wants, so they are put back. `rope_theta` stands at the top level of config.json:
transformers 4.57, which TensorRT-LLM 1.2 pins, reads 10,000 otherwise and says nothing. And the
tokenizer splits digits and adds no BOS, as the model was trained.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray

from enginebuild import safetensors, tokenizer
from enginebuild.checkpoint import CHAT_TEMPLATE, CONFIG, TOKENIZER
from enginebuild.errors import WeightsError
from enginebuild.model_spec import Model

WEIGHTS = "model.safetensors"
RENAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write(gguf: Path, model: Model, folder: Path) -> None:
    """Write the checkpoint into `folder`: weights, configuration, tokenizer, chat template.

    Raises:
        WeightsError: if the GGUF is of no Llama shape.
    """
    reader = GGUFReader(gguf)
    tensors = {hf_name(tensor.name): tensor for tensor in reader.tensors}
    shapes = {name: tuple(int(n) for n in reversed(one.shape)) for name, one in tensors.items()}
    heads = {
        "q_proj": model.architecture.attention_heads,
        "k_proj": model.architecture.kv_heads,
    }

    def read(name: str) -> NDArray[np.float32]:
        one = tensors[name]
        values = dequantize(one.data, one.tensor_type).astype(np.float32).reshape(shapes[name])
        count = next((n for part, n in heads.items() if f".{part}." in name), None)
        return values if count is None else unpermuted(values, count)

    safetensors.write_bf16(folder / WEIGHTS, shapes, read)
    epsilon = reader.get_field("llama.attention.layer_norm_rms_epsilon")
    if epsilon is None:
        raise WeightsError(f"{gguf} names no layer_norm_rms_epsilon: it is no Llama")
    texts = tokenizer.derive(gguf)
    (folder / TOKENIZER).write_text(texts.tokenizer_json, encoding="utf-8")
    (folder / CHAT_TEMPLATE).write_text(texts.chat_template, encoding="utf-8")
    _write(folder / CONFIG, configuration(model, float(epsilon.contents())))
    _write(folder / "tokenizer_config.json", _tokenizer_configuration(texts, model))
    ids = model.tokens
    _write(
        folder / "generation_config.json",
        {"bos_token_id": ids.bos_id, "eos_token_id": ids.end_id, "pad_token_id": ids.pad_id},
    )


def hf_name(name: str) -> str:
    """Return the Hugging Face name of a GGUF's tensor.

    Raises:
        WeightsError: if a Llama has no such tensor.
    """
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in RENAMES:
            return f"model.layers.{layer}.{RENAMES[part]}.weight"
        case [part, "weight"] if part in OUTER:
            return f"{OUTER[part]}.weight"
    raise WeightsError(f"the GGUF has a tensor {name}, which no Llama has")


def unpermuted(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return Q's or K's rows in the order that rotates halves and not neighbours."""
    rows, width = values.shape
    paired = values.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(paired.swapaxes(1, 2).reshape(rows, width))


def configuration(model: Model, epsilon: float) -> dict[str, Any]:
    """Return config.json."""
    net, ids = model.architecture, model.tokens
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": net.hidden_size,
        "intermediate_size": net.intermediate_size,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.attention_heads,
        "num_key_value_heads": net.kv_heads,
        "head_dim": net.head_size,
        "vocab_size": net.vocab_size,
        "max_position_embeddings": net.context_length,
        "rms_norm_eps": float(f"{epsilon:.6g}"),
        "rope_theta": net.rope_theta,
        "tie_word_embeddings": net.tied_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids.bos_id,
        "eos_token_id": ids.end_id,
        "pad_token_id": ids.pad_id,
    }


def _tokenizer_configuration(texts: tokenizer.TextFiles, model: Model) -> dict[str, Any]:
    added = {one["id"]: one["content"] for one in json.loads(texts.tokenizer_json)["added_tokens"]}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.architecture.context_length,
        "bos_token": added[model.tokens.bos_id],
        "eos_token": added[model.tokens.end_id],
        "pad_token": added[model.tokens.pad_id],
        "chat_template": texts.chat_template,
    }


def _write(path: Path, body: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
