"""Prompts in an engine's own terms: its template, its tokenizer, its limit."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from forebay.errors import InvalidRequest
from forebay.values import Chat, Prepared

if TYPE_CHECKING:
    from forebay.edges.triton.files import EngineFiles
    from forebay.values import Abilities, Request

LONG_PROMPT_CHARS = 16_384
"""Longer prompts are tokenised on a thread: 16,384 characters take about 5 ms."""

_LONG_PROMPTS = ThreadPoolExecutor(1, "long-prompts")
"""One thread: a burst of long prompts waits its turn instead of taking all cores and memory."""


class Prompts:
    """Turns requests into ids; one engine's replicas all take the same."""

    def __init__(self, files: EngineFiles) -> None:
        self._files = files

    @property
    def abilities(self) -> Abilities:
        """Return the limits that the engine was built with."""
        return self._files.abilities

    async def prepare(self, request: Request) -> Prepared:
        """Return the prompt's ids, by the model's own template and tokenizer.

        A prompt beyond what the engine takes is counted only until that is sure: `ids` is empty
        then, and `prompt_tokens` is a lower bound above the limit.
        """
        if _characters(request) <= LONG_PROMPT_CHARS:
            return self._prepared(request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_LONG_PROMPTS, self._prepared, request)

    def ids(self, text: str) -> list[int]:
        """Return a text's ids, without any that the model's template would add."""
        ids: list[int] = self._files.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _prepared(self, request: Request) -> Prepared:
        text = self._files.template.text(request)
        most = self._files.abilities.max_input_tokens
        counted = 0
        for at in range(0, len(text) - LONG_PROMPT_CHARS, LONG_PROMPT_CHARS):
            # A cut may split a token in two; one more for each piece covers that.
            counted += len(self.ids(text[at : at + LONG_PROMPT_CHARS])) - 1
            if counted > most:
                return Prepared(counted, whole=False)
        ids = self.ids(text)
        if not ids:
            raise InvalidRequest("the prompt is empty")
        return Prepared(len(ids), tuple(ids))


def _characters(request: Request) -> int:
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        return len(prompt.text)
    called = (call.arguments for message in prompt.messages for call in message.tool_calls)
    told = sum(len(str(tool.parameters)) for tool in request.tools)
    return told + sum(map(len, called)) + sum(len(m.content) for m in prompt.messages)
