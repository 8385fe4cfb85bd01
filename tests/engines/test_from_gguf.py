"""The packaged weights as a Hugging Face checkpoint: same numbers, in the order it rotates."""

import json

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from enginebuild import checkpoint, from_gguf, safetensors
from enginebuild.spec import SPECS, load_model

pytestmark = pytest.mark.slow

MODEL = load_model("smollm2-135m-instruct")
WEIGHTS = SPECS.parent / "model_repository" / "tensorrt_llm" / "1" / "engine" / "model.gguf"


def read(path):
    """Return every tensor of a safetensors file as float32: a reader of our own."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    found = {}
    for name, said in header.items():
        begin, end = (8 + length + offset for offset in said["data_offsets"])
        bits = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << np.uint32(16)
        found[name] = bits.view(np.float32).reshape(said["shape"])
    assert end == len(raw)
    return found


def permuted(values, heads):
    """Return rows as llama.cpp stores them: its converter's own arithmetic."""
    rows, width = values.shape
    return values.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


@given(arrays.arrays(np.float32, 20, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
@settings(max_examples=200)
def test_bf16_is_the_nearest_and_ties_go_to_even(values):
    bits = safetensors.bf16(values)
    back = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    lower = values.view(np.uint32) & np.uint32(0xFFFF0000)
    upper = (lower + np.uint32(0x10000)).view(np.float32).astype(np.float64)
    nearest = np.minimum(
        abs(values.astype(np.float64) - lower.view(np.float32)), abs(upper - values)
    )
    assert (abs(values.astype(np.float64) - back) == nearest).all()
    assert safetensors.bf16(np.float32([1.00390625, 1.01171875])).tolist() == [0x3F80, 0x3F82]


def test_rows_are_put_back():
    values = np.arange(8 * 6, dtype=np.float32).reshape(8, 6)
    assert (from_gguf.unpermuted(permuted(values, 2), 2) == values).all()
    assert not (permuted(values, 2) == values).all()


def test_a_tensor_no_llama_has_is_named():
    with pytest.raises(Exception, match=r"blk\.0\.ssm_a\.weight, which no Llama has"):
        from_gguf.hf_name("blk.0.ssm_a.weight")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    if not WEIGHTS.is_file():
        pytest.skip("the embedded engine is not built: make up builds it")
    folder = tmp_path_factory.mktemp("checkpoint")
    from_gguf.write(WEIGHTS, MODEL, folder)
    return folder


def test_every_tensor_is_the_packaged_one_rounded_once(written):
    ours = read(written / "model.safetensors")
    packaged = gguf.GGUFReader(WEIGHTS).tensors
    assert len(ours) == len(packaged) == 272
    heads = {"attn_q": MODEL.architecture.attention_heads, "attn_k": MODEL.architecture.kv_heads}
    for one in packaged:
        theirs = gguf.dequantize(one.data, one.tensor_type).astype(np.float32)
        mine = ours[from_gguf.hf_name(one.name)]
        count = next((n for part, n in heads.items() if part in one.name), None)
        back = mine if count is None else permuted(mine, count)
        assert (abs(back - theirs) <= abs(theirs) / 256).all(), one.name


def test_the_checkpoint_is_the_models_and_its_configuration_is_flat(written):
    checkpoint.require(written, "smollm2-135m-instruct", MODEL)
    config = json.loads((written / "config.json").read_text())
    assert config["rope_theta"] == 100000.0
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-5
    said = json.loads((written / "tokenizer_config.json").read_text())
    assert (said["add_bos_token"], said["eos_token"]) == (False, "<|im_end|>")
    assert checkpoint.chat_template(written) == (written / "chat_template.jinja").read_text()
