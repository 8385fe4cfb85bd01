"""Text that streams is the text of the whole: nothing lost, nothing doubled."""

import engine_modules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

byte_level = engine_modules.of("preprocessing", "byte_level")
words = engine_modules.of("tensorrt_llm", "words")
word_lists = engine_modules.of("preprocessing", "word_lists")

BYTES = [bytes([value]) for value in range(256)]
WHOLE = [text.encode() for text in (" the", "é", "日", "🙂", "\n", "ab c")]
PARTS = ["🙂".encode()[:2], "🙂".encode()[2:], "日本".encode()[1:4], "é".encode()[1:] + b"x"]
SPECIAL = [b"", b""]
TOKENS = [*BYTES, *WHOLE, *PARTS, *SPECIAL]
PREVIOUS = 16


def streamed(ids, sizes, tokens=TOKENS):
    """Return the joined texts of responses of those sizes, each with its few tokens before."""
    detokenizer = byte_level.Detokenizer(tokens)
    texts, at = [], 0
    while at < len(ids) or not texts:
        size = max(1, next(sizes))
        end = min(len(ids), at + size)
        before = ids[max(0, at - PREVIOUS) : at]
        texts.append(detokenizer.added(before, ids[at:end], finished=end == len(ids)))
        at = end
    return "".join(texts)


def cycle(sizes):
    while True:
        yield from sizes


@given(
    st.lists(st.integers(0, len(TOKENS) - 3), max_size=60),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_any_tokens_stream_to_the_whole_decoding(ids, sizes):
    whole = b"".join(TOKENS[i] for i in ids).decode("utf-8", "replace")
    assert streamed(ids, cycle(sizes)) == whole


@given(st.text(max_size=40), st.data())
@settings(max_examples=200)
def test_any_unicode_text_survives_one_token_at_a_time(text, data):
    """However its bytes are cut into tokens, and with special tokens strewn in."""
    raw = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    ids = []
    for byte in raw:
        if data.draw(st.integers(0, 9)) == 0:
            ids.append(len(TOKENS) - 1)
        ids.append(byte)
    assert streamed(ids, cycle([1])) == raw.decode()


def test_an_unfinished_character_becomes_a_replacement_at_the_end():
    detokenizer = byte_level.Detokenizer(TOKENS)
    assert detokenizer.added([], [0xF0, 0x9F], finished=False) == ""
    assert detokenizer.added([0xF0], [0x9F], finished=True) == "\ufffd"


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=3),
)
def test_stop_words_cut_where_the_first_one_ends(tokens, stops):
    found = words.StopWords(tuple(map(tuple, stops)))
    sent = []
    for token in tokens:
        sent += found.feed(token)
        if found.found:
            break
    else:
        sent += found.flush()
    assert sent == expected(tokens, stops)


def expected(tokens, stops):
    for end in range(1, len(tokens) + 1):
        for stop in stops:
            if tokens[:end][-len(stop) :] == stop:
                return tokens[: end - len(stop)]
    return tokens


def test_tokens_that_cannot_begin_a_stop_word_are_not_held():
    found = words.StopWords(((1, 2, 3),))
    assert found.feed(5) == [5]
    assert found.feed(1) == []
    assert found.feed(1) == [1]
    assert found.feed(2) == []
    assert found.feed(4) == [1, 2, 4]


@given(st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=5), max_size=5))
def test_a_word_list_reads_back_as_written(written):
    array = word_lists.word_list(written)
    assert array.shape[:2] == (1, 2)
    assert words.words_of(array[0], 1000) == tuple(map(tuple, written))


@pytest.mark.parametrize(
    ("word", "variants"), [("stop", ("stop", " stop")), ("\n\n", ("\n\n",)), (" x", (" x",))]
)
def test_a_stop_word_is_also_meant_after_a_space(word, variants):
    assert word_lists.stop_variants(word) == variants
