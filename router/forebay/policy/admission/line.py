"""The prompts that one engine has still to take in, counted along one line of tokens.

`sent` is how many tokens were ever sent, `taken` how many of them the engine has taken in. A
request stands at its `mark` on that line. Engines take prompts in the order they came, so a
first token proves that all before it was taken in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forebay.policy.admission.terms import Ticket


class PromptLine:
    """Our own prompts in one engine that have no first token yet, the oldest first."""

    __slots__ = ("pending", "prompt_tokens", "sent", "taken")

    def __init__(self) -> None:
        self.pending: dict[Ticket, None] = {}
        self.prompt_tokens = 0
        self.sent = 0.0
        self.taken = 0.0

    @property
    def left(self) -> float:
        """Tokens that the engine has still to take in."""
        return self.sent - self.taken

    def sent_by(self, at_s: float) -> float:
        """Return how far along the line those stand that were placed before then."""
        for ticket in reversed(self.pending):
            if ticket.placed_s < at_s:
                return ticket.mark
        return self.taken

    def put(self, ticket: Ticket, prefill: int) -> None:
        """Add a prompt of which `prefill` tokens are not cached."""
        self.sent += prefill
        ticket.mark, ticket.prefill = self.sent, prefill
        self.pending[ticket] = None
        self.prompt_tokens += ticket.ask.prompt_tokens

    def took(self, ticket: Ticket) -> None:
        """Note a first token: its prompt and all before it were taken in."""
        self._drop(ticket)
        self.taken = max(self.taken, ticket.mark)
        self._ends()

    def gone(self, ticket: Ticket) -> None:
        """Forget a prompt that will not be taken in; who stands before it still will be."""
        self._drop(ticket)
        self.taken += min(float(ticket.prefill), max(0.0, ticket.mark - self.taken))
        self._ends()

    def move(self, tokens: float) -> None:
        """Move along the line, no further than the oldest prompt without a first token."""
        oldest = next(iter(self.pending), None)
        end = self.sent if oldest is None else oldest.mark - 1.0
        self.taken = max(self.taken, min(self.taken + tokens, end))

    def _drop(self, ticket: Ticket) -> None:
        del self.pending[ticket]
        self.prompt_tokens -= ticket.ask.prompt_tokens

    def _ends(self) -> None:
        if not self.pending:
            self.taken = self.sent
