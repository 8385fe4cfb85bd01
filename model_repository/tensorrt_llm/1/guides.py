"""Guides: what an answer must look like, checked before the engine ever sees one.

A grammar the engine cannot compile breaks its pipeline for every request in flight, and one
that compiles for seconds stalls them. So each guide passes three gates, outside the stepping
thread: bounds on its text here; a trial compilation in another process, with the very grammar
library that the engine has inside, under limits of processor time and memory; and a trial
walk through it there. Verdicts are remembered by content.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

MAX_GUIDE_BYTES = 64 * 1024
MAX_NESTING = 64
MAX_REPEAT = 10_000
_REPEAT = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}")
_BOUNDS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


class GuideKind(StrEnum):
    """Upstream's guide types, and ours for words that must not appear."""

    JSON = "json"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    EBNF = "ebnf_grammar"
    WITHOUT_WORDS = "without_words"


@dataclass(frozen=True, slots=True)
class Guide:
    """One guide. For `WITHOUT_WORDS`, `bad_words` holds the token sequences instead of text."""

    kind: GuideKind
    text: str
    bad_words: tuple[tuple[int, ...], ...] = ()


class GuideRefusedError(Exception):
    """The guide cannot be followed; the text is the sentence for its sender."""


ASKABLE = (GuideKind.JSON, GuideKind.JSON_SCHEMA, GuideKind.REGEX, GuideKind.EBNF)


def guide_of(
    kind: str | None, text: str | None, bad_words: tuple[tuple[int, ...], ...]
) -> Guide | None:
    """Return the guide a request asks for, or None.

    Raises:
        GuideRefusedError: if type and guide do not go together, or exceed the bounds.
    """
    if kind is None:
        if text is not None:
            raise GuideRefusedError("guided_decoding_guide needs a guided_decoding_guide_type")
        return Guide(GuideKind.WITHOUT_WORDS, "", bad_words) if bad_words else None
    if kind not in ASKABLE:
        raise GuideRefusedError(
            f"guided_decoding_guide_type {kind[:40]!r} is not one of {', '.join(ASKABLE)}"
        )
    if bad_words:
        raise GuideRefusedError("bad_words_list cannot be combined with guided decoding")
    if kind == GuideKind.JSON:
        return Guide(GuideKind.JSON, "{}")
    if text is None:
        raise GuideRefusedError(f"guided_decoding_guide_type {kind} needs a guided_decoding_guide")
    guide = Guide(GuideKind(kind), text)
    check_bounds(guide)
    return guide


def check_bounds(guide: Guide) -> None:
    """Pass if the guide's text is of a size and depth worth compiling.

    Raises:
        GuideRefusedError: naming the bound.
    """
    size = len(guide.text.encode("utf-8", "surrogatepass"))
    if size > MAX_GUIDE_BYTES:
        raise GuideRefusedError(
            f"guided_decoding_guide has {size} bytes; at most {MAX_GUIDE_BYTES} are read"
        )
    if "\0" in guide.text:
        raise GuideRefusedError("guided_decoding_guide holds a NUL character")
    if guide.kind is GuideKind.JSON_SCHEMA:
        _check_schema(guide.text)
    else:
        _check_grammar(guide)


def _check_schema(text: str) -> None:
    if _depth(text, "[{", "]}") > MAX_NESTING:
        raise GuideRefusedError(f"the JSON schema is nested deeper than {MAX_NESTING} levels")
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise GuideRefusedError(f"the JSON schema is not JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise GuideRefusedError("the JSON schema must be an object or a boolean")
    _check_counts(schema)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_counts(node: object) -> None:
    if isinstance(node, list):
        for inner in node:
            _check_counts(inner)
    elif isinstance(node, dict):
        for key, inner in node.items():
            if key in _BOUNDS and isinstance(inner, int | float) and abs(inner) > MAX_REPEAT:
                raise GuideRefusedError(f"{key} in the JSON schema is above {MAX_REPEAT}")
            if key == "pattern" and isinstance(inner, str):
                _check_repeats(inner)
            _check_counts(inner)


def _check_grammar(guide: Guide) -> None:
    name = "regex" if guide.kind is GuideKind.REGEX else "grammar"
    if not guide.text.strip():
        raise GuideRefusedError(f"the {name} is empty")
    if _depth(guide.text, "([", ")]") > MAX_NESTING:
        raise GuideRefusedError(f"the {name} is nested deeper than {MAX_NESTING} levels")
    _check_repeats(guide.text)


def _check_repeats(text: str) -> None:
    for match in _REPEAT.finditer(text):
        for count in match.groups():
            if count and (len(count) > len(str(MAX_REPEAT)) or int(count) > MAX_REPEAT):
                raise GuideRefusedError(f"the repetition {match[0][:40]} is above {MAX_REPEAT}")


def _depth(text: str, opening: str, closing: str) -> int:
    """Return the deepest nesting of brackets; brackets inside strings count, on the safe side."""
    depth = deepest = 0
    for character in text:
        if character in opening:
            depth += 1
            deepest = max(deepest, depth)
        elif character in closing and depth:
            depth -= 1
    return deepest
