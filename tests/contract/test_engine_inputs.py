"""What a request may say to the embedded engine: a row for every input of the config."""

import engine_modules
import numpy as np
import pytest

from enginebuild.contract import CORE_INPUTS

generation = engine_modules.of("tensorrt_llm", "generation")
inputs = engine_modules.of("tensorrt_llm", "inputs")
guides = engine_modules.of("tensorrt_llm", "guides")

LIMITS = generation.Limits(
    max_batch_size=4,
    max_queue_size=8,
    max_input_len=99,
    max_seq_len=100,
    vocab_size=1000,
    tokens_per_block=32,
    kv_blocks=8,
    end_id=2,
)
DTYPES = {
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "UINT8": np.uint8,
    "FP32": np.float32,
    "FP16": np.float16,
    "BOOL": np.bool_,
    "STRING": np.object_,
}


def sent(**more):
    made = {
        "input_ids": np.array([[5, 6, 7]], dtype=np.int32),
        "input_lengths": np.array([3], dtype=np.int32),
        "request_output_len": np.array([4], dtype=np.int32),
    }
    return made | {name: np.asarray(value) for name, value in more.items()}


def parse(**more):
    return inputs.parse(sent(**more), LIMITS, prompt_in_output=True)


@pytest.mark.parametrize("tensor", CORE_INPUTS, ids=lambda tensor: tensor.name)
def test_every_input_is_honoured_or_refused_by_its_name(tensor):
    """A value of 3 (or True) in any tensor changes the outcome, or is refused by name."""
    shape = [3 if size < 0 else size for size in tensor.dims]
    value = b"x" if tensor.data_type == "STRING" else True if tensor.data_type == "BOOL" else 3
    array = np.full([1, *shape], value, dtype=DTYPES[tensor.data_type])
    if tensor.name in inputs.HONOURED:
        assert tensor.name not in inputs.REFUSED
        return
    with pytest.raises(inputs.InvalidRequestError, match=f"^{tensor.name} is not supported"):
        parse(**{tensor.name: array})


@pytest.mark.parametrize("name", sorted(inputs.REFUSED))
def test_an_empty_or_neutral_tensor_counts_as_absent(name):
    neutral, _ = inputs.REFUSED[name]
    assert parse(**{name: np.zeros((1, 0), dtype=np.float32)}) is not None
    for value in neutral:
        assert parse(**{name: [value]}) is not None


def test_an_input_nobody_knows_is_refused():
    with pytest.raises(inputs.InvalidRequestError, match="does not know the input surprise"):
        parse(surprise=[1])


@pytest.mark.parametrize(
    ("why", "more", "said"),
    [
        ("no prompt", {"input_ids": np.zeros((1, 0), np.int32)}, "missing or empty"),
        ("two prompts", {"input_ids": [[1], [2]], "input_lengths": [1]}, "several prompts"),
        ("length beyond ids", {"input_lengths": [4]}, "does not fit"),
        ("length zero", {"input_lengths": [0]}, "does not fit"),
        ("token beyond", {"input_ids": [[1000, 1, 1]]}, "outside 0..999"),
        ("token negative", {"input_ids": [[-1, 1, 1]]}, "outside 0..999"),
        ("no answer asked", {"request_output_len": [0]}, "at least 1"),
        ("prompt too long", {"input_ids": [[1] * 100], "input_lengths": [100]}, "at most 99"),
        ("too long together", {"request_output_len": [98]}, "max_seq_len of 100"),
        ("temperature below", {"temperature": [-0.1]}, "temperature -0.1"),
        ("temperature nan", {"temperature": [np.nan]}, "temperature nan"),
        ("temperature inf", {"temperature": [np.inf]}, "temperature inf"),
        ("top_k below", {"runtime_top_k": [-1]}, "runtime_top_k -1"),
        ("top_p above", {"runtime_top_p": [1.1]}, "runtime_top_p 1.1"),
        ("penalty zero", {"repetition_penalty": [0.0]}, "repetition_penalty 0"),
        ("presence above", {"presence_penalty": [2.1]}, "presence_penalty"),
        ("frequency below", {"frequency_penalty": [-2.1]}, "frequency_penalty"),
        ("min above max", {"min_tokens": [5]}, "min_tokens 5"),
        ("two values", {"temperature": [1.0, 2.0]}, "one value, not 2"),
        ("greedy copies", {"num_return_sequences": [2]}, "needs sampling"),
        ("many sequences", {"num_return_sequences": [5], "runtime_top_p": [0.9]}, "1..4"),
        (
            "no blocks",
            {"num_return_sequences": [3], "runtime_top_p": [0.9], "request_output_len": [90]},
            "9 KV cache blocks; this engine has 8",
        ),
        ("end beyond", {"end_id": [1000]}, "end_id 1000"),
        ("words shape", {"stop_words_list": [[1, 2, 3]]}, "shape"),
        ("words offset", {"stop_words_list": [[[1, 2], [3, -1]]]}, "offset 3"),
        ("words token", {"bad_words_list": [[[1000], [1]]]}, "outside 0..999"),
        ("guide type", {"guided_decoding_guide_type": [b"xml"]}, "not one of json"),
        ("guide alone", {"guided_decoding_guide": [b"a"]}, "needs a guided_decoding_guide_type"),
        ("type alone", {"guided_decoding_guide_type": [b"regex"]}, "needs a guided_decoding_guide"),
        ("not UTF-8", {"guided_decoding_guide_type": [b"\xff"]}, "not UTF-8"),
        (
            "guide without an end",
            {"guided_decoding_guide_type": [b"json"], "end_id": [-1]},
            "needs an end_id",
        ),
        (
            "guide and bad words",
            {"guided_decoding_guide_type": [b"json"], "bad_words_list": [[[1], [1]]]},
            "cannot be combined",
        ),
    ],
)
def test_a_bad_request_gets_a_sentence(why, more, said):
    with pytest.raises(inputs.InvalidRequestError) as caught:
        parse(**more)
    assert said in str(caught.value), why


def test_limits_are_inclusive():
    whole = parse(input_ids=[[1] * 99], input_lengths=[99], request_output_len=[1])
    assert (whole.prompt.size, whole.max_tokens, whole.kv_blocks) == (99, 1, 4)


@pytest.mark.parametrize(
    ("more", "sampled"),
    [
        ({}, False),
        ({"temperature": [0.7]}, False),
        ({"runtime_top_k": [1], "runtime_top_p": [0.9]}, False),
        ({"runtime_top_k": [2]}, True),
        ({"runtime_top_p": [0.9]}, True),
        ({"runtime_top_p": [0.9], "temperature": [0.0]}, False),
        ({"runtime_top_p": [0.9], "temperature": [1e-30]}, False),
    ],
)
def test_sampling_starts_where_upstream_starts_it(more, sampled):
    assert parse(**more).sampling.sample is sampled


def test_defaults():
    asked = parse()
    assert (asked.end_id, asked.sequences, asked.guide, asked.stop_words) == (2, 1, None, ())
    assert asked.sampling.seed is None
    assert not asked.wanted.streaming
    assert asked.wanted.prompt_in_output
    assert not parse(exclude_input_in_output=[True]).wanted.prompt_in_output
    assert parse(seed=np.array([2**63], dtype=np.uint64)).sampling.seed == 2**63


def test_stop_needs_nothing_else_to_be_right():
    assert isinstance(parse(stop=[True], temperature=[-1]), generation.Stop)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("json_schema", "[" * 100 + "]" * 100, "nested deeper"),
        ("json_schema", "{", "is not JSON"),
        ("json_schema", '{"minimum": NaN}', "NaN is not"),
        ("json_schema", "3", "object or a boolean"),
        ("json_schema", '{"maxLength": 100000}', "maxLength"),
        ("json_schema", '{"pattern": "a{99999}"}', "repetition"),
        ("json_schema", "x" * 70_000, "70000 bytes"),
        ("regex", " ", "is empty"),
        ("regex", "a\0b", "NUL"),
        ("regex", "(" * 70, "nested deeper"),
        ("regex", "a{1,999999999999}", "repetition"),
        ("ebnf_grammar", "", "is empty"),
    ],
)
def test_a_guide_beyond_the_bounds_is_refused_unread(kind, text, said):
    with pytest.raises(guides.GuideRefusedError, match=said):
        guides.guide_of(kind, text, ())
