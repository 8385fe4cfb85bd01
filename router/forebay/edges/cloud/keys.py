"""Keys of providers, from where the policy says they are kept; their values never show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 16 << 10
"""No provider's key is longer; a file that is holds something else."""

_TOLD_CHARS = 6
"""A word that begins as a long key does is taken for an echo of it."""


class NoKey(ValueError):
    """A key cannot be had; the message names where it was looked for."""


class Key:
    """One key, known by its `env:NAME` or `file:PATH` and read anew for each call.

    A mounted secret that is replaced is therefore used at the next call, without a restart.
    """

    def __init__(self, source: str, environ: Mapping[str, str]) -> None:
        self.source = source
        self._environ = environ

    def __repr__(self) -> str:
        return f"Key({self.source})"

    def value(self) -> str:
        """Return the key.

        Raises:
            NoKey: it is not there, or is no text that a header may carry.
        """
        kind, _, place = self.source.partition(":")
        said = self._environ.get(place, "") if kind == "env" else self._written(place)
        said = said.strip()
        if not said:
            raise NoKey(f"the key {self.source} is not set; set it for the router")
        if not said.isascii() or not said.isprintable() or " " in said:
            raise NoKey(f"the key {self.source} holds what is no key; write it anew")
        return said

    def hidden(self, text: str) -> str:
        """Return a foreign text without the key, or what looks like an echo of its beginning."""
        try:
            value = self.value()
        except NoKey:
            return text
        text = text.replace(value, "[key]")
        if len(value) < 2 * _TOLD_CHARS:
            return text
        return re.sub(re.escape(value[:_TOLD_CHARS]) + r"\S*", "[key]", text)

    def _written(self, place: str) -> str:
        try:
            with Path(place).open("rb") as file:
                return file.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError as error:
            raise NoKey(
                f"the key {self.source} cannot be read: {error.strerror or 'no such file'}"
            ) from None
