"""Texts with something personal in them: what of it may be seen, and when.

Each is a list of parts, a part being what is said and what is shown of it.
"""

# ruff: noqa: RUF001 - look-alike characters are what is tested
from __future__ import annotations

Parts = tuple[tuple[str, str], ...]

ENTITIES: tuple[tuple[str, str], ...] = (
    ("4111 1111 1111 1111", "CREDIT_CARD"),
    ("378282246310005", "CREDIT_CARD"),
    ("GB82 WEST 1234 5698 7654 32", "IBAN_CODE"),
    ("DE89370400440532013000", "IBAN_CODE"),
    ("ada.lovelace+x@example.co.uk", "EMAIL"),
    ("+1 (555) 123-4567", "PHONE"),
    ("0490 75 40 81", "PHONE"),
    ("10.0.0.1", "IP"),
    ("2001:db8::ff00:42:8329", "IP"),
    ("078-05-1120", "US_SSN"),
    ("https://a.example/b?c=d", "URL"),
    ("www.example.org", "URL"),
    ("AKIAIOSFODNN7EXAMPLE", "API_KEY"),
    ("sk-abcdEFGH1234567890xyz", "API_KEY"),
)
"""Each type as it is written in plain ASCII."""

DISGUISED: tuple[tuple[str, str], ...] = (
    ("４１１１ １１１１ １１１１ １１１１", "CREDIT_CARD"),
    ("𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏", "CREDIT_CARD"),
    ("4111\u00a01111\u20091111\u20111111", "CREDIT_CARD"),
    ("4\u200b1\u200c1\u200d1\ufeff111111111111", "CREDIT_CARD"),
    ("ＧＢ82 WEST 1234 5698 7654 32", "IBAN_CODE"),
    ("bоb@exаmple.cоm", "EMAIL"),
    ("ｂｏｂ＠ｅｘａｍｐｌｅ．ｃｏｍ", "EMAIL"),
    ("＋49 30 1234567", "PHONE"),
    ("１０.０.０.１", "IP"),
    ("０７８-０５-１１２０", "US_SSN"),
    ("ｈttps://a.example/b", "URL"),
    ("ＡＫＩＡIOSFODNN7EXAMPLE", "API_KEY"),
    (r"ann\u0040firma.de", "EMAIL"),
    (r"4111\u00a01111\u00a01111\u00a01111", "CREDIT_CARD"),
)
"""The same behind look-alikes, invisible characters and JSON's escapes."""


def around(entity: str, name: str) -> Parts:
    """Return a short text with one entity in it."""
    return (("It is ", "It is "), (entity, f"[{name}]"), (", so.", ", so."))


def letter(*entities: tuple[str, str]) -> Parts:
    """Return a text that names all of these, one after another."""
    between = (" or ", " or ")
    made: list[tuple[str, str]] = [("Dear all, it is ", "Dear all, it is ")]
    for entity, name in entities:
        made += [(entity, f"[{name}]"), between]
    return (*made, ("so on, as ever.", "so on, as ever."))


def said(parts: Parts) -> str:
    """Return the whole text."""
    return "".join(text for text, _ in parts)


def shown(parts: Parts) -> str:
    """Return what may be seen of it."""
    return "".join(seen for _, seen in parts)


def left(parts: Parts, sent: str) -> int:
    """Return how many characters of the text have left where `sent` has been seen of it.

    An entity has, once its type has: what still comes of it is held back no more, but dropped.
    """
    at = out = 0
    for text, seen in parts:
        if text == seen:
            at += min(len(text), len(sent) - out)
        elif sent.startswith(seen, out):
            at += len(text)
        out += len(seen)
        if out >= len(sent):
            break
    return at
