"""A Llama in numpy, straight from a Hugging Face checkpoint: the reference for what was written."""

import json
from pathlib import Path

import numpy as np


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a bf16 safetensors file as float32."""
    raw = np.fromfile(path, np.uint8)
    length = int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8 : 8 + length].tobytes())
    header.pop("__metadata__")
    found = {}
    for name, said in header.items():
        begin, end = (8 + length + offset for offset in said["data_offsets"])
        bits = raw[begin:end].view(np.uint16).astype(np.uint32) << np.uint32(16)
        found[name] = bits.view(np.float32).reshape(said["shape"])
    return found


class Llama:
    """The network of `config.json` over the weights beside it."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = tensors(folder / "model.safetensors")
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config["num_key_value_heads"]
        self.size = self.config["head_dim"]
        halves = np.arange(0, self.size, 2, dtype=np.float64) / self.size
        self.frequencies = 1.0 / self.config["rope_theta"] ** halves

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """Return the most likely continuation."""
        cache = self._cache()
        tokens, fresh, at = [], list(ids), 0
        for _ in range(count):
            logits = self._logits(fresh, at, cache, 1)
            at += len(fresh)
            fresh = [int(logits[0].argmax())]
            tokens += fresh
        return tokens

    def behind(self, ids: list[int], tokens: list[int]) -> np.ndarray:
        """Return the logits `[tokens, vocabulary]` from which each of `tokens` would be chosen."""
        return self._logits([*ids, *tokens[:-1]], 0, self._cache(), len(tokens))

    def _cache(self) -> list[list[np.ndarray]]:
        return [[] for _ in range(2 * self.config["num_hidden_layers"])]

    def _logits(
        self, ids: list[int], at: int, cache: list[list[np.ndarray]], last: int
    ) -> np.ndarray:
        """Return the logits after each of the last tokens of `ids`."""
        x = self.weights["model.embed_tokens.weight"][ids]
        angles = np.outer(np.arange(at, at + len(ids)), self.frequencies)
        turn = (
            np.cos(angles)[:, None].astype(np.float32),
            np.sin(angles)[:, None].astype(np.float32),
        )
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = x + self._attention(
                name, self._norm(x, name + "input_layernorm"), turn, cache, layer
            )
            y = self._norm(x, name + "post_attention_layernorm")
            gate = self._times(y, name + "mlp.gate_proj")
            y = gate / (1 + np.exp(-gate)) * self._times(y, name + "mlp.up_proj")
            x = x + self._times(y, name + "mlp.down_proj")
        kept = self._norm(x[-last:], "model.norm")
        return kept @ self.weights["model.embed_tokens.weight"].T

    def _attention(self, name, x, turn, cache, layer):
        def split(part, heads):
            return self._times(x, f"{name}self_attn.{part}").reshape(len(x), heads, self.size)

        q, k = (
            _turned(split(p, n), turn)
            for p, n in (("q_proj", self.heads), ("k_proj", self.kv_heads))
        )
        for kept, new in zip(
            cache[2 * layer : 2 * layer + 2], (k, split("v_proj", self.kv_heads)), strict=True
        ):
            kept.append(new)
        keys, values = (
            np.repeat(np.concatenate(kept), self.heads // self.kv_heads, axis=1)
            for kept in cache[2 * layer : 2 * layer + 2]
        )
        scores = np.einsum("qhd,khd->hqk", q, keys) / np.sqrt(self.size)
        ahead = np.triu(np.ones((len(q), len(keys)), bool), len(keys) - len(q) + 1)
        scores = np.where(ahead, -np.inf, scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), values)
        return self._times(mixed.reshape(len(x), -1).astype(np.float32), f"{name}self_attn.o_proj")

    def _times(self, x, name):
        return x @ self.weights[f"{name}.weight"].T

    def _norm(self, x, name):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return (x / scale * self.weights[f"{name}.weight"]).astype(np.float32)


def _turned(x, turn):
    """Rotate halves, as Hugging Face's Llama does."""
    cosine, sine = turn
    left, right = np.split(x, 2, axis=-1)
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)
