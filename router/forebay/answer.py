"""One call's answer on its way through the gate: what may leave now, and in the end whether."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from forebay.policy.tools import written
from forebay.values import Chunk, Token

if TYPE_CHECKING:
    from forebay.policy.tools import Calls
    from forebay.policy.verify import Gate
    from forebay.values import Verdict

WITHHOLDING = ("failed", "referred")
"""Outcomes of a verdict after which an answer does not leave."""


@dataclass(slots=True)
class _Unsent:
    """Tokens that were decoded and whose text has not left yet."""

    tokens: int = 0
    logprobs: tuple[float, ...] = ()

    def add(self, chunk: Chunk) -> None:
        """Count a chunk."""
        self.tokens += chunk.tokens
        self.logprobs += chunk.logprobs

    def token(self, text: str) -> Token:
        """Return the event that carries `text` and all that was counted."""
        token = Token(text, self.tokens, self.logprobs)
        self.tokens, self.logprobs = 0, ()
        return token


@dataclass(slots=True)
class Answer:
    """Chunks in, tokens out; `last` is the newest chunk, with the calls that may leave."""

    gate: Gate
    calls: Calls
    last: Chunk = Chunk(finish="stop")  # noqa: RUF009 - it is frozen
    verdicts: tuple[Verdict, ...] = ()
    _unsent: _Unsent = field(default_factory=_Unsent)

    def take(self, chunk: Chunk) -> Token | None:
        """Return what may leave after one more chunk, if anything."""
        self._unsent.add(chunk)
        self.last = chunk
        text = self.calls.feed(self.gate.feed(chunk.text))
        return self._unsent.token(text) if text else None

    def judge(self) -> Token:
        """Judge the whole; return what has not left yet, and leaves only if nothing withholds."""
        native = self.gate.called(self.last.tool_calls)
        text, self.verdicts = self.gate.finish()
        text, made = self.calls.finish(text, native)
        if made:
            self.last = replace(self.last, finish="tool_calls", tool_calls=made)
        return self._unsent.token(text)

    def said(self, rest: Token) -> str:
        """Return in words what was judged: the text that is left, else the calls it makes."""
        return rest.text or "\n".join(map(written, self.last.tool_calls))

    @property
    def withheld(self) -> Verdict | None:
        """The first verdict that keeps the answer from its client."""
        return next((one for one in self.verdicts if one.outcome in WITHHOLDING), None)

    @property
    def flagged(self) -> bool:
        """Whether a verdict marks the answer and lets it go."""
        return any(one.outcome == "flagged" for one in self.verdicts)
