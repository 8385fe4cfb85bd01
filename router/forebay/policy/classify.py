"""What a request is: the client's labels, the policy's rules over its text, and the safer of both.

A label of the client wins, except that sensitivity may only rise above what the rules found.
Sensitivity is looked for in all text that a request brings, whoever wrote it: a model is told
all of it. The other labels are of what users ask for, so only what they wrote is read for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from forebay.policy.regex import Pattern, any_word, utf8
from forebay.policy.rules import Set
from forebay.policy.verifiers.fold import seen
from forebay.values import SENSITIVITIES, Chat, Labels, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forebay.policy.rules import Classify, When

_FREE = ("task", "tier", "language", "mode")


class Classifier:
    """The policy's classification rules, compiled once; `labels` is called for each request."""

    def __init__(self, rules: tuple[Classify, ...]) -> None:
        self._rules = tuple((_detector(rule.when), rule.set) for rule in rules)

    def labels(self, request: Request) -> Labels:
        """Return the labels of a request; sensitivity is never None, and `low` if unsaid."""
        asked = text_of(request)
        found = self._found(asked, self._rules)
        whole = "\n".join(_texts(request))
        if whole != asked:
            raising = tuple(rule for rule in self._rules if rule[1].sensitivity is not None)
            risen = (said.sensitivity for said in self._found(whole, raising))
            found += [Set(sensitivity=one) for one in risen]
        return merge(request.labels, found)

    def _found(self, text: str, rules: tuple[tuple[tuple[Pattern, ...], Set], ...]) -> list[Set]:
        """Return what those rules say that fire on a text, as written or as a reader sees it."""
        views = [utf8(view) for view in (text, *seen(text))]
        return [
            said
            for detects, said in rules
            if any(all(d.find(view) for d in detects) for view in views)
        ]


def merge(client: Labels, found: list[Set]) -> Labels:
    """Return the client's labels completed by what rules said; the highest sensitivity stays."""
    free = {
        key: getattr(client, key)
        or next((said for rule in found if (said := getattr(rule, key)) is not None), None)
        for key in _FREE
    }
    said = (client.sensitivity, *(rule.sensitivity for rule in found))
    rank = max((SENSITIVITIES.index(one) for one in said if one), default=0)
    return Labels(sensitivity=SENSITIVITIES[rank], **free)


def text_of(request: Request) -> str:
    """Return what users wrote, not what the system, the model or a tool said."""
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        return prompt.text
    return "\n".join(m.content for m in prompt.messages if m.role == "user")


def _texts(request: Request) -> Iterator[str]:
    """Yield all text that a request brings: turns, calls, tools and sources."""
    prompt = request.prompt
    if isinstance(prompt, Chat):
        for message in prompt.messages:
            yield message.content
            for call in message.tool_calls:
                yield from (call.name, *_strings(_parsed(call.arguments)))
    else:
        yield prompt.text
    for source in request.sources:
        yield from (source.id, source.text)
    for tool in request.tools:
        yield from (tool.name, tool.description, *_strings(tool.parameters))


def _parsed(arguments: str) -> object:
    """Return what a model is shown of a call's arguments: a string's escapes are gone by then."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


def _strings(value: object) -> Iterator[str]:
    """Yield the keys and strings of a JSON value, however deep it is."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one.values(), *one]
        elif isinstance(one, list):
            waiting += one
        elif one is not None:
            yield str(one)


def _detector(when: When) -> tuple[Pattern, ...]:
    """Compile a rule's conditions; all of them must be found."""
    patterns = []
    if when.words:
        patterns.append(any_word(when.words))
    if when.pattern is not None:
        patterns.append(when.pattern)
    return tuple(Pattern(pattern) for pattern in patterns)
