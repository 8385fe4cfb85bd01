"""`policy_rules`: the policy's own sentences over request, answer and metadata, in CEL.

An expression says what must hold. It is compiled and type-checked when the policy is read;
evaluating it costs microseconds, has no loops but those over bounded lists, patterns are RE2's,
and what cannot be evaluated counts as broken. Rules that look at the request alone are judged
before any engine is called, and hold nothing back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cel_expr_python import cel  # type: ignore[import-untyped]

from forebay.policy.classify import text_of
from forebay.policy.regex import utf8
from forebay.policy.verifiers.language import language_of
from forebay.values import Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forebay.policy.rules import ContentRule
    from forebay.values import Labels, Request

NAME = "policy_rules"

SIZE_MAX = 4096
"""Characters of an expression."""

_REASON_MAX = 500

_LABELS = ("task", "sensitivity", "tier", "language", "mode")
_TEXTS = cel.Type.List(cel.Type.STRING)

OF_REQUEST: dict[str, Any] = {
    "request.text": cel.Type.STRING,
    "request.words": cel.Type.INT,
    "request.language": cel.Type.STRING,
    "request.sources": _TEXTS,
    "request.tools": _TEXTS,
    "request.stream": cel.Type.BOOL,
    **{f"request.labels.{key}": cel.Type.STRING for key in _LABELS},
    "route": cel.Type.STRING,
}
"""What is known before a target is chosen: what users wrote, ids of sources, names of tools, the
labels as they were found (empty where unsaid), and the class that takes the request."""

_ANSWERS: dict[str, Any] = {
    "text": cel.Type.STRING,
    "words": cel.Type.INT,
    "language": cel.Type.STRING,
}

OF_ANSWER: dict[str, Any] = {
    "target": cel.Type.STRING,
    **{f"{name}.{key}": kind for name in ("response", "answer") for key, kind in _ANSWERS.items()},
}
"""What is known of an answer; `answer` is another name for `response`."""

_REQUEST_ONLY = cel.NewEnv(variables=OF_REQUEST)
_WHOLE = cel.NewEnv(variables={**OF_REQUEST, **OF_ANSWER})

_PROBLEM = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_REFERENCE = re.compile(r"undeclared reference to '([^']*)'")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an expression, at a line and column of it; `unknown` is a bad name."""

    line: int
    column: int
    message: str
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What rules may look at before there is an answer."""

    request: Request
    route: str
    labels: Labels

    def values(self) -> dict[str, Any]:
        """Return the variables of a request."""
        text = _plain(text_of(self.request))
        return {
            "request.text": text,
            "request.words": len(text.split()),
            "request.language": language_of(text),
            "request.sources": [_plain(source.id) for source in self.request.sources],
            "request.tools": [_plain(tool.name) for tool in self.request.tools],
            "request.stream": self.request.stream,
            **{f"request.labels.{key}": _plain(getattr(self.labels, key) or "") for key in _LABELS},
            "route": self.route,
        }


class Rules:
    """The rules of one class, compiled; they are asked in their order."""

    def __init__(self, rules: Iterable[tuple[str, ContentRule]]) -> None:
        self._rules = tuple((name, rule, _compiled(rule.expression)) for name, rule in rules)
        self.reads_answer = any(reads_answer(rule.expression) for _, rule, _ in self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def asked(self, asked: Asked) -> Verdict | None:
        """Return why a request may not be answered, by the rules over the request alone."""
        early = tuple(one for one in self._rules if not reads_answer(one[1].expression))
        verdict = _judged(early, asked.values()) if early else None
        return verdict if verdict is not None and verdict.outcome == "failed" else None

    def answered(self, asked: Asked, target: str, answer: str) -> Verdict:
        """Return the verdict of all rules on a whole answer."""
        if not self._rules:
            return Verdict(NAME, "not_applicable", "the policy has no rules for this class")
        text = _plain(answer)
        said = {"text": text, "words": len(text.split()), "language": language_of(text)}
        of_answer = {f"{name}.{key}": said[key] for name in ("response", "answer") for key in said}
        return _judged(self._rules, {**asked.values(), **of_answer, "target": target})


class RulesCheck:
    """Watches one answer; holds nothing back where no rule looks at it."""

    name = NAME

    def __init__(self, rules: Rules, asked: Asked, target: str) -> None:
        self._rules, self._asked, self._target = rules, asked, target
        self._text: list[str] = []
        self.release = Release.FINAL if rules.reads_answer else Release.TOKEN

    def feed(self, text: str) -> str:
        """Return the text itself."""
        if self._rules.reads_answer:
            self._text.append(text)
        return text

    def finish(self) -> tuple[str, Verdict]:
        """Return no more text, and the verdict."""
        return "", self._rules.answered(self._asked, self._target, "".join(self._text))


def faults(expression: str) -> tuple[Fault, ...]:
    """Return all that is wrong with an expression; none where it can be evaluated."""
    if len(expression) > SIZE_MAX:
        return (Fault(1, 1, f"the expression is longer than {SIZE_MAX:,} characters"),)
    try:
        made = _WHOLE.compile(expression)
    except RuntimeError as error:
        return _told(expression, str(error))
    kind = made.return_type().name()
    if kind != "BOOL":
        said = f"the expression must be true or false, and is of type {kind.lower()}"
        return (Fault(1, 1, said),)
    try:
        tried = made.eval(data=_EMPTY)
    except RuntimeError:
        return (Fault(1, 1, "it loops too often to be evaluated"),)
    if tried.type() == cel.Type.ERROR and "regular expression" in (why := str(tried.value())):
        return (Fault(1, 1, why.split(": ", 1)[-1].removesuffix("]")),)
    return ()


def reads_answer(expression: str) -> bool:
    """Return whether an expression looks at more than the request and its class."""
    try:
        _REQUEST_ONLY.compile(expression)
    except RuntimeError:
        return True
    return False


_EMPTY: dict[str, Any] = {
    name: {"STRING": "", "INT": 0, "BOOL": False}.get(kind.name(), [])
    for name, kind in (OF_REQUEST | OF_ANSWER).items()
}


@lru_cache(maxsize=256)
def _compiled(expression: str) -> Any:
    return _WHOLE.compile(expression)


def _told(expression: str, message: str) -> tuple[Fault, ...]:
    """Return the compiler's complaints with their places."""
    found = []
    lines = expression.split("\n")
    for at, column, said in _PROBLEM.findall(message):
        line, place = int(at), int(column)
        named = _REFERENCE.search(said)
        if named is None:
            found.append(Fault(line, place, said.removesuffix(" [INVALID_ARGUMENT]")))
            continue
        name = named.group(1)
        # The compiler points to the dot before a name's last part, or to a call's parenthesis.
        pointed = lines[line - 1][place - 1 : place]
        before = {".": len(name.rpartition(".")[0]), "(": len(name)}.get(pointed, 0)
        unknown = f"no variable or function {name}"
        found.append(Fault(line, max(1, place - before), unknown, name))
    if not found:
        deep = "recursion" in message
        found.append(Fault(1, 1, "it nests too deep" if deep else message.partition(" [")[0]))
    return tuple(found)


def _judged(rules: tuple[tuple[str, ContentRule, Any], ...], values: dict[str, Any]) -> Verdict:
    failed: list[str] = []
    flagged: list[str] = []
    for name, rule, expression in rules:
        holds = _holds(expression, values)
        if rule.action == "allow":
            if holds:
                break
        elif not holds:
            why = "it could not be evaluated" if holds is None else rule.message or "does not hold"
            # What cannot be evaluated is not let through with a flag.
            (flagged if rule.action == "flag" and holds is False else failed).append(
                f"{name}: {why}"
            )
    if failed:
        return Verdict(NAME, "failed", "; ".join(failed)[:_REASON_MAX])
    if flagged:
        return Verdict(NAME, "flagged", "; ".join(flagged)[:_REASON_MAX])
    return Verdict(NAME, "passed")


def _holds(expression: Any, values: dict[str, Any]) -> bool | None:
    """Return whether an expression holds; None where it cannot be evaluated."""
    try:
        found = expression.eval(data=values).value()
    except (RuntimeError, ValueError, TypeError):
        return None
    return found if isinstance(found, bool) else None


def _plain(text: str) -> str:
    """Return the text without halves of surrogate pairs, which CEL cannot hold."""
    return text if text.isascii() else utf8(text).decode("utf-8")
