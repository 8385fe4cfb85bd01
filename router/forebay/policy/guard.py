"""One verifier under guard: whatever it does, it ends in one verdict of its own, or in `failed`.

A verifier that raises, takes longer than its budget or returns nonsense lets nothing more go.
Python cannot be stopped from outside in the thread that runs it, so the budget is measured and
not enforced: what makes a verifier end in time is that it bounds what it reads. The budget is
what makes one that does not end in time fail.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar, get_args, runtime_checkable

from forebay.policy.tools import written
from forebay.values import Outcome, Release, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.values import ToolCall

BUDGET_S = 0.05
"""What a verifier may take for one piece of an answer, and again for its verdict."""

_Made = TypeVar("_Made")


class Check(Protocol):
    """One verifier at work on one answer."""

    name: str
    release: Release

    def feed(self, text: str) -> str:
        """Return the text that this check lets go on."""
        ...

    def finish(self) -> tuple[str, Verdict]:
        """Return the rest of the text, and the verdict on all of it."""
        ...


@runtime_checkable
class CallCheck(Protocol):
    """A check that tells calls from text; the others read a call as a line of JSON."""

    def called(self, call: ToolCall) -> None:
        """Look at a call that the engine made itself, after all text and before `finish`."""
        ...


class Nonsense(Exception):
    """What a verifier returned that it may not, as the end of a sentence."""


class Guarded:
    """A check that cannot do harm. Only one that is `changing` may hand on another text.

    `broken` says in what way the check broke, once it has.
    """

    def __init__(
        self,
        check: Check,
        name: str,
        *,
        changing: bool,
        now_s: Callable[[], float],
        budget_s: float,
    ) -> None:
        self.name = name
        self.release = check.release
        self.changing = changing
        self.broken = ""
        self._check = check
        self._now_s, self._budget_s = now_s, budget_s
        self._read = 0
        self._owed = ""
        self._lines = ""
        self._early = ""

    def feed(self, text: str) -> str:
        """Return the text that may go on; once the check is broken, nothing of what it changes."""
        self._read += len(text)
        if not self.changing:
            self._owed += text
        if self.broken:
            return ""
        out = self._step(lambda: _text(self._check.feed(text)))
        if out is None:
            return ""
        if self.changing:
            return out
        if not self._owed.startswith(out):
            self.broken = "it returned another text than it was given"
            return ""
        self._owed = self._owed[len(out) :]
        return out

    def called(self, call: ToolCall) -> None:
        """Have a call looked at that the engine made itself."""
        if self.broken:
            return
        check = self._check
        if isinstance(check, CallCheck):
            self._step(lambda: check.called(call))
            return
        line = f"\n{written(call)}"
        self._lines += line
        self._early += self._step(lambda: _text(self._check.feed(line))) or ""

    def finish(self) -> tuple[str, Verdict]:
        """Return the rest of the text, and a verdict that is one.

        Text that a broken check did not change is handed on, for the verdict withholds it.
        """
        told = None if self.broken else self._step(lambda: self._finished(*self._check.finish()))
        if told is not None:
            return told
        rest = "" if self.changing else self._owed
        return rest, Verdict(self.name, "failed", f"the verifier broke: {self.broken}")

    def _finished(self, rest: str, verdict: Verdict) -> tuple[str, Verdict]:
        """Return what `finish` said, if it makes sense."""
        _text(rest)
        if not isinstance(verdict, Verdict) or verdict.verifier != self.name:
            raise Nonsense("it returned no verdict of its own")
        if verdict.outcome not in get_args(Outcome) or not isinstance(verdict.reason, str):
            raise Nonsense("it returned no outcome and reason")
        most = self._read + len(self._lines)
        if not all(0 <= first <= last <= most for first, last in verdict.spans):
            raise Nonsense("it returned a span outside the answer")
        if self.changing:
            return rest, verdict
        within = tuple(span for span in verdict.spans if span[1] <= self._read)
        verdict = replace(verdict, spans=within)
        if self._early + rest != self._owed + self._lines:
            raise Nonsense("it returned another text than it was given")
        return self._owed, verdict

    def _step(self, take: Callable[[], _Made]) -> _Made | None:
        """Return what one step of the check returns, or None where it broke."""
        begun_s = self._now_s()
        try:
            made = take()
        except Nonsense as fault:
            self.broken = str(fault)
            return None
        except Exception as error:  # noqa: BLE001 - whatever broke it, it must not pass
            self.broken = f"it raised {type(error).__name__}"
            return None
        took_s = self._now_s() - begun_s
        if took_s > self._budget_s:
            self.broken = f"it took {took_s * 1000:.0f} ms, and has {self._budget_s * 1000:.0f}"
            return None
        return made


def _text(said: str) -> str:
    if not isinstance(said, str):
        raise Nonsense("it returned what is no text")
    return said
