"""Models at providers: each adapter is an `Engine` over the provider's official SDK."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from forebay.edges.cloud.engine import STALL_S, UNTOLD, ProviderEngine
from forebay.edges.cloud.keys import Key
from forebay.errors import SettingsError
from forebay.values import Abilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forebay.edges.cloud.engine import Watch
    from forebay.policy.rules import Expect, Target
    from forebay.ports import Clock

__all__ = ["Key", "ProviderEngine", "engine"]

ADAPTERS = {
    "openai": ("forebay.edges.cloud.openai", "OpenAIEngine"),
    "anthropic": ("forebay.edges.cloud.anthropic", "AnthropicEngine"),
    "google": ("forebay.edges.cloud.google", "GoogleEngine"),
}
"""Where each adapter is. It is imported for the first target that needs it: an SDK takes from
0.3 to 0.8 s and 40 to 70 MiB, which a policy without that provider does not pay."""


FIRST = 10.0
"""A provider whose slowest first tokens are known is given up after so many times as long."""

FIRST_LEAST_S = 5.0
"""But not before this: a new connection or a cold model is no breakage."""

_NO_NAME = re.compile(r"\.\.|[\s?&#%\x00-\x1f]")
"""A name that holds such a thing would be another address at a provider that has it in its path."""


def engine(
    target: str,
    rule: Target,
    clock: Clock,
    environ: Mapping[str, str],
    watch: Watch | None = None,
) -> ProviderEngine | None:
    """Return the engine of a cloud target; None where it is no cloud.

    A key that is missing is told when the target is called, and again at each call until it is
    there: other targets answer meanwhile.

    Raises:
        SettingsError: its address is none, or its model's name.
    """
    if (place := ADAPTERS.get(rule.adapter)) is None:
        return None
    cloud = getattr(rule, rule.adapter)
    if cloud.base_url is not None and not _is_address(cloud.base_url):
        raise SettingsError(
            f"models.{target}.{rule.adapter}.base_url is {cloud.base_url!r}; "
            "write an address as http://HOST:PORT"
        )
    if _NO_NAME.search(cloud.model) or not cloud.model:
        raise SettingsError(
            f"models.{target}.{rule.adapter}.model is {cloud.model!r}; "
            "write the model's name at the provider, without spaces and ? & # % .."
        )
    module, name = place
    adapter: type[ProviderEngine] = getattr(import_module(module), name)
    key = None if cloud.key is None else Key(cloud.key, environ)
    context = rule.limits.context_tokens
    abilities = UNTOLD if context is None else Abilities(context, context)
    first_s = patience_s(rule.expect)
    return adapter(target, cloud, key, clock, abilities=abilities, first_s=first_s, watch=watch)


def patience_s(expect: Expect) -> float:
    """Return how long a first token is waited for, by what the policy says of its target.

    Where it says nothing, `STALL_S`: nobody knows whether the model thinks before it speaks.
    """
    if "ttft_ms" not in expect.model_fields_set:
        return STALL_S
    return max(FIRST_LEAST_S, FIRST * expect.ttft_ms / 1000)


def _is_address(url: str) -> bool:
    try:
        said = urlsplit(url)
        return said.scheme in ("http", "https") and bool(said.hostname) and said.port != 0
    except ValueError:
        return False
