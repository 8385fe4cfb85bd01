"""What a request is: the client's labels, the policy's rules over its text, and the safer of both.

A label of the client wins, except that sensitivity may only rise above what the rules found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forebay.policy.regex import Pattern, any_word, utf8
from forebay.values import SENSITIVITIES, Chat, Labels, Request

if TYPE_CHECKING:
    from forebay.policy.rules import Classify, Set, When

_FREE = ("task", "tier", "language", "mode")


class Classifier:
    """The policy's classification rules, compiled once; `labels` is called for each request."""

    def __init__(self, rules: tuple[Classify, ...]) -> None:
        self._rules = tuple((_detector(rule.when), rule.set) for rule in rules)

    def labels(self, request: Request) -> Labels:
        """Return the labels of a request; sensitivity is never None, and `low` if unsaid."""
        text = utf8(text_of(request))
        found = [said for detects, said in self._rules if all(d.find(text) for d in detects)]
        return merge(request.labels, found)


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
    """Return the text that rules look at: what users wrote, not what the system or tools said."""
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        return prompt.text
    return "\n".join(m.content for m in prompt.messages if m.role == "user")


def _detector(when: When) -> tuple[Pattern, ...]:
    """Compile a rule's conditions; all of them must be found."""
    patterns = []
    if when.words:
        patterns.append(any_word(when.words))
    if when.pattern is not None:
        patterns.append(when.pattern)
    return tuple(Pattern(pattern) for pattern in patterns)
