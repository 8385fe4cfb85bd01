"""Whether a provider can enforce a JSON Schema: each takes only some words of the language."""

from __future__ import annotations

_COMMON = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const"}
    | {"$ref", "$defs", "definitions", "title", "description"}
)

OPENAI = _COMMON | frozenset(
    {"pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"multipleOf", "minItems", "maxItems"}
)
ANTHROPIC = _COMMON | frozenset({"default"})

_BY_NAME = ("properties", "$defs", "definitions")


def is_closed(schema: object, words: frozenset[str], *, required: bool) -> bool:
    """Return whether a schema keeps to the subset that a provider enforces while it decodes.

    The root is an object, and every object says all its properties and allows no others; with
    `required` it requires them all too. Elsewhere the provider would answer with an error.
    """
    try:
        root = isinstance(schema, dict) and schema.get("type") == "object"
        return root and _is_closed(schema, words, required=required)
    except (TypeError, AttributeError, RecursionError):  # it is no schema that a check can walk
        return False


def _is_closed(schema: object, words: frozenset[str], *, required: bool) -> bool:
    if not isinstance(schema, dict) or not set(schema) <= words:
        return False
    if schema.get("type") == "object" or "properties" in schema:
        names, wanted = schema.get("properties"), schema.get("required", [])
        if not isinstance(names, dict) or not isinstance(wanted, list):
            return False
        if schema.get("additionalProperties") is not False:
            return False
        if set(wanted) - set(names) or (required and set(names) - set(wanted)):
            return False
    inner: list[object] = [part for word in _BY_NAME for part in schema.get(word, {}).values()]
    inner += schema.get("anyOf", [])
    inner += [schema["items"]] if "items" in schema else []
    return all(_is_closed(part, words, required=required) for part in inner)
