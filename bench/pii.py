"""Recall and precision of `pii_redaction`: on Presidio's sample, and on generated sentences.

    PYTHONPATH=router .venv/bin/python -m bench.pii [--seed 1] [--each 600] [--json]

prints, for each type, how many entities were found whole, how many redactions were none of that
type, both with Wilson's 95 % interval, and every one that went wrong. The generated sentences
also hold look-alikes that are no entities: numbers whose check digits fail, versions, dates,
amounts, order numbers, decorators, file names.
"""

import argparse
import json
import random
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.intervals import told

from forebay.policy.verifiers.entities import IBAN_LENGTHS, luhn, mod97
from forebay.policy.verifiers.pii import Redactor

SAMPLE = Path(__file__).parent.parent / "data/prompts/presidio_synth_even.json"

THEIRS = {
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN_CODE",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "IP_ADDRESS": "IP",
    "US_SSN": "US_SSN",
    "DOMAIN_NAME": "URL",
}
TYPES = ("CREDIT_CARD", "IBAN_CODE", "EMAIL", "PHONE", "IP", "US_SSN", "URL", "API_KEY")


class Gold(NamedTuple):
    start: int
    end: int
    name: str


@dataclass
class Tally:
    found: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, text: str, gold: list[Gold]) -> None:
        """Count one text: found is what is covered whole by a redaction of its type."""
        got = redactions(text)
        for one in gold:
            self.there[one.name] += 1
            if any(g.name == one.name and g.start <= one.start and one.end <= g.end for g in got):
                self.found[one.name] += 1
            else:
                self.wrong.append(f"missed {one.name}: {text[one.start : one.end]!r} in {text!r}")
        for g in got:
            self.said[g.name] += 1
            if any(o.name == g.name and g.start < o.end and o.start < g.end for o in gold):
                self.right[g.name] += 1
            else:
                self.wrong.append(f"wrong {g.name}: {text[g.start : g.end]!r} in {text!r}")

    def figures(self) -> dict[str, dict[str, str]]:
        return {
            name: {
                "recall": told(self.found[name], self.there[name]),
                "precision": told(self.right[name], self.said[name]),
            }
            for name in TYPES
            if self.there[name]
        }


def redactions(text: str) -> list[Gold]:
    """Return what is redacted in a text, with its types in the order of their places."""
    redactor = Redactor()
    out = redactor.feed(text)
    rest, verdict = redactor.finish()
    out += rest
    names, at, kept = [], 0, 0
    for start, end in verdict.spans:
        at += start - kept
        close = out.index("]", at)
        names.append(Gold(start, end, out[at + 1 : close]))
        at, kept = close + 1, end
    return names


def sample() -> Tally:
    tally = Tally()
    for one in json.loads(SAMPLE.read_text(encoding="utf-8")):
        gold = [
            Gold(s["start_position"], s["end_position"], THEIRS[s["entity_type"]])
            for s in one["spans"]
            if s["entity_type"] in THEIRS
        ]
        tally.add(one["full_text"], gold)
    return tally


# ---- generated -----------------------------------------------------------------------------

Draw = random.Random


def digits(draw: Draw, count: int) -> str:
    return "".join(draw.choice(string.digits) for _ in range(count))


def some(draw: Draw, letters: str, low: int, high: int) -> str:
    return "".join(draw.choice(letters) for _ in range(draw.randint(low, high)))


def grouped(number: str, sizes: tuple[int, ...], by: str) -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return by.join(parts)


CARDS = (
    ("4", 16, (4, 4, 4, 4)),
    ("51", 16, (4, 4, 4, 4)),
    ("2221", 16, (4, 4, 4, 4)),
    ("34", 15, (4, 6, 5)),
    ("37", 15, (4, 6, 5)),
    ("6011", 16, (4, 4, 4, 4)),
    ("3528", 16, (4, 4, 4, 4)),
    ("36", 14, (4, 6, 4)),
    ("6759", 12, (12,)),
)


def _card(draw: Draw, *, valid: bool) -> str:
    prefix, length, sizes = draw.choice(CARDS)
    while True:
        number = prefix + digits(draw, length - len(prefix))
        if luhn(number.encode()) is valid:
            break
    by = draw.choice(["", "", " ", "-"])
    return grouped(number, sizes, by)


def card(draw: Draw) -> str:
    return _card(draw, valid=True)


def no_card(draw: Draw) -> str:
    return _card(draw, valid=False)


def _iban(draw: Draw, *, valid: bool) -> str:
    country = draw.choice(sorted(IBAN_LENGTHS))
    letters = string.digits if draw.random() < 0.5 else string.digits + string.ascii_uppercase
    body = "".join(draw.choice(letters) for _ in range(IBAN_LENGTHS[country] - 4))
    check = next(n for n in range(2, 99) if mod97(f"{country}{n:02d}{body}".encode()))
    if not valid:
        check = 2 + (check - 2 + draw.randint(1, 95)) % 97
    whole = f"{country}{check:02d}{body}"
    if draw.random() < 0.5:
        return " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))
    return whole


def iban(draw: Draw) -> str:
    return _iban(draw, valid=True)


def no_iban(draw: Draw) -> str:
    return _iban(draw, valid=False)


WORDS = [
    "alma",
    "river",
    "stone",
    "blue",
    "north",
    "acme",
    "delta",
    "cloud",
    "maple",
    "orion",
    "quartz",
    "lumen",
    "field",
    "harbor",
]
TLDS = ("com", "org", "net", "de", "co.uk", "io", "fr", "edu", "info", "ai")


def domain(draw: Draw, tlds: tuple[str, ...] = TLDS) -> str:
    return (
        f"{draw.choice(WORDS)}{draw.choice(['', '-', ''])}{draw.choice(WORDS)}.{draw.choice(tlds)}"
    )


def email(draw: Draw) -> str:
    local = draw.choice(
        [
            f"{draw.choice(WORDS)}.{draw.choice(WORDS)}",
            f"{draw.choice(WORDS)}{digits(draw, 3)}",
            f"{draw.choice(WORDS)}+{draw.choice(WORDS)}",
            f"{draw.choice(WORDS)}_{draw.choice(WORDS).upper()}",
        ]
    )
    return f"{local}@{draw.choice(['', '', 'mail.'])}{domain(draw)}"


def no_email(draw: Draw) -> str:
    word, other = draw.choice(WORDS), draw.choice(WORDS)
    return draw.choice(
        [f"@{word}", f"{word}@{other}", f"{word} @ {other}", f"{word}@", f"@{word}.{other}("]
    )


def phone(draw: Draw) -> str:
    area, mid, last = f"{draw.randint(2, 9)}{digits(draw, 2)}", digits(draw, 3), digits(draw, 4)
    led = draw.choice(["Phone: |", "call me on |", "Mobile: |"])
    forms = [
        f"({area}) {mid}-{last}",
        f"{area}-{mid}-{last}",
        f"{area}.{mid}.{last}",
        f"+1 {area} {mid} {last}",
        f"+1-{area}-{mid}-{last}x{digits(draw, 3)}",
        f"+44 20 7{digits(draw, 3)} {digits(draw, 4)}",
        f"+49 30 {digits(draw, 7)}",
        f"+49 (0)151 {digits(draw, 8)}",
        f"{led}{mid} {last}",
        f"0044 7700 {digits(draw, 6)}",
        f"+33 1 {' '.join(digits(draw, 2) for _ in range(4))}",
        f"01 {' '.join(digits(draw, 2) for _ in range(4))}",
        f"07700 {digits(draw, 3)} {digits(draw, 3)}",
        f"+91 9{digits(draw, 4)} {digits(draw, 5)}",
        f"+81 3-{digits(draw, 4)}-{digits(draw, 4)}",
        f"+34 6{digits(draw, 2)} {digits(draw, 3)} {digits(draw, 3)}",
    ]
    return draw.choice(forms)


def no_phone(draw: Draw) -> str:
    return draw.choice(
        [
            f"{draw.randint(1, 28):02d}.{draw.randint(1, 12):02d}.{draw.randint(1950, 2030)}",
            f"{draw.randint(1950, 2030)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}",
            f"{draw.randint(1, 999)},{digits(draw, 3)},{digits(draw, 3)}.{digits(draw, 2)}",
            f"{draw.randint(1, 999)} {digits(draw, 3)} {digits(draw, 3)} EUR",
            f"order number {digits(draw, 8)}",
            f"ticket #{digits(draw, 7)}",
            f"{draw.randint(10, 23)}:{digits(draw, 1)}0:{digits(draw, 1)}5",
            f"pages {digits(draw, 3)}-{digits(draw, 3)}",
            f"{digits(draw, 4)} x {digits(draw, 4)} pixels",
            f"room {digits(draw, 4)}",
            f"the phone costs {draw.randint(1, 99)} {digits(draw, 3)} {digits(draw, 3)}",
            f"fax machine {digits(draw, 7)}",
            f"call me on {draw.randint(1, 28):02d}.{draw.randint(1, 12):02d}.2026",
            f"ISBN 978-{digits(draw, 1)}-{digits(draw, 4)}-{digits(draw, 4)}-{digits(draw, 1)}",
        ]
    )


def address(draw: Draw) -> str:
    if draw.random() < 0.5:
        return ".".join(str(draw.randint(0, 255)) for _ in range(4))
    groups = [f"{draw.randint(0, 0xFFFF):x}" for _ in range(8)]
    if draw.random() < 0.4:
        return f"2001:db8::{groups[0]}:{groups[1]}"
    return ":".join(groups) if any(c.isdigit() for c in "".join(groups)) else "fe80::1"


def no_address(draw: Draw) -> str:
    n = draw.randint
    return draw.choice(
        [
            f"version {n(1, 20)}.{n(0, 99)}.{n(0, 99)}",
            f"v{n(1, 9)}.{n(0, 9)}.{n(0, 9)}-rc{n(1, 9)}.{n(1, 9)}.{n(1, 9)}.{n(1, 9)}.{n(1, 9)}",
            f"{n(256, 999)}.{n(0, 255)}.{n(0, 255)}.{n(0, 255)}",
            f"section {n(1, 9)}.{n(1, 9)}.{n(1, 9)}",
            f"{n(1, 9)}.{n(1, 9)}.{n(1, 9)}.{n(1, 9)}.{n(1, 9)}",
            f"std::{draw.choice(WORDS)}",
            f"{n(10, 23)}:{n(10, 59)}:{n(10, 59)}",
        ]
    )


def ssn(draw: Draw) -> str:
    area = draw.choice([n for n in range(1, 900) if n != 666])
    by = draw.choice(["-", "-", " "])
    return f"{area:03d}{by}{draw.randint(1, 99):02d}{by}{draw.randint(1, 9999):04d}"


def no_ssn(draw: Draw) -> str:
    return draw.choice(
        [
            f"000-{digits(draw, 2)}-{digits(draw, 4)}",
            f"666-{digits(draw, 2)}-{digits(draw, 4)}",
            f"9{digits(draw, 2)}-{digits(draw, 2)}-{digits(draw, 4)}",
            f"{digits(draw, 3)}-00-{digits(draw, 4)}",
            f"{draw.randint(1, 899):03d}-{draw.randint(1, 99):02d}-0000",
            f"part A{digits(draw, 4)}-{digits(draw, 2)}-{digits(draw, 4)}",
        ]
    )


def url(draw: Draw) -> str:
    host = domain(draw)
    path = draw.choice(["", f"/{draw.choice(WORDS)}", f"/{draw.choice(WORDS)}?q={digits(draw, 4)}"])
    forms = [f"https://{host}{path}", f"http://www.{host}{path}", f"www.{host}{path}"]
    return draw.choice([*forms, domain(draw, ("com", "org", "net", "edu", "info", "co.uk"))])


def no_url(draw: Draw) -> str:
    word = draw.choice(WORDS)
    ends = ["py", "js", "md", "txt", "tar.gz", "json", "yaml"]
    return draw.choice(
        [
            f"{word}.{draw.choice(ends)}",
            f"{word}.{draw.choice(WORDS)}()",
            "e.g. this",
            "http is",
            f"{word}.common",
        ]
    )


ALNUM = string.ascii_letters + string.digits


def key(draw: Draw) -> str:
    return draw.choice(
        [
            f"sk-{some(draw, ALNUM, 32, 48)}",
            f"sk-proj-{some(draw, ALNUM + '_-', 40, 60)}A",
            f"sk-ant-api03-{some(draw, ALNUM + '_-', 40, 60)}A",
            f"AKIA{some(draw, string.ascii_uppercase + string.digits, 16, 16)}",
            f"ghp_{some(draw, ALNUM, 36, 36)}",
            f"github_pat_{some(draw, ALNUM, 22, 22)}_{some(draw, ALNUM, 40, 40)}",
            f"glpat-{some(draw, ALNUM, 20, 20)}",
            f"xoxb-{digits(draw, 12)}-{some(draw, ALNUM, 24, 24)}",
            f"AIza{some(draw, ALNUM, 35, 35)}",
            f"hf_{some(draw, ALNUM, 34, 34)}",
            f"sk_live_{some(draw, ALNUM, 24, 24)}",
            (
                f"eyJ{some(draw, ALNUM, 20, 30)}.eyJ{some(draw, ALNUM, 30, 50)}"
                f".{some(draw, ALNUM, 43, 43)}"
            ),
        ]
    )


def no_key(draw: Draw) -> str:
    word, other = draw.choice(WORDS), draw.choice(WORDS)
    return draw.choice(
        [
            f"sk-{word}",
            f"task-{word}-{other}-{word}-{other}",
            some(draw, "0123456789abcdef", 40, 40),
            f"{digits(draw, 8)}-aaaa-4bbb-8ccc-{some(draw, 'abcdef', 12, 12)}",
            f"hf_{word}",
            f"AKIA {word}",
            "YOUR_API_KEY",
            f"{word}_{other}_{word}_{other}_{word}",
        ]
    )


MAKERS: dict[str, tuple[Callable[[Draw], str], Callable[[Draw], str]]] = {
    "CREDIT_CARD": (card, no_card),
    "IBAN_CODE": (iban, no_iban),
    "EMAIL": (email, no_email),
    "PHONE": (phone, no_phone),
    "IP": (address, no_address),
    "US_SSN": (ssn, no_ssn),
    "URL": (url, no_url),
    "API_KEY": (key, no_key),
}
SENTENCES = (
    "Please use {} for this.",
    "It says {} on the second page, as far as I know.",
    '{{"value": "{}"}}',
    "{}",
    "I think ({}) is what they asked for!",
    "Before: {}; after: nothing.",
    "The customer wrote {}, and we answered.",
    "> {}\n> thanks",
)


def generated(seed: int, each: int) -> Tally:
    draw = random.Random(seed)
    tally = Tally()
    for name, (make, near) in MAKERS.items():
        for _ in range(each):
            lead, _, value = make(draw).rpartition("|")
            text = draw.choice(SENTENCES).format(lead + value)
            start = text.index(value)
            tally.add(text, [Gold(start, start + len(value), name)])
            tally.add(draw.choice(SENTENCES).format(near(draw)), [])
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=600, help="sentences of each type")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    tallies = {"Presidio's sample": sample(), "generated": generated(asked.seed, asked.each)}
    if asked.json:
        print(json.dumps({name: tally.figures() for name, tally in tallies.items()}))
        return
    for name, tally in tallies.items():
        print(f"{name}:")
        for kind, figures in tally.figures().items():
            print(f"  {kind:12} recall {figures['recall']:32} precision {figures['precision']}")
        for wrong in tally.wrong:
            print(f"    {wrong}")


if __name__ == "__main__":
    main()
