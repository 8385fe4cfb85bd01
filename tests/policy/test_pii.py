"""`pii_redaction`: what is found, what is not, and that a stream may be cut anywhere."""

# ruff: noqa: RUF001 - look-alike characters are what is tested
from __future__ import annotations

import json
import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forebay.policy.verifiers.entities import IBAN_LENGTHS, REACH, luhn, mod97
from forebay.policy.verifiers.fold import fold
from forebay.policy.verifiers.pii import HELD_MAX, Redactor


def redacted(*pieces):
    """Return the whole output, the verdict, and the most that was held."""
    redactor = Redactor()
    out, held = [], 0
    for piece in pieces:
        out.append(redactor.feed(piece))
        held = max(held, redactor.held)
    rest, verdict = redactor.finish()
    return "".join(out) + rest, verdict, held


@pytest.mark.parametrize(
    ("digits", "holds"),
    [
        (b"4111111111111111", True),
        (b"4111111111111112", False),
        (b"378282246310005", True),
        (b"6011111111111117", True),
        (b"30569309025904", True),
        (b"4222222222222", True),
        (b"0", True),
        (b"1", False),
        (b"18", True),
    ],
)
def test_luhn(digits, holds):
    assert luhn(digits) is holds


@pytest.mark.parametrize(
    ("iban", "holds"),
    [
        (b"GB82WEST12345698765432", True),
        (b"gb82west12345698765432", True),
        (b"GB82WEST12345698765423", False),
        (b"DE89370400440532013000", True),
        (b"FR1420041010050500013M02606", True),
        (b"NO9386011117947", True),
        (b"MT84MALT011000012345MTLCAST001S", True),
        (b"NO9386011117948", False),
    ],
)
def test_mod97(iban, holds):
    assert mod97(iban) is holds
    assert not holds or IBAN_LENGTHS[iban[:2].decode().upper()] == len(iban)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.lovelace+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("'o'neil@example.ie'", "'[EMAIL]'"),
        ("a@b, a@b.c, @home, user@host", "a@b, a@b.c, @home, user@host"),
        ("card 4111 1111 1111 1111, 4111-1111-1111-1111.", "card [CREDIT_CARD], [CREDIT_CARD]."),
        ("3782 822463 10005", "[CREDIT_CARD]"),
        ("378282246310005", "[CREDIT_CARD]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("12 4111 1111 1111 1111 99", "12 [CREDIT_CARD] 99"),
        ("41111111111111111111", "41111111111111111111"),
        ("GB82 WEST 1234 5698 7654 32", "[IBAN_CODE]"),
        ("(GB82WEST12345698765432)", "([IBAN_CODE])"),
        ("gb82west12345698765432", "[IBAN_CODE]"),
        ("GB82 WEST 1234 5698 7654 33", "GB82 WEST 1234 5698 7654 33"),
        ("ZZ82 WEST 1234 5698 7654 32", "ZZ82 WEST 1234 5698 7654 32"),
        ("+1 (555) 123-4567", "[PHONE]"),
        ("+49 30 1234567 or 0049 30 1234567", "[PHONE] or [PHONE]"),
        ("(602)272-9781, 541-714-1388x12", "[PHONE], [PHONE]"),
        ("0490 75 40 81 / 01.84.17.61.18 / 07700 063 966", "[PHONE] / [PHONE] / [PHONE]"),
        ("(+44 7700 921 916)", "([PHONE])"),
        ("Phone:\n467 3395, call me on 9472 7916", "Phone:\n[PHONE], call me on [PHONE]"),
        ("781 1704 office, (37) 788-063-Fax", "[PHONE] office, [PHONE]-Fax"),
        ("467 3395 and 71-33-52-22 of 416 60 039", "467 3395 and 71-33-52-22 of 416 60 039"),
        ("call me on 12-05-2024, a phone for 467 3395",
         "call me on 12-05-2024, a phone for 467 3395"),
        ("card 675984103431, none 567.141.204.235", "card [CREDIT_CARD], none 567.141.204.235"),
        ("ISBN 978-0-9146-6473-3, 074-00-2031", "ISBN 978-0-9146-6473-3, 074-00-2031"),
        ("AT93 2859 0790 1527 9288", "AT93 2859 0790 1527 9288"),
        ("from 10.0.0.1 to 255.255.255.255", "from [IP] to [IP]"),
        ("256.1.1.1 and 1.2.3.4.5", "256.1.1.1 and 1.2.3.4.5"),
        ("2001:db8::ff00:42:8329, ::1.", "[IP], [IP]."),
        ("::ffff:10.1.2.3", "[IP]"),
        ("std::cout a::b 10:30:15 ::", "std::cout a::b 10:30:15 ::"),
        ("SSN 078-05-1120 or 078 05 1120", "SSN [US_SSN] or [US_SSN]"),
        ("666-05-1120 000-05-1120 900-05-1120", "666-05-1120 000-05-1120 900-05-1120"),
        ("1-078-05-1120-1", "1-078-05-1120-1"),
        ("see https://a.example/b?c=d&e=f, (www.foo.co/x) or example.com!",
         "see [URL], ([URL]) or [URL]!"),
        ("ftp://u:p@h/x HTTP://X.Y", "[URL] [URL]"),
        ("node.js e.g. README.md common.computer", "node.js e.g. README.md common.computer"),
        ("sk-proj-abcdEFGH12345678 AKIAIOSFODNN7EXAMPLE", "[API_KEY] [API_KEY]"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789.", "[API_KEY]."),
        ("xoxb-123456789012-abcdef AIzaSyA1234567890abcdefghijklmnopqrstuv", "[API_KEY] [API_KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[API_KEY]"),
        ("risk-management-of-everything", "risk-management-of-everything"),
        ("in 2024, 3.14, 12,000 of 40% (about 7)", "in 2024, 3.14, 12,000 of 40% (about 7)"),
        ('{"mail": "x@y.org", "n": 5}', '{"mail": "[EMAIL]", "n": 5}'),
        ("", ""),
    ],
)  # fmt: skip
def test_what_is_redacted(text, expected):
    whole, verdict, _ = redacted(text)
    assert whole == expected
    assert verdict.outcome == ("passed" if whole == text else "redacted")
    assert redacted(*text)[:2] == (whole, verdict)


LOOKALIKES = [
    ("４１１１ １１１１ １１１１ １１１１", "[CREDIT_CARD]"),
    ("٤١١١١١١١١١١١١١١١", "[CREDIT_CARD]"),
    ("4111\u00a01111\u20091111\u202f1111", "[CREDIT_CARD]"),
    ("4111\u20111111\u20131111\u22121111", "[CREDIT_CARD]"),
    ("4\u200b1\u200c1\u200d1\ufeff111111111111", "[CREDIT_CARD]"),
    ("4\u200b\u200b\u200b\u200b\u200b\u200b\u200b1" + "1" * 14, "[CREDIT_CARD]"),
    ("4\u03361\u03361\u03361\u0336111111111111", "[CREDIT_CARD]"),
    ("bоb@exаmple.cоm", "[EMAIL]"),
    ("ｂｏｂ＠ｅｘａｍｐｌｅ．ｃｏｍ", "[EMAIL]"),
    ("josé@exämple.com", "[EMAIL]"),
    ("邮箱foo@bar.com。谢谢", "邮箱[EMAIL]。谢谢"),
    ("𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏", "[CREDIT_CARD]"),
    ("héllo wörld 👩\u200d👩\u200d👧 naïve नमस्ते", "héllo wörld 👩\u200d👩\u200d👧 naïve नमस्ते"),
]


@pytest.mark.parametrize(("text", "expected"), LOOKALIKES, ids=range(len(LOOKALIKES)))
def test_look_alikes(text, expected):
    whole, verdict, _ = redacted(text)
    assert whole == expected
    assert redacted(*text)[:2] == (whole, verdict)


def test_spans_are_of_the_text_as_it_came():
    text = "Ünï \u200b\u200b\u200b\u200b\u200b\u200b bоb\u200b@x.org, 10.0.0.1"
    whole, verdict, _ = redacted(text)
    assert [text[start:end] for start, end in verdict.spans] == ["bоb\u200b@x.org", "10.0.0.1"]
    assert verdict.reason == "1 EMAIL, 1 IP"
    assert whole.endswith("[EMAIL], [IP]")


def test_a_long_entity_is_swallowed_without_being_held():
    url = "https://example.org/" + "a" * 10_000
    whole, verdict, held = redacted("see ", *url, " now")
    assert whole == "see [URL] now"
    assert held <= 10
    assert verdict.spans == ((4, 4 + len(url)),)


def test_plain_words_wait_only_for_their_end():
    redactor = Redactor()
    assert redactor.feed("The quick bro") == "The quick "
    assert redactor.feed("wn fox") == "brown "
    assert redactor.feed(". ") == "fox. "


FRAGMENTS = [
    "ada@example.com", "@", "a", "x", "hello ", "4111 1111 1111 1111", "4111-1111-1111-1111",
    "378282246310005", "1", "12", "2024", "0", " ", " ", ".", ",", "-", "/", "(", ")", "+", ":",
    "https://", "http:", "www.", "foo.com", "example.org/p?q=1", "::1", "fe80::1", "10.0.0.1",
    "078-05-1120", "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "GB82", "+44",
    "+1 (555) 123-4567", "0490 75 40 81", "555-123-4567", "sk-abcdEFGH1234567890xyz",
    "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "\n", "\u200b", "\u0301",
    "é", "中", "４", "㏂", "①", "½", "ﬁ", "а", "😀", "\u200b" * 6, "a" * 70, "1" * 25, "b." * 40,
    "com", "co.uk", "_", "%", "'", "\\", "\\n", "\\u00", "40", "\\u0040", "\\\\u0040", "u0061",
    "\\/", "\\ud835", "\\udc1a", "\\u200b", "\\u200b" * 6, "\\" * 9, '"', '\\"',
    "\\_", "\\.", "\\@", "\\b", "\\tom@", "\\u4e2d", "\\ubeda", "n@x.de",
    "Phone: ", "call me on ", "tel. no ", "467 3395", "71-33-52-22", "(37) 788-063", " office",
    "-Fax",
]  # fmt: skip

texts = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("".join)


@settings(max_examples=400)
@given(texts, st.lists(st.integers(0, 400), max_size=8))
@example("+" + "4111 1111 1111 1111" * 3, [])
@example("a" * 64 + "@" + "b" * 120 + ".com", [])
@example("/http://1", [])
def test_a_stream_may_be_cut_anywhere(text, cuts):
    whole, verdict, _ = redacted(text)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[i:j] for i, j in pairwise(places)]
    for split in (pieces, list(text)):
        out, same, held = redacted(*split)
        assert out == whole
        assert same == verdict
        assert held <= (REACH if text.isascii() and "\\" not in text else HELD_MAX)


ESCAPED = [
    (r"ann\u0040firma.de", "[EMAIL]"),
    (r"\u0061\u006e\u006E\u0040firma\u002Ede!", "[EMAIL]!"),
    (r'{"a": "x\nann@firma.de\tand"}', r'{"a": "x[EMAIL]\tand"}'),
    (r'{"a": "{\"b\": \"ann\\u0040firma.de\"}"}', r'{"a": "{\"b\": \"[EMAIL]\"}"}'),
    (r"https:\/\/a.example\/secret\" \u00e9\u0301", r"[URL]\" \u00e9\u0301"),
    (r"\ud835\udc1ann@firma.de", "[EMAIL]"),
    (r"ann\u200b\u200b\u200b\u200b\u200b\u200b\u0040firma.de", "[EMAIL]"),
    (r"4111\u00201111\u00a01111\u20091111", "[CREDIT_CARD]"),
    (r"\ud835 \u12 \x \\ \ \u", r"\ud835 \u12 \x \\ \ \u"),
    (r"C:\temp\u.txt and \d+ and \\server", r"C:\temp\u.txt and \d+ and \\server"),
]


BACKSLASHES = [
    (r"C:\bob@firma.de", "C:[EMAIL]"),
    (r"C:\b@firma.de", "C:[EMAIL]"),
    (r"CORP\nina@firma.de", "CORP[EMAIL]"),
    (r"CORP\\nina@firma.de, CORP\\tom@firma.de", "CORP[EMAIL], CORP[EMAIL]"),
    (r"CORP\ann@firma.de", "CORP\\[EMAIL]"),
    (r"CORP\ubeda1@firma.de", "CORP[EMAIL]"),
    (r"CORP\u0020@firma.de", "CORP[EMAIL]"),
    (r"CORP\nina\u0040firma.de", "CORP[EMAIL]"),
    (r"CORP\nina\_b@firma.de", "CORP[EMAIL]"),
    (r"ann\_smith@firma.de", "[EMAIL]"),
    (r"ann\.smith\@firma\.de", "[EMAIL]"),
    (r"\+49 30 1234567, 4111\-1111\-1111\-1111", "[PHONE], [CREDIT_CARD]"),
    (r"\n\nfe80::1 \n4111 1111 1111 1111\n", r"\n\n[IP] \n[CREDIT_CARD]\n"),
    (r"a\n\https://a.example/b\nc.com", r"a\n\[URL][URL]"),
    (r"\alpha_{1} \_ \[x\] \\* $\nu$ C:\new\table", r"\alpha_{1} \_ \[x\] \\* $\nu$ C:\new\table"),
]


@pytest.mark.parametrize(("text", "expected"), BACKSLASHES, ids=range(len(BACKSLASHES)))
def test_backslashes_of_prose_hide_nothing(text, expected):
    whole, verdict, _ = redacted(text)
    assert whole == expected
    assert redacted(*text)[:2] == (whole, verdict)


@pytest.mark.parametrize(("text", "expected"), ESCAPED, ids=range(len(ESCAPED)))
def test_escapes_of_json_hide_nothing(text, expected):
    whole, verdict, _ = redacted(text)
    assert whole == expected
    assert redacted(*text)[:2] == (whole, verdict)


def test_spans_cover_escapes_whole():
    text = (
        r"\u00e9\n\u200b\u200b\u200b\u200b\u200b\u200b a\u006en\u0040firma.d\u0065, 10.0.0.\u0031"
    )
    spans = redacted(text)[1].spans
    found = [text[start:end] for start, end in spans]
    assert found == [r"a\u006en\u0040firma.d\u0065", r"10.0.0.\u0031"]


unescaped = texts.map(lambda text: text.replace("\\", "").replace('"', ""))


def left(text):
    """Return what is left of a redacted text without the names of types."""
    return re.sub(r"\[[A-Z_]+\]", "", text)


@settings(max_examples=200)
@given(st.lists(unescaped, max_size=4), st.booleans())
def test_strings_of_json_stay_strings_and_keep_nothing_their_reader_should_not_see(
    strings, ascii_only
):
    written, _, _ = redacted(json.dumps(strings, ensure_ascii=ascii_only))
    read = json.loads(written)
    assert len(read) == len(strings)
    for one, string in zip(read, strings, strict=True):
        allowed = iter(left(redacted(f'"{string}"')[0][1:-1]))
        assert all(character in allowed for character in left(one))


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=5).map("".join), st.sampled_from("bfnrtu\\_.x")
)
def test_nothing_of_an_address_leaves_behind_a_backslash(before, letter):
    whole, _, _ = redacted(f"{before} \\{letter}QQ@firma.de")
    assert "Q" not in whole
    assert "firma" not in whole


ENTITIES = [
    "ada@example.com",
    "4111 1111 1111 1111",
    "GB82WEST12345698765432",
    "078-05-1120",
    "+1 (555) 123-4567",
    "10.0.0.1",
    "https://a.example/secret",
    "AKIAIOSFODNN7EXAMPLE",
]


@pytest.mark.parametrize("entity", ENTITIES)
def test_nothing_of_an_entity_leaves_at_any_split_point(entity):
    before, after = "Contact: ", ", thanks."
    text = before + entity + after
    for cut in range(len(text) + 1):
        redactor = Redactor()
        first = redactor.feed(text[:cut])
        assert before.startswith(first) or first.startswith(f"{before}["), (cut, first)
        out = first + redactor.feed(text[cut:]) + redactor.finish()[0]
        name = out.removeprefix(before).removesuffix(after)
        assert (name[0], name[-1]) == ("[", "]"), out


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_any_text_folds_and_text_without_entities_is_untouched(text):
    view = fold(text)
    assert view.view.isascii()
    whole, verdict, _ = redacted(*text)
    assert redacted(text)[:2] == (whole, verdict)
    spans = [text[start:end] for start, end in verdict.spans]
    assert all(spans)


@pytest.mark.parametrize(
    "text",
    ["1" * 50_000, "1 " * 25_000, ":" * 50_000, "aB3" * 16_000, "a@b.co " * 7_000, "@" * 50_000,
     "4\u200b" * 25_000, "a." * 25_000, "4111 " * 10_000, "中文" * 25_000, "555-123-456 " * 4_000,
     "\\" * 50_000, "\\u0040" * 8_000, "a\\u200b" * 8_000, "\\ud835" * 8_000, "\\\\\\u004" * 6_000],
    ids=range(16),
)  # fmt: skip
def test_hostile_text_takes_linear_time(text):
    begun = time.perf_counter()
    redacted(text)
    assert time.perf_counter() - begun < 10
