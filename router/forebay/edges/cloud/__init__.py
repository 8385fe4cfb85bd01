"""Models at providers: each adapter is an `Engine` over the provider's official SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from forebay.edges.cloud.keys import Key
from forebay.edges.cloud.openai import OpenAIEngine
from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.policy.rules import Target
    from forebay.ports import Clock

__all__ = ["CloudEngine", "Key", "OpenAIEngine", "engine"]

CloudEngine = OpenAIEngine
"""What wiring holds of every provider: an `Engine` that is closed at the end."""


def engine(
    target: str, rule: Target, clock: Clock, environ: Mapping[str, str]
) -> CloudEngine | None:
    """Return the engine of a cloud target; None where its adapter is not built yet.

    A key that is missing is told when the target is called, and again at each call until it is
    there: other targets answer meanwhile.

    Raises:
        SettingsError: its address is none.
    """
    if (cloud := rule.openai) is None:
        return None
    if cloud.base_url is not None and not _is_address(cloud.base_url):
        raise SettingsError(
            f"models.{target}.openai.base_url is {cloud.base_url!r}; "
            "write an address as http://HOST:PORT/v1"
        )
    key = None if cloud.key is None else Key(cloud.key, environ)
    return OpenAIEngine(target, cloud, key, clock)


def _is_address(url: str) -> bool:
    try:
        said = urlsplit(url)
        return said.scheme in ("http", "https") and bool(said.hostname) and said.port != 0
    except ValueError:
        return False
