"""A thousand requests that must each get a sentence: guides, prompts and sampling values."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

REGEXES = (
    r"\p{L}{%d}",
    r"(?=a{%d})b",
    r"(?<!b)a{%d}",
    r"(a{%d}",
    r"a{%d})",
    r"[z-a]{%d}",
    r"[a-z{%d}",
    r"\b{%d}\1",
    r"((a{1,9%d}){1,999}){1,999}",
    r"([a-z]{1,9%d}){1,999}",
    r"a{%d99999}",
    r"(?P<n>a{%d})(?P=n)",
)
SCHEMAS: tuple[Any, ...] = (
    {"type": "string", "pattern": "(?=%d)"},
    {"type": "string", "pattern": r"\p{Lu}%d"},
    {"type": "object", "minProperties": 9, "maxProperties": 2, "title": "%d"},
    {"enum": [], "title": "%d"},
    {"type": "integer", "minimum": 9, "maximum": 3, "title": "%d"},
    {"type": "nonsense%d"},
    {"$ref": "#/$defs/absent%d"},
    {"type": "array", "minItems": 9, "maxItems": 3, "title": "%d"},
    {"type": "string", "minLength": 9, "maxLength": 3, "title": "%d"},
    {"type": "string", "maxLength": 100_001, "title": "%d"},
    {"type": "array", "items": False, "minItems": 3, "title": "%d"},
    {"anyOf": [], "title": "%d"},
)
GRAMMARS = ('start ::= "%d"', "root ::= missing%d", 'root ::= "a%d', "root ::= root # %d")


def bad_requests(count: int, seed: int) -> Iterator[tuple[list[int], int, dict[str, Any]]]:
    """Yield (prompt, tokens, inputs) of requests that cannot be served."""
    chance = random.Random(seed)
    for order in range(count):
        kind = order % 5
        number = chance.randint(100, 999)
        if kind == 0:
            yield [5, 6, 7], 8, _guide("regex", chance.choice(REGEXES) % number)
        elif kind == 1:
            text = json.dumps(chance.choice(SCHEMAS)).replace("%d", str(number))
            yield [5, 6, 7], 8, _guide("json_schema", text)
        elif kind == 2:
            yield [5, 6, 7], 8, _garbage(chance, number)
        elif kind == 3:
            yield [5] * chance.choice((8192, 9000, 20_000)), 8, {}
        else:
            yield [5, 6, 7], 8, _sampling(chance)


def _guide(kind: str, text: str) -> dict[str, Any]:
    return {"guided_decoding_guide_type": kind, "guided_decoding_guide": text}


def _garbage(chance: random.Random, number: int) -> dict[str, Any]:
    depth = 60 + number
    return chance.choice(
        (
            _guide("json_schema", "{" * depth),
            _guide("json_schema", '{"a":' * depth + "1" + "}" * depth),
            _guide("json_schema", "\x00\ufffe" * number),
            _guide("json_schema", f'{{"minimum": NaN, "n": {number}}}'),
            _guide("json_schema", "9" * 70_000),
            _guide("regex", "(" * depth + "a" + ")" * depth),
            _guide("regex", "a" * 70_000),
            _guide("ebnf_grammar", chance.choice(GRAMMARS).replace("%d", str(number))),
            _guide(f"yaml{number}", "a: b"),
            {"guided_decoding_guide": "{}"},
        )
    )


def _sampling(chance: random.Random) -> dict[str, Any]:
    return chance.choice(
        (
            {"temperature": float("nan")},
            {"temperature": -1.0},
            {"temperature": float("inf")},
            {"runtime_top_p": 1.5},
            {"runtime_top_p": -0.1},
            {"runtime_top_k": -3},
            {"repetition_penalty": 0.0},
            {"repetition_penalty": -1.0},
            {"presence_penalty": 9.0},
            {"frequency_penalty": float("-inf")},
            {"min_tokens": 99},
            {"num_return_sequences": 0},
            {"num_return_sequences": 2},
            {"beam_width": 4},
            {"end_id": 10**6},
            {"stop_words_list": np.array([[[1, 2], [5, -1]]], dtype=np.int32)},
            {"embedding_bias": np.ones((1, 4), dtype=np.float32)},
            {"lora_task_id": 7},
        )
    )
