"""What counts as personal: one rule per type, over the folded view of a text.

Whether an entity starts at a place is decided by at most `REACH` bytes from there on, and by
`BEFORE` before it: that is what lets a stream be redacted with a bounded tail. Types of unbounded
length are recognised by how they begin; their `tail` then says how far they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

from forebay.policy.regex import Pattern, PatternSet

Measure = Callable[[bytes, int, int], int]
"""Given the view and a match's start and end, return the entity's true end, or 0 for none."""

REACH = 192
"""The most bytes that any decision looks ahead: the longest email start, 64 + 1 + 124 and 3."""

BEFORE = 48
"""The most bytes that any decision looks back: a word like `phone`, and what follows it."""

_DIGITS = frozenset(b"0123456789")
_ALNUM = _DIGITS | frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_STOPS_MAX = 8


@dataclass(frozen=True, slots=True)
class Tail:
    """How an entity runs on: over `body`, and over `stops` where more `body` follows them."""

    body: frozenset[int]
    stops: frozenset[int]

    def run(self, view: bytes, at: int, *, final: bool) -> tuple[int, bool]:
        """Return how far the entity runs from `at`, and whether it is known to end there."""
        while at < len(view):
            if view[at] in self.body:
                at += 1
                continue
            ahead = at
            while ahead < len(view) and ahead - at < _STOPS_MAX and view[ahead] in self.stops:
                ahead += 1
            if ahead == len(view) and ahead - at < _STOPS_MAX and not final:
                return at, False
            if ahead == at or ahead == len(view) or view[ahead] not in self.body:
                return at, True
            at = ahead
        return at, final


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of entity."""

    name: str
    source: str
    pattern: Pattern
    measure: Measure
    tail: Tail | None = None

    def following(self, view: bytes, at: int, stop: int) -> tuple[int, int]:
        """Return the next entity from `at` on as (start, end).

        An end of 0 says that nothing starts before `stop`; the start is then where to look
        again, at the earliest.
        """
        while (found := self.pattern.find(view, at)) is not None:
            if found[0] >= stop:
                return found[0], 0
            if end := self.measure(view, *found):
                return found[0], end
            at = found[0] + 1
        return len(view), 0


def luhn(digits: bytes) -> bool:
    """Return whether the last digit is the check digit of ISO/IEC 7812-1 (Luhn)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = (digit - 48) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004 - the sum of two digits
    return total % 10 == 0


def mod97(iban: bytes) -> bool:
    """Return whether the check digits of ISO 13616 hold: the number modulo 97 is 1."""
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(chr(c), 36)) for c in moved)) % 97 == 1


def _whole(_view: bytes, _start: int, end: int) -> int:
    return end


def _card(view: bytes, start: int, _end: int) -> int:
    """Return the end of the longest card number that starts here.

    Groups are those printed on cards, or else the digits must stand alone: nothing else may
    precede or follow them in the same chain, or a card would be cut in the middle.
    """
    best, digits, at, sizes = 0, b"", start, list[int]()
    alone = not (start > 1 and view[start - 1] in b" .-" and view[start - 2] in _DIGITS)
    while len(digits) <= _CARD_MAX:
        group = at
        while at < len(view) and view[at] in _DIGITS and at - group <= _CARD_MAX:
            at += 1
        digits, sizes = digits + view[group:at], [*sizes, at - group]
        more = at + 1 < len(view) and view[at] in b" .-" and view[at + 1] in _DIGITS
        fits = tuple(sizes) in _CARD_GROUPS or (alone and not more) or len(sizes) == 1
        fits = fits and (len(digits) > _CARD_MIN or tuple(sizes) in _SHORT_GROUPS)
        if fits and _CARD_MIN <= len(digits) <= _CARD_MAX and _is_card(digits):
            best = at
        if not more:
            break
        at += 1
    return 0 if best and best < len(view) and view[best] in _ALNUM else best


_CARD_MIN, _CARD_MAX = 12, 19
_SHORT_GROUPS = {(12,), (4, 4, 4)}
_VISA_OLD = 13
_SHORT = Pattern(r"\A(?:5018|5020|5038|5[6-8]\d\d|6304|6390|6759|676[1-3])\d{8}\z")
"""Maestro's numbers of twelve digits; other issuers' are longer."""

_CARD_GROUPS = {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1), (6, 13)}


def _is_card(digits: bytes) -> bool:
    if len(digits) == _CARD_MIN and _SHORT.find(digits) is None:
        return False
    if len(digits) == _VISA_OLD and digits[:1] not in b"456":
        return False  # ISBN and other article numbers have thirteen digits, too
    return (digits[:1] in b"23456789" or digits[:4] == b"1800") and luhn(digits)


def _iban(view: bytes, start: int, _end: int) -> int:
    """Return the end of an IBAN whose length is its country's and whose check digits hold."""
    length = IBAN_LENGTHS.get(view[start : start + 2].upper().decode(), 0)
    read, at = bytearray(), start
    while len(read) < length and at < len(view):
        if view[at] in _ALNUM:
            read.append(view[at])
        elif view[at] not in b" -" or view[at - 1] not in _ALNUM:
            return 0
        at += 1
    if not length or len(read) < length or (at < len(view) and view[at] in _ALNUM):
        return 0
    return at if mod97(bytes(read)) else 0


_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 "
    "BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 "
    "HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 "
    "MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 "
    "SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30 "
)

IBAN_LENGTHS = {said[:2]: int(said[2:]) for said in _IBANS.split()}
"""Characters of an IBAN by country, as SWIFT's registry of ISO 13616 lists them."""


def _follows_digits(view: bytes, start: int) -> bool:
    """Return whether digits stand before, joined by a dot or hyphen: a version, an id."""
    return start > 1 and view[start - 1] in b".-" and view[start - 2] in _DIGITS


def _chained(view: bytes, start: int, end: int) -> bool:
    """Return whether digits hang on at either end."""
    after = end + 1 < len(view) and view[end] in b".-" and view[end + 1] in _DIGITS
    return after or _follows_digits(view, start)


def _ssn(view: bytes, start: int, end: int) -> int:
    """Return the end unless the numbers are ones never issued."""
    area, group, serial = view[start : start + 3], view[start + 4 : start + 6], view[end - 4 : end]
    void = area in (b"000", b"666") or area >= b"900" or group == b"00" or serial == b"0000"
    return 0 if void or _chained(view, start, end) else end


def _ipv4(view: bytes, start: int, end: int) -> int:
    octets = view[start:end].split(b".")
    fits = all(int(octet) <= 255 for octet in octets)  # noqa: PLR2004 - the largest octet
    return end if fits and not _chained(view, start, end) else 0


def _ipv6(view: bytes, start: int, end: int) -> int:
    """Return the end of a valid address that has a digit, or `std::cafe` would be one."""
    if start and (view[start - 1] in _ALNUM or view[start - 1] in b":."):
        return 0
    if end < len(view) and (view[end] in _ALNUM or view[end] in b":"):
        return 0
    text = view[start:end].rstrip(b".")
    text = text[:-1] if text.endswith(b":") and not text.endswith(b"::") else text
    try:
        IPv6Address(text.decode())
    except AddressValueError:
        return 0
    return start + len(text) if any(c in _DIGITS for c in text) else 0


def _phone(view: bytes, start: int, end: int) -> int:
    digits = sum(c in _DIGITS for c in view[start:end].split(b"x")[0])
    if not 9 <= digits <= 15 or (end < len(view) and view[end] in _ALNUM):  # noqa: PLR2004 - E.164
        return 0
    if start and (view[start - 1] in _ALNUM or view[start - 1] in b"+"):
        return 0
    if _follows_digits(view, start) or _SSN_FORM.find(view[start:end]) is not None:
        return 0
    if (
        view[start : start + 1] == b"0"
        and _GROUPS.find(view[max(0, start - 3) : start]) is not None
    ):
        return 0  # the middle of a longer number in groups
    return end - 1 if view[end - 1] in b")" and b"(" not in view[start:end] else end


_SSN_FORM = Pattern(r"\A\d{3}-\d{2}-\d{4}\z")
_GROUPS = Pattern(r"\A\d\d \z")


def _local(view: bytes, start: int, end: int) -> int:
    """Return the end of a number that only the words around it tell to be a telephone's."""
    digits = sum(c in _DIGITS for c in view[start:end])
    if not 7 <= digits <= 13 or (end < len(view) and view[end] in _ALNUM):  # noqa: PLR2004 - E.164
        return 0
    if start and (view[start - 1] in _ALNUM or view[start - 1] in b"+."):
        return 0
    if _chained(view, start, end) or _DATE.find(view[start:end]) is not None:
        return 0
    led = _CALLS.find(view[max(0, start - BEFORE) : start]) is not None
    return end if led or _CALLED.find(view[end : end + 16]) is not None else 0


_CALLS = Pattern(
    r"(?i)(?:\A|[^a-z0-9])(?:(?:tele|cell|mobile ?|smart)?phones?|tel|mobile|cell|fax|desk|hotline"
    r"|landline|whatsapp|voicemail|call|dial|my number|registered"
    r"|(?:ring|text|reach|contact|answering|get hold of)(?: (?:me|us|him|her|them|someone|back))?"
    r" (?:at|on|under))"
    r"(?:[ \t\n:.#=,*'(-]|numbers?|no|nr|is|at|on|under|me|us|him|her|them|back|via|office|work"
    r"|home|line|direct){0,12}\z"
)
_CALLED = Pattern(r"(?i)\A(?: ?[-,(\\] ?| )(?:office|fax|mobile|home|cell|desk|direct|work)\b")
_DATE = Pattern(
    r"\A(?:\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d{2}|(?:19|20)\d{2}[ ./-]\d{1,2}[ ./-]\d{1,2})\z"
)


def _link(view: bytes, _start: int, end: int) -> int:
    """Return the end without the one byte that showed where a bare domain ends."""
    return end if view[end - 1] in _ALNUM else end - 1


_NATIONAL = "|".join(rf"(?:{sep}\d{{2,4}}){{2,4}}" for sep in (" ", r"\.", "-"))

_PHONE = (
    r"(?:\+|\b00)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,7}(?:x\d{1,5})?"
    r"|(?:\b1[ .-]|\b001-)?(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}(?:x\d{1,5})?"
    rf"|\b0[1-9]\d{{0,3}}(?:{_NATIONAL})"
    r"|\b0[1-9]\d{1,3}[ /-]\d{6,8}"
    r"|\b0[1-9]\d{8,9}"
    r"|\(0\d{1,4}\) ?\d{3,4}[ -]?\d{3,4}"
    r"|\(\d{2}\) ?\d{4,5}-\d{4}"
    r"|\b[2-9]\d{2}[2-9]\d{6}"
)

_LOCAL = (
    r"\b\d{1,4}(?:[ .-]\d{2,4}){1,4}\b|\(\d{2,4}\) ?\d{2,4}(?:[ .-]\d{2,4}){1,3}\b|\b\d{7,11}\b"
)

_KEY = (
    r"\b(?:sk-[\w-]{16}"
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{8}"
    r"|gh[pousr]_[A-Za-z0-9]{16}"
    r"|github_pat_\w{16}"
    r"|glpat-[\w-]{16}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{8}"
    r"|AIza[\w-]{24}"
    r"|hf_[A-Za-z0-9]{24}"
    r"|eyJ[\w-]{14})"
)

_URL = (
    r"(?i:https?|ftp)://[A-Za-z0-9]"
    r"|(?i:www)\.[A-Za-z0-9-]{1,40}\.[A-Za-z]{2}"
    r"|[A-Za-z0-9][A-Za-z0-9.-]{0,55}?\.(?i:com|org|net|edu|gov|mil|info|biz|co\.uk)"
    r"(?:[^A-Za-z0-9_@-]|\z)"
)

_EMAIL = r"[A-Za-z0-9_][A-Za-z0-9._%+'-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,120}?\.[A-Za-z]{2}"
_WORD_TAIL = Tail(_ALNUM | frozenset(b"_-"), frozenset(b"."))
_URL_TAIL = Tail(_ALNUM | frozenset(b"/_~%#&=+@$*|-"), frozenset(b".,;:!?()[]'"))
_SSN = r"\b\d{3}-\d{2}-\d{4}\b|\b\d{3} \d{2} \d{4}\b"
_IBAN = r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}"
_CARD = r"\b\d(?:[ .-]?\d){11}"
_IPV6 = r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,42}"

KINDS = (
    Kind("API_KEY", _KEY, Pattern(_KEY), _whole, _WORD_TAIL),
    Kind("URL", _URL, Pattern(_URL), _link, _URL_TAIL),
    Kind("EMAIL", _EMAIL, Pattern(_EMAIL), _whole, _WORD_TAIL),
    Kind("IBAN_CODE", _IBAN, Pattern(_IBAN), _iban),
    Kind("CREDIT_CARD", _CARD, Pattern(_CARD), _card),
    Kind("US_SSN", _SSN, Pattern(_SSN), _ssn),
    Kind("IP", r"\b\d{1,3}(?:\.\d{1,3}){3}\b", Pattern(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), _ipv4),
    Kind("IP", _IPV6, Pattern(_IPV6, longest=True), _ipv6),
    Kind("PHONE", _PHONE, Pattern(_PHONE, longest=True), _phone),
    Kind("PHONE", _LOCAL, Pattern(_LOCAL, longest=True), _local),
)
"""In order of preference where two start at the same place."""

ANY = PatternSet(tuple(kind.source for kind in KINDS))

UNDECIDED = Pattern(
    r"(?:[A-Za-z0-9_][A-Za-z0-9._%+'-]{0,63}(?:@[A-Za-z0-9.-]{0,124})?"
    r"|(?i:https?|ftp)(?::/{0,2})?"
    r"|[0-9A-Fa-f:.]{1,48}"
    r"|[+(\d][\d ().\-/x]{0,60}"
    r"|[(\d][\d ().-]{5,40}(?: ?[-,(\\] ?| )[A-Za-z]{0,6}"
    r"|[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){0,31}[ -]?)\z"
)
"""Finds where text begins that more text could still turn into an entity, or into another.

It must take every beginning of every pattern above, with the byte or two that end it; taking
more only holds text a little longer. `tests/policy/test_pii.py` tries all places to split.
"""
